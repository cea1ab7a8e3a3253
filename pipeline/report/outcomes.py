"""What the runs of a group, one per seed, come to: mean with interval, quantiles, and how many collapsed."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.report.intervals import clopper_pearson, mean_of_all, over_seeds, t_half_width
from pipeline.runs.params import Analysis

OUTCOME = [
    *("seeds", "accuracy", "accuracy_half_width", "precise", "accuracy_median", "accuracy_lower_quartile"),
    *("accuracy_upper_quartile", "accuracy_min", "accuracy_max", "collapsed", "collapse", "collapse_low"),
    *("collapse_high", "diverged", "degradation", "degradation_half_width", "alone_degradation"),
    "alone_degradation_half_width",
]


def outcomes(runs: pd.DataFrame, keys: Sequence[str], settings: Analysis) -> pd.DataFrame:
    """Return one row per group of runs: ``keys``, ``OUTCOME`` and ``accuracy_sd``.

    ``precise`` says whether the half width aimed at was reached. ``collapsed`` counts the runs whose accuracy is below
    ``settings.collapse``; ``collapse`` is their share, and its two ends those of the Clopper-Pearson interval.
    ``alone_degradation`` is the mean over those seeds for which the honest workers were trained alone, too.

    Args:
        runs: One row per run, with ``keys``, ``seed``, ``accuracy``, ``degradation``, ``alone_degradation`` (NaN where
            there is nothing to compare with) and ``diverged``.
        keys: What the runs of a group have in common; their order of appearance is kept.
        settings: Of params.yaml.
    """
    table: pd.DataFrame = runs.groupby(list(keys), sort=False, dropna=False).agg(
        seeds=("seed", "count"),
        **over_seeds("accuracy", "accuracy", settings.confidence),
        accuracy_sd=("accuracy", "std"),
        accuracy_median=("accuracy", "median"),
        accuracy_lower_quartile=("accuracy", lambda values: values.quantile(0.25)),
        accuracy_upper_quartile=("accuracy", lambda values: values.quantile(0.75)),
        accuracy_min=("accuracy", "min"),
        accuracy_max=("accuracy", "max"),
        collapsed=("accuracy", lambda values: int((values < settings.collapse).sum())),
        diverged=("diverged", "sum"),
        **over_seeds("degradation", "degradation", settings.confidence),
        **_of_common_seeds("alone_degradation", settings.confidence),
    )
    return _with_collapse(table.reset_index(), settings)[[*keys, *OUTCOME, "accuracy_sd"]]


def _of_common_seeds(name: str, confidence: float) -> dict[str, Any]:
    """Return what :func:`over_seeds` returns, for a column in which some seeds may be missing."""
    return {
        name: (name, lambda values: mean_of_all(values.dropna())),
        f"{name}_half_width": (name, lambda values: t_half_width(values.dropna(), confidence)),
    }


def _with_collapse(table: pd.DataFrame, settings: Analysis) -> pd.DataFrame:
    counts = zip(table["collapsed"], table["seeds"], strict=True)
    ends = [clopper_pearson(collapsed, seeds, settings.confidence) for collapsed, seeds in counts]
    return table.assign(
        precise=table["accuracy_half_width"] <= settings.half_width,
        collapse=table["collapsed"] / table["seeds"],
        collapse_low=[low for low, _ in ends],
        collapse_high=[high for _, high in ends],
    )


def against_alone(runs: pd.DataFrame, alone: pd.DataFrame) -> pd.Series:
    """Return how much lower the accuracy of each run is than that of the honest workers alone, NaN where unknown.

    Args:
        runs: With ``partition``, ``seed`` and ``accuracy``.
        alone: The same columns, one row per partition and seed.
    """
    reference = alone.set_index(["partition", "seed"])["accuracy"]
    wanted = pd.MultiIndex.from_frame(runs[["partition", "seed"]])
    found: pd.Series = pd.Series(reference.reindex(wanted).to_numpy(dtype=float), index=runs.index)
    return found - runs["accuracy"]
