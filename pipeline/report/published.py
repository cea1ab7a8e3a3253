"""Published results beside ours: one row per (attack, defence, partition) of a table printed in a paper."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.report.analysis import GROUP
from pipeline.runs.store import Record

NUMBERS = ["mean", "sd", "runs"]
COLUMNS = [*GROUP, *NUMBERS, "measure", "unit", "reference"]
UNITS = {"percent": 0.01, "fraction": 1.0}
NEAR = 2.0  # standard errors
WORST_OF = " / "  # between the names of attacks, where the worst of them was published

# What a published number is, of the validation curves [seeds, evaluations] and the test accuracies [seeds] of our runs.
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "last": lambda _, tests: tests,
    "last_five": lambda curves, _: curves[:, -5:].mean(axis=1),
    "largest": lambda curves, _: curves[:, curves.mean(axis=0).argmax()],
}


def read_published(path: Path) -> pd.DataFrame:
    """Read published test accuracies.

    Args:
        path: A CSV file with the columns attack, defence and partition (names in params.yaml; several attacks with
            ``WORST_OF`` between them are the worst of these), mean and sd over the authors' runs and how many these
            were (both may be empty), measure (one of ``MEASURES``), unit (percent or fraction) and reference.

    Returns:
        ``GROUP``, ``published`` and ``published_sd`` (fractions, the latter NaN where none is given), ``runs``,
        ``measure``, ``reference``.

    Raises:
        UserError: The file is missing, has other columns, a faulty number, an unknown name or a row twice.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"analysis.published = {str(path)!r}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"analysis.published = {str(path)!r}: not a CSV file ({error})") from None
    fault = _fault(rows)
    if fault:
        raise UserError(f"{path}: {fault}")
    scale = rows["unit"].map(UNITS)
    numbers = {"published": _numbers(rows["mean"]) * scale, "published_sd": _numbers(rows["sd"]) * scale}
    return rows[GROUP].assign(
        **numbers, runs=_numbers(rows["runs"]), measure=rows["measure"], reference=rows["reference"]
    )


def _fault(rows: pd.DataFrame) -> str | None:
    """Return what is wrong with the first faulty row, counted from 1 below the heading."""
    if list(rows.columns) != COLUMNS:
        return f"the columns should be {', '.join(COLUMNS)}, not {', '.join(rows.columns)}"
    faults = {
        "a name is empty": (rows[GROUP] == "").any(axis=1),
        "this attack, defence and partition are there already": rows.duplicated(GROUP),
        f"the unit should be {allowed('', UNITS)}": ~rows["unit"].isin(list(UNITS)),
        f"the measure should be {allowed('', MEASURES)}": ~rows["measure"].isin(list(MEASURES)),
        "the mean is not a number": _numbers(rows["mean"]).isna(),
        "the sd is not a number": _numbers(rows["sd"]).isna() & (rows["sd"] != ""),
        "the runs are not a number": ~(_numbers(rows["runs"]) >= 1) & (rows["runs"] != ""),
    }
    found = [f"row {int(np.argmax(where)) + 1}: {fault}" for fault, where in faults.items() if where.any()]
    return found[0] if found else None


def _numbers(column: pd.Series) -> pd.Series:
    numbers: pd.Series = pd.to_numeric(column, errors="coerce")
    return numbers.where(np.isfinite(numbers))


def our_runs(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per cell: ``GROUP``, ``seed``, ``test_accuracy`` and ``curve``, its validation accuracies."""
    rows = [
        (
            *record.planned.group,
            record.planned.cell.seed,
            record.final["test_accuracy"],
            record.evaluations["validation_accuracy"],
        )
        for record in records
    ]
    return pd.DataFrame(rows, columns=[*GROUP, "seed", "test_accuracy", "curve"])


def beside(published: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return published accuracies with ours beside them, by the measure of each.

    z = (ours - published) / sqrt(s_ours^2 / seeds + s_published^2 / runs), s the deviations over the runs; one that is
    not known, because of a single seed or because it was not printed, is taken to be the other.

    Args:
        published: Of :func:`read_published`.
        runs: Of :func:`our_runs`.

    Returns:
        The published rows, in order, with ``ours``, ``ours_sd``, ``seeds``, ``difference`` (ours minus published) and
        ``z``; NaN where it was not trained here.

    Example:
        >>> names = {"attack": ["alie"], "defence": ["krum"], "partition": ["iid"]}
        >>> numbers = {"published": [0.5], "published_sd": [0.1], "runs": [4], "measure": ["last"], "reference": ["T1"]}
        >>> ours = pd.DataFrame({**names, "seed": [0], "test_accuracy": [0.75], "curve": [np.zeros(3)]})
        >>> beside(pd.DataFrame({**names, **numbers}), ours)[["seeds", "difference", "z"]].round(3).values.tolist()
        [[1.0, 0.25, 2.236]]
    """
    measured = [_measured(row, runs) for row in published.to_dict("records")]
    ours = pd.DataFrame(measured, columns=["ours", "ours_sd", "seeds"])
    both = published.reset_index(drop=True).join(ours)
    difference = both["ours"] - both["published"]
    spread, theirs = both["ours_sd"], both["published_sd"]
    squares = spread.fillna(theirs) ** 2 / both["seeds"] + theirs.fillna(spread) ** 2 / both["runs"].fillna(1)
    return both.assign(difference=difference, z=difference / np.sqrt(squares))


def _measured(row: dict[Any, Any], runs: pd.DataFrame) -> tuple[float, float, float]:
    """Return mean and deviation over our seeds, and how many these are, of the worst of the row's attacks."""
    alike = runs[(runs["defence"] == row["defence"]) & (runs["partition"] == row["partition"])]
    found = []
    for attack in row["attack"].split(WORST_OF):
        cells = alike[alike["attack"] == attack]
        if cells.empty:
            return (np.nan,) * 3
        values = MEASURES[row["measure"]](np.stack(list(cells["curve"])), cells["test_accuracy"].to_numpy())
        deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        found.append((float(values.mean()), deviation, float(len(values))))
    return min(found)
