"""Our runs of published settings: kept as CSV beside the published numbers, and compared with them on a page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core.errors import UserError
from pipeline.core.files import write_text
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash
from pipeline.report import computed_on, wording
from pipeline.report.analysis import GROUP
from pipeline.report.published import NEAR, beside, our_runs, read_published
from pipeline.runs.params import Params
from pipeline.runs.plan import whole_row
from pipeline.runs.store import Record, read, row_folder

CELL = [*GROUP, "seed"]
MACHINE = ["torch", "numpy", "python", "processor"]
PAGE, OURS, PUBLISHED, CAUSES = "published.md", "ours.csv", "published.csv", "causes.csv"
HEADING = """\
# Published numbers beside ours

Written by `python -m pipeline record`; [README.md](README.md) says how the runs were made and what differs.
Accuracies in percent, mean ± standard deviation over the runs. z is the difference over its standard error; a deviation
that is not known (a single run, or none printed) is taken to be the other one's. The published number is the mean of
the last five evaluations (`last_five`), the largest mean accuracy over time (`largest`) or that after the last step
(`last`), on test images; ours is the same on validation images, where it is taken over time.
"""


def record(root: Path, params: Params, experiment: Path, device: torch.device) -> int:
    """Add the trained cells of an experiment to its ``ours.csv``, and write the page anew.

    Args:
        root: The project's folder.
        params: Of params.yaml, with the experiment applied.
        experiment: A folder of ``experiments``.
        device: What the training ran on.

    Returns:
        How many cells were found.

    Raises:
        UserError: A cell was trained with other parameters, data or code, or params.yaml names no published numbers.
    """
    if params.analysis.published is None:
        raise UserError(f"analysis.published = None: apply an experiment first, python -m pipeline apply {experiment}")
    found = our_runs(_trained(root, params))
    machine = computed_on.machine(device)
    written = pd.DataFrame({**found, "curve": [_text(curve) for curve in found["curve"]]})
    written = written.assign(**{name: machine[name] for name in MACHINE})
    path = experiment / OURS
    before = pd.read_csv(path, dtype={"curve": str}) if path.exists() else written.iloc[:0]
    rows = pd.concat([before, written]).drop_duplicates(CELL, keep="last").sort_values(CELL)
    write_text(path, rows.to_csv(index=False, lineterminator="\n"))
    write_text(experiment.parent / PAGE, page(experiment.parent))
    return len(found)


def _trained(root: Path, params: Params) -> list[Record]:
    data = data_hash(root / DATASET)
    cells = [planned for attack in params.grid.attacks for planned in whole_row(params, attack)]
    rows = [(row_folder(root, planned.attack), planned) for planned in cells]
    return [
        read(row, planned, data, f"train@{planned.attack}") for row, planned in rows if (row / planned.folder).exists()
    ]


def _text(curve: np.ndarray) -> str:
    return " ".join(f"{accuracy:.5f}" for accuracy in curve)


def read_ours(path: Path) -> pd.DataFrame:
    """Read what :func:`record` wrote, as :func:`pipeline.report.published.our_runs` returns it."""
    rows = pd.read_csv(path, dtype={"curve": str})
    curves = pd.Series([np.array(curve.split(), dtype=float) for curve in rows["curve"]], dtype=object)
    return rows.assign(curve=curves)


def compared(experiment: Path) -> pd.DataFrame:
    """Return the published rows of an experiment that were run here, beside ours, and why they differ.

    Returns:
        Those of :func:`pipeline.report.published.beside`, and the ``cause`` that ``causes.csv`` (``GROUP`` and cause)
        states; empty where it states none.
    """
    both = beside(read_published(experiment / PUBLISHED), read_ours(experiment / OURS)).dropna(subset=["ours"])
    causes = experiment / CAUSES
    known = pd.read_csv(causes, dtype=str) if causes.exists() else pd.DataFrame(columns=[*GROUP, "cause"])
    return both.merge(known, how="left", on=GROUP).fillna({"cause": ""})


def page(experiments: Path) -> str:
    """Return the text of ``published.md``: a table for every experiment that was run."""
    folders = [path.parent for path in sorted(experiments.glob(f"*/{OURS}"))]
    return "\n".join([HEADING, *(_section(folder.name, compared(folder)) for folder in folders)])


def _section(name: str, both: pd.DataFrame) -> str:
    near = int((both["z"].abs() <= NEAR).sum())
    lines = [
        f"## {name}\n",
        f"{near} of {len(both)} lie within {NEAR:g} standard errors of the published number.\n",
        "| attack | defence | partition | measure | published | ours | seeds | difference | z | cause |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, both.to_dict("records"))]) + "\n"


def _line(row: dict[Any, Any]) -> str:
    names = [row[name] for name in (*GROUP, "measure")]
    accuracies = [wording.uncertain(row[name], row[f"{name}_sd"]) for name in ("published", "ours")]
    numbers = [f"{row['seeds']:.0f}", wording.points(row["difference"], "+"), wording.number(row["z"], 2)]
    unexplained = "none found" if abs(row["z"]) > NEAR else ""
    return f"| {' | '.join([*names, *accuracies, *numbers, row['cause'] or unexplained])} |"
