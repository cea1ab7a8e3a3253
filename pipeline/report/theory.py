"""What theory promises beside what was measured: robustness coefficients, and breakdown points."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.analysis import CLEAN
from pipeline.runs.params import Params
from pipeline.runs.store import Record

HETEROGENEITY = ("g_squared", "b_squared")


def breakdown_point(b: float) -> float:
    """Return 1 / (2 + B^2), the share of Byzantine workers from which no rule can promise anything.

    (G, B)-gradient dissimilarity leaves a choice; this is the point for the pair (0, B).

    Reference: Allouah et al. 2023, arXiv:2309.13591.

    Example:
        >>> breakdown_point(0.0), breakdown_point(2**0.5)
        (0.5, 0.25)
    """
    return 1 / (2 + b**2)


def theory_table(records: Iterable[Record], partitions: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Return one row per (partition, defence): its proven kappa, the largest measured one, and what B leaves of theory.

    A proven kappa holds for every step of every run, so what stands beside it is the largest of all steps and seeds:
    ``kappa_measured``, under ``kappa_attack``, the attack that reaches it; ``kappa_typical`` is the median over the
    steps of that attack. A step in which the honest vectors do not differ, or that diverged, has no kappa; such steps
    are left out and counted in ``unmeasured``. Clean runs do not count: their Byzantine workers are honest ones.

    ``B`` is that at the initial parameters; ``promised`` is whether f / n is below ``breakdown_point`` there.
    ``B_typical`` and ``unpromised_share`` are the median B along training, and the share of evaluations at which f / n
    is not below its breakdown point; both are NaN where the gradients were not measured along training.

    Args:
        records: Of the grid.
        partitions: Of :func:`pipeline.report.heterogeneity.partitions_table`.
        params: Of the project.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.planned.partition, record.planned.defence), []).append(record)
    initial = dict(zip(partitions["partition"], partitions["B"], strict=True))
    ordered = [(partition, defence) for partition in params.grid.partitions for defence in params.grid.defences]
    return pd.DataFrame(
        [
            {
                **{"partition": partition, "defence": defence},
                **_kappas(groups[partition, defence], defence, params),
                **_promises(groups[partition, defence], initial[partition], params),
            }
            for partition, defence in ordered
        ]
    )


def _kappas(records: Sequence[Record], defence: str, params: Params) -> dict[str, Any]:
    threat = params.threat
    proven = params.defences[defence].kappa(threat.received, threat.tolerated)
    rows = [(record.planned.attack, kappa) for record in records for kappa in _kappa_of_steps(record)]
    steps = pd.DataFrame(rows, columns=["attack", "kappa"])
    steps = steps[steps["attack"] != CLEAN]
    measured = steps[np.isfinite(steps["kappa"])]
    unmeasured = len(steps) - len(measured)
    if measured.empty:
        worst, largest, typical = math.nan, math.nan, math.nan
    else:
        worst = measured.loc[measured["kappa"].idxmax(), "attack"]
        of_worst = measured[measured["attack"] == worst]["kappa"]
        largest, typical = float(of_worst.max()), float(of_worst.median())
    return {
        "kappa_proven": math.nan if proven is None else proven,
        "kappa_measured": largest,
        "kappa_attack": worst,
        "kappa_typical": typical,
        "unmeasured": unmeasured,
    }


def _kappa_of_steps(record: Record) -> np.ndarray:
    return record.steps.get("empirical_kappa", np.empty(0))


def _promises(records: Sequence[Record], initial: float, params: Params) -> dict[str, Any]:
    share = params.threat.tolerated / params.threat.received
    columns = [record.evaluations["b_squared"] for record in records if "b_squared" in record.evaluations]
    along = np.sqrt(np.concatenate(columns)) if columns else np.empty(0)
    along = along[~np.isnan(along)]
    return {
        "byzantine_share": share,
        "B": initial,
        "breakdown_point": breakdown_point(initial),
        "promised": share < breakdown_point(initial),
        "B_typical": float(np.median(along)) if len(along) else math.nan,
        "unpromised_share": float((share >= 1 / (2 + along**2)).mean()) if len(along) else math.nan,
    }
