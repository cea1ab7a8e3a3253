"""The text of report.md: the prose stands in ``templates``, the numbers are prepared here."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report import wording
from pipeline.report.coverage import coverage
from pipeline.report.findings import Findings
from pipeline.report.intervals import binomial_error
from pipeline.report.published import NEAR
from pipeline.report.search_text import search_context
from pipeline.report.standings import matrices, standings
from pipeline.report.tables import Tables, table_files
from pipeline.runs.params import Params
from pipeline.runs.plan import resolved

GRID = ("labels", "heatmap", "distributions", "curves", "tuning")
SEARCH = ("literature_and_found", "strength", "front", "breakdown", "transfer", "course")


def report(params: Params, findings: Findings, pictures: Mapping[str, Sequence[str]]) -> str:
    """Return report.md.

    Args:
        params: Of the project.
        findings: All numbers.
        pictures: The names of the figures of each kind, of ``GRID`` and ``SEARCH``; a kind that is missing has none.
    """
    tables, settings = findings.tables, params.analysis
    return (
        _environment()
        .get_template("report.md.j2")
        .render(
            params=params,
            attacks={name: resolved(params, name).content() for name in params.grid.attacks},
            chance=1 / params.data.source.format.classes,
            overrun=findings.overrun,
            standings=standings(tables, params.search.partition, settings.confidence),
            partitions=findings.partitions.to_dict("records"),
            worst=tables.worst.to_dict("records"),
            with_alone=bool(tables.cells["alone_degradation"].notna().any()),
            matrices=matrices(tables.pairs),
            prolonged=_rows(tables.prolonged),
            tuned=_rows(tables.tuned),
            theory=_rows(tables.theory),
            diverged=_rows(tables.compared[tables.compared["diverged"] > 0]),
            precision=_precision(tables.compared),
            coverage=_coverage(tables, settings.confidence),
            test_samples=findings.test_samples,
            test_error=binomial_error(0.5, findings.test_samples),
            search=None if tables.search is None else search_context(tables.search, findings.studies),
            published=None if findings.published is None else _published(findings.published),
            files=_files(findings),
            pictures={kind: list(pictures.get(kind, ())) for kind in (*GRID, *SEARCH)},
        )
    )


def _rows(table: pd.DataFrame | None) -> list[dict[Any, Any]]:
    return [] if table is None else table.to_dict("records")


def _precision(compared: pd.DataFrame) -> dict[str, Any]:
    """Return how many groups there are, how many reached the half width aimed at, and how many seeds they have."""
    seeds = compared["seeds"]
    return {
        "groups": len(compared),
        "precise": int(compared["precise"].sum()),
        "fewest": int(seeds.min()),
        "most": int(seeds.max()),
    }


def _coverage(tables: Tables, confidence: float) -> list[dict[Any, Any]]:
    """Return how often the t-interval covers for the smallest and the largest number of seeds, at least two."""
    seeds = tables.compared["seeds"]
    counts = sorted({int(count) for count in (seeds.min(), seeds.max()) if count >= 2})
    return _rows(coverage(counts, confidence))


WORDS = (
    *(wording.accuracy, wording.collapse, wording.found_in_words, wording.in_words, wording.interval, wording.listed),
    *(
        wording.number,
        wording.p_value,
        wording.parameters,
        wording.points,
        wording.quantiles,
        wording.three_digits,
        wording.uncertain,
    ),
)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"paragraph": paragraph, "percent": wording.percent, "described": wording.described}
    environment.globals |= {function.__name__: function for function in (*WORDS, links)}
    return environment


def paragraph(text: str) -> str:
    """Return a paragraph on one line, wherever the template breaks it."""
    return " ".join(text.split()) + "\n"


def links(heading: str, names: Sequence[str]) -> str:
    """Return Markdown links to the figures of a section, one paragraph each."""
    return "\n\n".join(f"![{heading}: {name}](figures/{name}.png)" for name in names)


def _published(published: pd.DataFrame) -> dict[str, Any]:
    """Return the rows, each with the number of its reference, and the references."""
    references = list(published["reference"].unique())
    numbers = [references.index(reference) + 1 for reference in published["reference"]]
    trained = published["z"].notna()
    counts = {"near": int((published["z"].abs() <= NEAR).sum()), "trained": int(trained.sum())}
    return {"rows": published.assign(number=numbers).to_dict("records"), "references": references, **counts}


def _files(findings: Findings) -> list[str]:
    """Return the names of all tables, without their ending."""
    files = [*table_files(findings.tables), "partitions"]
    return files if findings.published is None else [*files, "published"]
