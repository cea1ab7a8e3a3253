"""Trials that end early: all of a round train to a rung, and those that look mild there do not go on.

What a pruner decides hangs on what it knows, so it is asked between the rungs and never while cells train: the same
trials end whatever the number of processes, and after an interruption.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from pipeline.runs.evaluator import Evaluator
from pipeline.search.samplers import Asker
from pipeline.search.study import Candidate, Study, Target
from pipeline.simulator.cell import Training

RUNGS = (1 / 4, 1 / 2)  # of the steps
LITERATURE = "literature"  # the origin of trials that never end early: what is found is compared with them
COLUMNS = ("defence", "byzantine", "trial", "origin", "attack", "parameters", "seed", "steps", "accuracy")


def rungs(training: Training) -> list[int]:
    """Return the steps at which trials may end, each one of an evaluation."""
    every = training.evaluate_every
    steps = {int(share * training.steps) // every * every for share in RUNGS}
    return sorted(steps - {0})


def end_early(
    study: Study, candidates: Sequence[Candidate], askers: Mapping[Target, Asker], evaluator: Evaluator, title: str
) -> tuple[list[Candidate], pd.DataFrame]:
    """Train a round to each rung; return those that go on, and one row per seed of those that ended, ``COLUMNS``."""
    left, ended = list(candidates), list[dict[str, Any]]()
    for steps in rungs(study.params.training) if study.params.search.pruner else []:
        accuracies = _accuracies(study, left, steps, evaluator, f"{title}, to step {steps}")
        for candidate, values in zip(left, accuracies, strict=True):
            askers[candidate.target].report(candidate.trial, 1 - fmean(values), step=steps)
        mild = [candidate.label != LITERATURE and askers[candidate.target].prune(candidate.trial) for candidate in left]
        for candidate, values, ends in zip(left, accuracies, mild, strict=True):
            if ends:
                ended += _rows(study, candidate, steps, values)
                evaluator.drop(_cells(study, candidate))
        left = [candidate for candidate, ends in zip(left, mild, strict=True) if not ends]
    return left, pd.DataFrame(ended, columns=[*COLUMNS])


def _cells(study: Study, candidate: Candidate) -> list[Any]:
    return [study.attacked(candidate, seed) for seed in study.params.search.seeds]


def _accuracies(
    study: Study, candidates: Sequence[Candidate], steps: int, evaluator: Evaluator, title: str
) -> list[list[float]]:
    """Return the validation accuracy of every candidate and seed after some steps."""
    cells = [cell for candidate in candidates for cell in _cells(study, candidate)]
    found, seeds = evaluator.early(cells, steps, title), len(study.params.search.seeds)
    return [found[first : first + seeds] for first in range(0, len(found), seeds)]


def _rows(study: Study, candidate: Candidate, steps: int, accuracies: Sequence[float]) -> Iterator[dict[str, Any]]:
    own = (candidate.target.defence, candidate.target.byzantine, candidate.trial, candidate.label, candidate.attack)
    parameters = json.dumps(candidate.parameters, sort_keys=True)
    for seed, accuracy in zip(study.params.search.seeds, accuracies, strict=True):
        yield dict(zip(COLUMNS, (*own, parameters, seed, steps, accuracy), strict=True))
