"""What longer training changes: whether a defence is broken under its worst attack, or only slowed down."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.analysis import CLEAN, GROUP, PAIR, cells_table
from pipeline.report.intervals import mean_of_all, t_half_width
from pipeline.report.paired import least_p, p_greater
from pipeline.runs.params import Analysis
from pipeline.runs.store import Record

SLOWED, BROKEN, HOLDS, UNDECIDED = "slowed", "broken", "holds", "undecided"


def prolonged_table(prolonged: Sequence[Record], cells: pd.DataFrame, settings: Analysis) -> pd.DataFrame:
    """Return one row per prolonged (attack, defence, partition), with the verdict of :func:`verdict`.

    ``gain`` is the test accuracy after the longer training minus that after T steps, and ``remaining_degradation`` the
    clean accuracy after T steps minus that after the longer training; both are paired by seed and have t-intervals.
    The clean run is not prolonged, so what remains is, if anything, told too small. ``converged`` is whether the whole
    interval of the gain lies at or below ``settings.half_width``.

    Args:
        prolonged: The runs that were trained on.
        cells: Of :func:`pipeline.report.analysis.cells_table`.
        settings: Of params.yaml.
    """
    steps = [record.planned.cell.training.steps for record in prolonged]
    longer = cells_table(prolonged).assign(steps=steps)[[*GROUP, "seed", "steps", "test_accuracy"]]
    short = cells[[*GROUP, "seed", "test_accuracy"]].rename(columns={"test_accuracy": "short"})
    clean = cells[cells["attack"] == CLEAN][[*PAIR, "test_accuracy"]].rename(columns={"test_accuracy": "clean"})
    runs = longer.merge(short, on=[*GROUP, "seed"]).merge(clean, on=PAIR)
    rows = [
        {**dict(zip(GROUP, names, strict=True)), **_row(of_group, settings)}
        for names, of_group in runs.groupby(GROUP, sort=False)
    ]
    return pd.DataFrame(rows)


def _row(runs: pd.DataFrame, settings: Analysis) -> dict[str, Any]:
    measured = {
        "accuracy": runs["short"],
        "prolonged_accuracy": runs["test_accuracy"],
        "gain": runs["test_accuracy"] - runs["short"],
        "remaining_degradation": runs["clean"] - runs["test_accuracy"],
    }
    numbers: dict[str, Any] = {"seeds": len(runs), "steps": runs["steps"].iloc[0]}
    for name, values in measured.items():
        numbers |= {name: mean_of_all(values), f"{name}_half_width": t_half_width(values, settings.confidence)}
    gain, remaining = measured["gain"].to_numpy(), measured["remaining_degradation"].to_numpy()
    return {
        **numbers,
        "p_gain": p_greater(gain - settings.half_width),
        "p_remaining": p_greater(remaining - settings.half_width),
        "converged": at_most(gain, settings),
        "verdict": verdict(gain, remaining, settings),
    }


def verdict(gain: np.ndarray, remaining: np.ndarray, settings: Analysis) -> str:
    """Return ``slowed``, ``broken``, ``holds`` or ``undecided``.

    With delta = ``settings.half_width`` and alpha = 1 - ``settings.confidence``:

    - slowed: the sign-flip test of ``gain - delta`` has p <= alpha, so the longer training gains more than delta. What
      was measured after T steps is then a speed and not a limit.
    - broken: the upper end of the t-interval of the gain is at most delta, so longer training does not help, and the
      sign-flip test of ``remaining - delta`` has p <= alpha, so more than delta is lost for good.
    - holds: the upper ends of both t-intervals are at most delta: neither is there much to gain, nor is much lost.
    - undecided: anything else. Too few seeds for any p <= alpha (fewer than 5 at a confidence of 95 %) leave every row
      undecided, since intervals of so few are not to be trusted alone.

    The first three exclude each other.

    Args:
        gain: ``[k]``, accuracy after the longer training minus that after T steps, of each seed.
        remaining: ``[k]``, clean accuracy minus that after the longer training.
        settings: Of params.yaml.
    """
    delta, alpha = settings.half_width, 1 - settings.confidence
    if least_p(len(gain)) > alpha:
        return UNDECIDED
    if p_greater(gain - delta) <= alpha:
        return SLOWED
    if at_most(gain, settings):
        if p_greater(remaining - delta) <= alpha:
            return BROKEN
        return HOLDS if at_most(remaining, settings) else UNDECIDED
    return UNDECIDED


def at_most(values: np.ndarray, settings: Analysis) -> bool:
    """Return whether the t-interval of the mean ends at or below ``settings.half_width``; False where there is none."""
    return bool(values.mean() + t_half_width(values, settings.confidence) <= settings.half_width)
