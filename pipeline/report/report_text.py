"""The text of report.md, in Markdown, from the tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.report import analysis
from pipeline.report.analysis import Tables
from pipeline.report.figures import uncertain
from pipeline.report.search_report import headline_finding, overview
from pipeline.report.search_results import StudyResult
from pipeline.report.search_tables import SearchTables, search_files
from pipeline.report.wording import Section, described, listed, markdown, percent
from pipeline.runs.params import Params
from pipeline.runs.plan import resolved


@dataclass(frozen=True)
class Findings:
    """All numbers that the report tells.

    Attributes:
        tables: Of the grid and the searches.
        studies: Of the search.
        partitions: Of :func:`pipeline.report.heterogeneity.partitions_table`.
        published: Of :func:`pipeline.report.published.beside`; None where params.yaml names no published numbers.
    """

    tables: Tables
    studies: Sequence[StudyResult]
    partitions: pd.DataFrame
    published: pd.DataFrame | None


@dataclass(frozen=True)
class Sections:
    """All pictures: of the partitions, of the grid, of the searches."""

    labels: Section
    grid: Sequence[Section]
    search: Sequence[Section]

    def all(self) -> list[Section]:
        """Return every section."""
        return [self.labels, *self.grid, *self.search]


def report(params: Params, findings: Findings, sections: Sections) -> str:
    """Return report.md."""
    tables = findings.tables
    parts = [
        "# What Byzantine workers do to distributed training",
        *_best_defences(params, tables),
        *_setting(params),
        *_partitions_section(findings.partitions, sections.labels),
        *_grid_section(params, tables),
        *_paragraphs(sections.grid),
        *([*overview(params, tables.search), *_paragraphs(sections.search)] if tables.search else []),
        *(_published_section(params, findings.published) if findings.published is not None else []),
    ]
    return "\n\n".join([*parts, *_notes(params, findings)]) + "\n"


def _paragraphs(sections: Sequence[Section]) -> list[str]:
    return [paragraph for section in sections for paragraph in section.markdown()]


def _best_defences(params: Params, tables: Tables) -> list[str]:
    """Name the defence that keeps most on each partition, and what the search adds."""
    lines = []
    attacked = tables.heads.dropna(subset="accuracy")
    for partition, rows in attacked.groupby("partition", sort=False):
        best = max(rows.to_dict("records"), key=lambda row: float(row["accuracy"]))
        kept = uncertain(best["accuracy"], best["accuracy_half_width"])
        lines.append(
            f"- Partition {partition}: under its worst attack of the grid, {best['defence']} keeps most, {kept} % "
            f"({best['attack']})."
        )
    if tables.search:
        lines += headline_finding(params, tables.search)
    return ["\n".join(lines)] if lines else []


def _setting(params: Params) -> list[str]:
    threat, training, grid = params.threat, params.training, params.grid
    rows = [
        ["data", described(params.data.source.content())],
        ["model", described(params.model.content())],
        ["workers", f"n = {threat.workers}, Byzantine b = {threat.byzantine}, tolerated f = {threat.tolerated}"],
        ["training", described({"name": f"{training.steps} steps", **training.content()}, leave_out=("steps",))],
        *[["partition " + name, described(params.partitions[name].content())] for name in grid.partitions],
        *[["defence " + name, _defence(params.defences[name].content())] for name in grid.defences],
        *[["attack " + name, described(resolved(params, name).content())] for name in grid.attacks],
        ["seeds", listed(grid.seeds)],
        ["chance level", f"{percent(1 / params.data.source.format.classes)} %"],
    ]
    return ["## Setting", markdown(["", ""], rows)]


def _defence(content: dict[str, Any]) -> str:
    return ", then ".join(described(stage) for stage in [*content["before"], content["rule"]])


def _partitions_section(partitions: pd.DataFrame, labels: Section) -> list[str]:
    rows = [
        [row["partition"], *(_measured(row[name], row[f"{name}_half_width"]) for name in ("G", "B"))]
        for row in partitions.to_dict("records")
    ]
    return [f"## {labels.heading}", labels.reading, markdown(["partition", "G", "B"], rows), *labels.links()]


def _measured(value: float, half_width: float) -> str:
    """Return ``mean ± half width``; n/a for what is not known."""
    return " ± ".join(f"{number:.3g}" if math.isfinite(number) else "n/a" for number in (value, half_width))


def _grid_section(params: Params, tables: Tables) -> list[str]:
    header = [
        "partition",
        "defence",
        "clean (%)",
        "worst attack of the grid",
        "accuracy under it (%)",
        "degradation (points)",
    ]
    rows = [
        [
            row["partition"],
            row["defence"],
            uncertain(row["clean"], row["clean_half_width"]),
            row["attack"] if isinstance(row["attack"], str) else "n/a",
            uncertain(row["accuracy"], row["accuracy_half_width"]),
            uncertain(row["degradation"], row["degradation_half_width"]),
        ]
        for row in tables.heads.to_dict("records")
    ]
    text = (
        f"Test accuracy after {params.training.steps} steps: mean ± half width of the "
        f"{percent(params.analysis.confidence)} % interval over {len(params.grid.seeds)} seeds. The worst attack is "
        "the one of the grid with the lowest mean. Its degradation is the loss against the same defence without attack."
    )
    return ["## Under the attacks of the grid", text, markdown(header, rows)]


def _published_section(params: Params, published: pd.DataFrame) -> list[str]:
    header = [*analysis.GROUP, "published (%)", "ours (%)", "difference (points)", "source"]
    sources = list(published["source"].unique())
    rows = [
        [
            *(row[name] for name in analysis.GROUP),
            uncertain(row["published"], row["published_sd"]),
            uncertain(row["ours"], row["ours_half_width"]),
            f"{100 * row['difference']:+.1f}" if math.isfinite(row["difference"]) else "n/a",
            f"{sources.index(row['source']) + 1}",
        ]
        for row in published.to_dict("records")
    ]
    named = "\n".join(f"{number}. {source}" for number, source in enumerate(sources, start=1))
    return ["## Published beside ours", *_published_text(params), markdown(header, rows), "Sources:", named]


def _published_text(params: Params) -> list[str]:
    text = (
        "Published: mean test accuracy ± standard deviation over the authors' runs. Ours: mean ± half width of the "
        f"{percent(params.analysis.confidence)} % interval over {len(params.grid.seeds)} seeds, after the last step. "
        "The two ± are not alike: one says how far single runs lie apart, the other how well a mean is known. The "
        "difference is ours minus published, and n/a stands where one of the two is not known. Where it is large, "
        "first compare the setting above with the authors' (data, model, steps, when accuracy is taken)."
    )
    made_up = (
        "**The data here are `synthetic`: made up, and not the data set of the published numbers. The two columns "
        "cannot agree, and their difference says nothing about either; this run shows only that the experiment works.**"
    )
    return [made_up, text] if params.data.source.name == "synthetic" else [text]


NOTES = """\
- Intervals are Student-t intervals of a mean over seeds. With one seed there is none, and n/a stands in its place. They
  say how much the mean depends on the seeds, for this one split of the data; they are not corrected for the number of
  comparisons in a table.
- All attacks and defences share their seeds: data order, partition and initial weights of a seed are the same
  everywhere (common random numbers). A degradation is therefore a difference within one seed, and its interval is that
  of these differences; it is often narrower than the two accuracies suggest.
- Validation data choose, test data judge: learning curves and the search read the validation split, every other number
  comes from the test split, read once after the last step. Nothing here is a maximum over time.
- The worst attack of a defence is the one with the lowest mean, picked on the test results that are then reported;
  where attacks come close, it looks a little worse than fresh seeds would show. Found strengths do not share this bias
  for one attack, because fresh seeds confirm them; the worst of several attacks does.
- A defence at chance level has learnt nothing. Below it, it has been taught wrong labels."""


def _notes(params: Params, findings: Findings) -> list[str]:
    tables = findings.tables
    files = ["cells", "comparison", "curves", "partitions"]
    files += list(search_files(tables.search)) if tables.search else []
    files += ["published"] if findings.published is not None else []
    links = listed([f"[{name}.csv]({name}.csv)" for name in files])
    return [
        "## Notes on the statistics",
        NOTES,
        "## Diverged runs",
        *_diverged(params, tables),
        "## Tables",
        f"Fractions, not percent: {links}.",
    ]


def _diverged(params: Params, tables: Tables) -> list[str]:
    """Say which runs ended with numbers that are not finite."""
    rule = (
        "A run whose parameters or outputs are no longer finite counts as diverged. It stays in every table, with the "
        f"accuracy of guessing, {percent(1 / params.data.source.format.classes)} %."
    )
    groups = analysis.diverged_groups(tables.compared).to_dict("records")
    rows = [[*(row[name] for name in analysis.GROUP), f"{row['diverged']} of {row['seeds']}"] for row in groups]
    table = markdown([*analysis.GROUP, "diverged runs"], rows) if rows else "In the grid, no run diverged."
    if tables.search is None:
        return [rule, table]
    diverged = {name: int(part["diverged"].sum()) for name, part in _search_runs(tables.search).items()}
    runs = {name: int(part["seeds"].sum()) for name, part in _search_runs(tables.search).items()}
    counts = listed([f"{diverged[name]} of {runs[name]} {name} runs" for name in runs])
    return [rule, table, f"In the search, diverged: {counts}."]


def _search_runs(search: SearchTables) -> dict[str, pd.DataFrame]:
    return {"trial": search.trials, "confirmation": search.confirmed}
