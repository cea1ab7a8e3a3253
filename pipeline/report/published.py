"""Published results beside ours: one row per (attack, defence, partition) of a table printed in a paper."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.report.analysis import GROUP

NUMBERS = ["mean", "sd"]
COLUMNS = [*GROUP, *NUMBERS, "unit", "reference"]
UNITS = {"percent": 0.01, "fraction": 1.0}


def read_published(path: Path) -> pd.DataFrame:
    """Read published test accuracies.

    Args:
        path: A CSV file with the columns attack, defence and partition (names in params.yaml), mean and sd over the
            authors' runs (sd may be empty), unit (percent or fraction) and reference.

    Returns:
        ``GROUP``, ``published`` and ``published_sd`` (fractions, the latter NaN where none is given), ``reference``.

    Raises:
        UserError: The file is missing, has other columns, a faulty number, an unknown unit or a row twice.
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
    return rows[GROUP].assign(**numbers, reference=rows["reference"])


def _fault(rows: pd.DataFrame) -> str | None:
    """Return what is wrong with the first faulty row, counted from 1 below the heading."""
    if list(rows.columns) != COLUMNS:
        return f"the columns should be {', '.join(COLUMNS)}, not {', '.join(rows.columns)}"
    faults = {
        "a name is empty": (rows[GROUP] == "").any(axis=1),
        "this attack, defence and partition are there already": rows.duplicated(GROUP),
        f"the unit should be {allowed('', UNITS)}": ~rows["unit"].isin(list(UNITS)),
        "the mean is not a number": _numbers(rows["mean"]).isna(),
        "the sd is not a number": _numbers(rows["sd"]).isna() & (rows["sd"] != ""),
    }
    found = [f"row {int(np.argmax(where)) + 1}: {fault}" for fault, where in faults.items() if where.any()]
    return found[0] if found else None


def _numbers(column: pd.Series) -> pd.Series:
    numbers: pd.Series = pd.to_numeric(column, errors="coerce")
    return numbers.where(np.isfinite(numbers))


def beside(published: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Return published accuracies with ours beside them.

    Args:
        published: Of :func:`read_published`.
        compared: Of :func:`pipeline.report.analysis.comparison`.

    Returns:
        One row per published row, in order: ``GROUP``, ``published``, ``published_sd``, ``ours``,
        ``ours_half_width``, ``seeds``, ``unconverged``, ``difference`` (ours minus published) and ``reference``; NaN
        where it was not trained here.

    Example:
        >>> names = {"attack": ["alie"], "defence": ["krum"], "partition": ["iid"]}
        >>> theirs = pd.DataFrame({**names, "published": [0.5], "published_sd": [0.1], "reference": ["table 1"]})
        >>> numbers = {"accuracy": [0.75], "accuracy_half_width": [0.02], "seeds": [5], "unconverged": [False]}
        >>> ours = pd.DataFrame({**names, **numbers})
        >>> float(beside(theirs, ours)["difference"].iloc[0])
        0.25
    """
    measured = compared[[*GROUP, "seeds", "accuracy", "accuracy_half_width", "unconverged"]]
    measured = measured.rename(columns={"accuracy": "ours", "accuracy_half_width": "ours_half_width"})
    both = published.merge(measured, how="left", on=GROUP)
    both["difference"] = both["ours"] - both["published"]
    ours = ["ours", "ours_half_width", "seeds", "unconverged"]
    return both[[*GROUP, "published", "published_sd", *ours, "difference", "reference"]]
