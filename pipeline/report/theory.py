"""What theory promises beside what was measured: robustness coefficients, and breakdown points."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.analysis import CLEAN
from pipeline.runs.params import Params
from pipeline.runs.store import Record


def breakdown_point(b: float) -> float:
    """Return 1 / (2 + B^2), the share of Byzantine workers from which no rule can promise anything.

    (G, B)-gradient dissimilarity leaves a choice; this is the point for the pair (0, B).

    Reference: Allouah et al. 2023, arXiv:2309.13591.

    Example:
        >>> breakdown_point(0.0), breakdown_point(2**0.5)
        (0.5, 0.25)
    """
    return 1 / (2 + b**2)


def theory_table(
    records: Iterable[Record], alone: Iterable[Record], partitions: pd.DataFrame, params: Params
) -> pd.DataFrame:
    """Return one row per (partition, defence): its proven kappa, the largest measured one, and what B leaves of theory.

    A proven kappa holds for every step of every run, so what stands beside it is the largest of all steps and seeds:
    ``kappa_measured``, under ``kappa_attack``, the attack that reaches it; ``kappa_typical`` is the median over the
    steps of that attack. A step in which the honest vectors do not differ, or that diverged, has no kappa; such steps
    are left out and counted in ``unmeasured``. Clean runs do not count: their Byzantine workers are honest ones.

    ``G`` and ``B`` are those at the initial parameters; ``promised`` is whether f / n is below ``breakdown_point``
    there. ``G_typical`` and ``B_typical`` are the medians over the evaluations along the training of the honest workers
    alone, on this partition, and ``unpromised_share`` is the share of these at which f / n is not below the breakdown
    point; they are NaN where that was not trained.

    Args:
        records: Of the grid.
        alone: Of the honest workers alone.
        partitions: Of :func:`pipeline.report.heterogeneity.partitions_table`.
        params: Of the project.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.planned.partition, record.planned.defence), []).append(record)
    unattacked: dict[str, list[Record]] = {partition: [] for partition in params.grid.partitions}
    for record in alone:
        unattacked[record.planned.partition].append(record)
    initial = {row["partition"]: row for row in partitions.to_dict("records")}
    ordered = [(partition, defence) for partition in params.grid.partitions for defence in params.grid.defences]
    return pd.DataFrame(
        [
            {
                **{"partition": partition, "defence": defence},
                **_kappas(groups[partition, defence], defence, params),
                **_promises(unattacked[partition], initial[partition], params),
            }
            for partition, defence in ordered
        ]
    )


def _kappas(records: Sequence[Record], defence: str, params: Params) -> dict[str, Any]:
    threat = params.threat
    proven = params.defences[defence].kappa(threat.received, threat.tolerated)
    measured = _measured(records)
    finite = {attack: kappa[np.isfinite(kappa)] for attack, kappa in measured.items()}
    largest = {attack: float(kappa.max()) for attack, kappa in finite.items() if len(kappa)}
    worst = max(largest, key=largest.__getitem__, default=None)
    return {
        "kappa_proven": math.nan if proven is None else proven,
        "kappa_measured": math.nan if worst is None else largest[worst],
        "kappa_attack": worst,
        "kappa_typical": math.nan if worst is None else float(np.median(finite[worst])),
        "unmeasured": sum(len(measured[attack]) - len(finite[attack]) for attack in measured),
    }


def _measured(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Return attack -> the empirical kappa of every step of every seed; clean runs are left out."""
    attacks: dict[str, list[np.ndarray]] = {}
    for record in records:
        if record.planned.attack != CLEAN:
            attacks.setdefault(record.planned.attack, []).append(record.steps.get("empirical_kappa", np.empty(0)))
    return {attack: np.concatenate(columns) for attack, columns in attacks.items()}


def _promises(records: Sequence[Record], start: Mapping[Any, Any], params: Params) -> dict[str, Any]:
    share = params.threat.tolerated / params.threat.received
    g, b = _along_training(records, "g_squared"), _along_training(records, "b_squared")
    return {
        "byzantine_share": share,
        "G": start["G"],
        "B": start["B"],
        "breakdown_point": breakdown_point(start["B"]),
        "promised": share < breakdown_point(start["B"]),
        "G_typical": float(np.median(g)) if len(g) else math.nan,
        "B_typical": float(np.median(b)) if len(b) else math.nan,
        "unpromised_share": float((share >= 1 / (2 + b**2)).mean()) if len(b) else math.nan,
    }


def _along_training(records: Sequence[Record], name: str) -> np.ndarray:
    """Return the square roots of a column of all evaluations that have it, without those that are not known."""
    columns = [record.evaluations[name] for record in records if name in record.evaluations]
    values = np.sqrt(np.concatenate(columns)) if columns else np.empty(0)
    return values[~np.isnan(values)]
