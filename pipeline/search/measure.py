"""What candidates cost a defence: the accuracy of the clean run minus that of the attacked run with the same seed."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.runs.evaluator import Evaluator, Outcome, SplitName
from pipeline.search.study import Candidate, Study, Target


def measure(
    study: Study, candidates: Sequence[Candidate], split: SplitName, evaluator: Evaluator, title: str
) -> pd.DataFrame:
    """Return one row per candidate and seed; runs with equal defences are trained in one batched program.

    Columns: defence, byzantine, trial, label, attack, parameters (JSON), seed, clean_accuracy, attacked_accuracy,
    degradation, diverged, flagged (share of the Byzantine vectors; empty unless the study's mode is stealth).
    """
    search, detect = study.params.search, study.mode == "stealth"
    seeds = search.seeds if split == "validation" else search.confirmation_seeds
    pairs = [(target, seed) for target in study.targets for seed in seeds]
    references = evaluator.outcomes([study.cell(*pair) for pair in pairs], split, "clean references")
    clean = dict(zip(pairs, references, strict=True))
    runs = [(candidate, seed) for candidate in candidates for seed in seeds]
    cells = [study.attacked(candidate, seed) for candidate, seed in runs]
    attacked = evaluator.outcomes(cells, split, title, detect)
    return pd.DataFrame(
        [
            _row(candidate, seed, clean[candidate.target, seed], outcome)
            for (candidate, seed), outcome in zip(runs, attacked, strict=True)
        ]
    )


def _row(candidate: Candidate, seed: int, clean: Outcome, attacked: Outcome) -> dict[str, Any]:
    return {
        "defence": candidate.target.defence,
        "byzantine": candidate.target.byzantine,
        "trial": candidate.trial,
        "label": candidate.label,
        "attack": candidate.attack,
        "parameters": json.dumps(candidate.parameters, sort_keys=True),
        "seed": seed,
        "clean_accuracy": clean.accuracy,
        "attacked_accuracy": attacked.accuracy,
        "degradation": clean.accuracy - attacked.accuracy,
        "diverged": attacked.diverged,
        "flagged": math.nan if attacked.flagged is None else attacked.flagged,
    }


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per candidate: the mean degradation and share of flagged vectors over the seeds."""
    keys = ["defence", "byzantine", "trial", "label", "attack", "parameters"]
    measured: pd.DataFrame = table.groupby(keys, sort=False)[["degradation", "flagged"]].mean().reset_index()
    return measured


def of_target(table: pd.DataFrame, target: Target) -> pd.DataFrame:
    """Return the rows of one target."""
    return table[(table["defence"] == target.defence) & (table["byzantine"] == target.byzantine)]
