"""What is known of a found strength: the range of values that cannot be told from the worst that was tried."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.intervals import t_half_width
from pipeline.report.search_results import StudyResult

STRENGTH = "strength"
COLUMNS = ["study", "mode", "defence", "byzantine", "low", "high", "tried", "range"]


def ranges_table(studies: Sequence[StudyResult], confidence: float) -> pd.DataFrame:
    """Return one row per (study, defence, byzantine) for which a strength was found, and nothing else between bounds.

    Parameters with choices may be searched besides; then only trials with the choices of the found one count. Going out
    from the found strength, the worst on validation data, to either side, the range holds all strengths tried up to the
    first whose degradation can be told from it: the t-interval of the paired difference over the search's seeds does
    not hold 0. ``tried`` counts the strengths in it, and ``range`` prints it to the digits that :func:`in_digits`
    grants.
    """
    return pd.DataFrame([row for study in studies for row in _of_study(study, confidence)], columns=COLUMNS)


def _of_study(study: StudyResult, confidence: float) -> Iterator[dict[str, Any]]:
    found = study.confirmation[study.confirmation["candidate"] == "found"].drop_duplicates(["defence", "byzantine"])
    for row in found.to_dict("records") if strength_alone(study.description["spaces"]) else []:
        own = (study.trials["defence"] == row["defence"]) & (study.trials["byzantine"] == row["byzantine"])
        names = {"study": study.name, "mode": study.description["mode"]}
        names |= {"defence": row["defence"], "byzantine": row["byzantine"]}
        yield {**names, **found_range(study.trials[own], int(row["trial"]), confidence)}


def strength_alone(spaces: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether there is one attack, of which the strength and nothing else is searched between bounds."""
    return [name for space in spaces.values() for name, entry in space.items() if "low" in entry] == [STRENGTH]


def found_range(trials: pd.DataFrame, trial: int, confidence: float) -> dict[str, Any]:
    """Return ``low``, ``high``, ``tried`` and ``range`` around the strength of one trial.

    Args:
        trials: Of one target, one row per (trial, seed).
        trial: The found one.
        confidence: Of the intervals.
    """
    parsed = [json.loads(parameters) for parameters in trials["parameters"]]
    x = np.array([parameters.pop(STRENGTH) for parameters in parsed], dtype=float)
    others = pd.Series([json.dumps(parameters) for parameters in parsed], index=trials.index)
    alike = others == others[trials["trial"] == trial].iloc[0]
    by_seed = trials.assign(x=x)[alike].pivot_table(index="x", columns="seed", values="degradation")
    values, best = by_seed.index.to_numpy(), float(x[(trials["trial"] == trial).to_numpy()][0])
    alike_best = [_not_apart(by_seed.loc[value] - by_seed.loc[best], confidence) for value in values]
    low, high = _run_around(alike_best, int(np.flatnonzero(values == best)[0]))
    text = " to ".join(dict.fromkeys(in_digits(values, place) for place in (low, high)))
    return {"low": values[low], "high": values[high], "tried": high - low + 1, "range": text}


def _not_apart(difference: pd.Series, confidence: float) -> bool:
    """Return whether the interval of the mean holds 0; True where there is no interval."""
    half_width = t_half_width(difference, confidence)
    return not math.isfinite(half_width) or abs(difference.mean()) <= half_width


def _run_around(kept: Sequence[bool], start: int) -> tuple[int, int]:
    """Return the first and the last place of the unbroken run of True that holds ``start``.

    Example:
        >>> _run_around([True, False, True, True, False], 2)
        (2, 3)
    """
    low = high = start
    while low > 0 and kept[low - 1]:
        low -= 1
    while high < len(kept) - 1 and kept[high + 1]:
        high += 1
    return low, high


def in_digits(values: np.ndarray, place: int) -> str:
    """Return a value with one significant digit, or with two where one would bring it closer to its neighbour.

    Args:
        values: All that were tried, ascending.
        place: Of the value to print.

    Example:
        >>> in_digits(np.array([0.5, 0.83, 1.9]), 1), in_digits(np.array([0.8, 0.83, 0.9]), 1)
        ('0.8', '0.83')
    """
    near = np.abs(np.delete(values, place) - values[place])
    short = float(f"{values[place]:.1g}")
    enough = len(near) == 0 or abs(short - values[place]) < near.min() / 2
    return f"{short:g}" if enough else f"{float(f'{values[place]:.2g}'):g}"
