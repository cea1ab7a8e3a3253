"""The text of report.md: the prose stands in ``templates``, the numbers are prepared here."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report import wording
from pipeline.report.findings import Findings
from pipeline.report.search_tables import search_files
from pipeline.report.search_text import search_context
from pipeline.runs.params import Params
from pipeline.runs.plan import resolved

GRID = ("labels", "heatmap", "curves")
SEARCH = ("literature_and_found", "strength", "front", "breakdown", "transfer", "optuna")


def report(params: Params, findings: Findings, pictures: Mapping[str, Sequence[str]]) -> str:
    """Return report.md.

    Args:
        params: Of the project.
        findings: All numbers.
        pictures: The names of the figures of each kind, of ``GRID`` and ``SEARCH``; a kind that is missing has none.
    """
    tables = findings.tables
    return (
        _environment()
        .get_template("report.md.j2")
        .render(
            params=params,
            attacks={name: resolved(params, name).content() for name in params.grid.attacks},
            chance=1 / params.data.source.format.classes,
            overrun=findings.overrun,
            best=_best_defences(tables.heads),
            partitions=findings.partitions.to_dict("records"),
            heads=tables.heads.to_dict("records"),
            diverged=tables.compared[tables.compared["diverged"] > 0].to_dict("records"),
            search=None if tables.search is None else search_context(tables.search, findings.studies),
            published=None if findings.published is None else _published(findings.published),
            files=_files(findings),
            pictures={kind: list(pictures.get(kind, ())) for kind in (*GRID, *SEARCH)},
        )
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
    functions = (wording.in_words, wording.interval, wording.p_value, wording.points, wording.three_digits)
    environment.globals |= {function.__name__: function for function in (*functions, wording.uncertain, links)}
    return environment


def paragraph(text: str) -> str:
    """Return a paragraph on one line, wherever the template breaks it."""
    return " ".join(text.split()) + "\n"


def links(heading: str, names: Sequence[str]) -> str:
    """Return Markdown links to the figures of a section, one paragraph each."""
    return "\n\n".join(f"![{heading}: {name}](figures/{name}.png)" for name in names)


def _best_defences(heads: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return, for each partition, the row of the defence that keeps most under its worst attack."""
    attacked = heads.dropna(subset="accuracy")
    best = attacked.loc[attacked.groupby("partition", sort=False)["accuracy"].idxmax()]
    return best.to_dict("records")


def _published(published: pd.DataFrame) -> dict[str, Any]:
    """Return the rows, each with the number of its reference, and the references."""
    references = list(published["reference"].unique())
    numbers = [references.index(reference) + 1 for reference in published["reference"]]
    return {"rows": published.assign(number=numbers).to_dict("records"), "references": references}


def _files(findings: Findings) -> list[str]:
    """Return the names of all tables, without their ending."""
    search = findings.tables.search
    files = ["cells", "comparison", "curves", "partitions", *(search_files(search) if search else ())]
    return files if findings.published is None else [*files, "published"]
