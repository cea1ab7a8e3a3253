"""How good the search of mode stealth is: the front that each sampler finds, compared with an exhaustive grid.

``python -m benchmarks.stealth`` trains a logarithmic grid of strengths for every variant, study and defence of
``experiments/stealth_digits``, lets every sampler of the mode, and ``random`` besides, search these tables instead of
training, and writes ``benchmarks/stealth.json``. As with ``benchmarks.samplers``, a second run trains nothing.

An attacker who must stay below a share of flagged vectors attains the largest degradation found below that share. The
regret is how much less of it a sampler's trials attain than the whole grid, averaged over all shares in [0, 1].
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import tables
from benchmarks.samplers import (
    BUDGETS,
    CONFIDENCE,
    SAMPLER_SEEDS,
    command_line,
    mean_and_half_width,
    points,
    strengths,
)
from pipeline.attacks import Choice, Space
from pipeline.attacks.space import Value
from pipeline.core.files import file_hash, write_json
from pipeline.core.paths import DATASET
from pipeline.runs.edit import overlaid
from pipeline.runs.evaluator import Evaluator
from pipeline.runs.execution import trainer
from pipeline.runs.params import Params
from pipeline.runs.search_checks import SAMPLERS
from pipeline.search.measure import measure
from pipeline.search.samplers import Asker, sampler
from pipeline.search.study import Candidate, Study

EXPERIMENT = Path("experiments/stealth_digits")
RESULT = Path("benchmarks/stealth.json")
STRENGTHS = 81
NAMES = (*SAMPLERS["stealth"], "random")

Objectives = tuple[float, float]  # degradation, share of flagged vectors
Known = Mapping[tuple[str, float], Objectives]  # by variant and strength


def truth(here: Path, params: Params, count: int) -> pd.DataFrame:
    """Return degradation and flagged share at ``count`` strengths of every variant, study, defence and seed."""
    with trainer(here / DATASET, params.execution) as processes:
        evaluator = Evaluator(here, processes, file_hash(here / DATASET))
        tables = [_table(Study(params, name), evaluator, count) for name in params.search.studies]
    return pd.concat(tables, ignore_index=True)


def _table(study: Study, evaluator: Evaluator, count: int) -> pd.DataFrame:
    """Return degradation and flagged share for every defence, variant, strength and seed of one study."""
    ((attack, space),) = study.spaces.items()
    candidates = [
        Candidate(target, 0, "", attack, {**variant, "strength": strength})
        for target in study.targets
        for variant in _variants(space)
        for strength in strengths(space, count)
    ]
    rows = measure(study, candidates, "validation", evaluator, f"truth {study.name}")
    tried = [json.loads(parameters) for parameters in rows["parameters"]]
    rows = rows.assign(
        study=study.name, variant=[_name(one) for one in tried], strength=[one["strength"] for one in tried]
    )
    return rows[["study", "defence", "variant", "strength", "seed", "degradation", "flagged"]]


def _variants(space: Space) -> list[dict[str, Value]]:
    """Return all combinations of the choices, which are everything but the strength."""
    choices = {name: entry.values for name, entry in space.items() if isinstance(entry, Choice)}
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _name(parameters: Mapping[str, Value]) -> str:
    """Return parameters without the strength, as JSON."""
    return json.dumps({name: value for name, value in parameters.items() if name != "strength"}, sort_keys=True)


def regrets(rows: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Let every sampler search the tables of the truth; return the regret of each at every budget."""
    runs = [
        run
        for name in params.search.studies
        for defence in params.search.defences
        for proposes in NAMES
        for run in _runs(Study(params, name), rows[(rows["study"] == name) & (rows["defence"] == defence)], proposes)
    ]
    return _summary(pd.DataFrame(runs), rows)


def _runs(study: Study, rows: pd.DataFrame, name: str) -> Iterator[dict[str, Any]]:
    """Yield the regret of one sampler on one table, for every seed of the sampler and every budget."""
    means = rows.groupby(["variant", "strength"])[["degradation", "flagged"]].mean()
    known = dict(zip(means.index, means.itertuples(index=False, name=None), strict=True))
    best = attainable(list(known.values()))
    for seed in range(SAMPLER_SEEDS):
        tried = _tried(study, known, name, seed)
        for budget in BUDGETS:
            regret = best - attainable(tried[:budget])
            yield {"sampler": name, "seed": seed, "trials": budget, "regret": regret}


def attainable(tried: Sequence[Objectives]) -> float:
    """Return the largest degradation found below a share of flagged vectors, averaged over all shares in [0, 1].

    Where nothing that hurts is found below a share, the attacker does nothing: 0.

    Example:
        >>> attainable([(0.2, 0.0), (0.6, 0.75), (0.4, 0.9)])
        0.3
    """
    degradation, flagged = np.array(sorted(tried, key=lambda objectives: objectives[1])).T
    best = np.maximum.accumulate(degradation.clip(min=0))
    return float(best @ np.diff([*flagged, 1.0]))


def _tried(study: Study, known: Known, name: str, seed: int) -> list[Objectives]:
    """Return the objectives of a sampler's proposals, each answered by the nearest strength of the grid."""
    search, (byzantine,) = study.params.search, study.threats
    proposes = sampler(name, seed, search.batch, search.batch)
    asker = Asker(study.spaces, study.startup(byzantine), proposes, ["maximize", "minimize"])
    tried = []
    for _ in range(0, max(BUDGETS), search.batch):
        for trial, proposal in asker.ask(search.batch).items():
            objectives = known[_nearest(known, proposal.parameters)]
            asker.tell(trial, objectives)
            tried.append(objectives)
    return tried


def _nearest(known: Known, parameters: Mapping[str, Any]) -> tuple[str, float]:
    """Return the key of the same variant whose strength is nearest, on a logarithmic scale."""
    variant, strength = _name(parameters), float(parameters["strength"])
    return min((key for key in known if key[0] == variant), key=lambda key: abs(np.log(key[1] / strength)))


def _summary(runs: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the regret of every sampler and budget, with intervals over the sampler's seeds."""
    return {
        "strengths": int(rows.groupby(["study", "variant"])["strength"].nunique().max()),
        "tables": int(rows.groupby(["study", "defence"]).ngroups),
        "seeds": sorted(int(seed) for seed in rows["seed"].unique()),
        "sampler_seeds": SAMPLER_SEEDS,
        "confidence": CONFIDENCE,
        "samplers": [
            {"sampler": name, "trials": trials, **mean_and_half_width(of_sampler, "regret")}
            for (name, trials), of_sampler in runs.groupby(["sampler", "trials"])
        ],
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the regrets as a Markdown table in points of accuracy, the smallest first."""
    return tables.table(
        [
            {"trials": row["trials"], "sampler": row["sampler"], "regret (points)": points(row, "regret")}
            for row in sorted(result["samplers"], key=lambda row: (row["trials"], row["regret"]))
        ]
    )


def measure_stealth(here: Path, count: int) -> None:
    """Write the regrets of the samplers for the experiment."""
    params = overlaid(here / "params.yaml", here / EXPERIMENT)
    write_json(here / RESULT, regrets(truth(here, params, count), params))


if __name__ == "__main__":
    command_line(sys.argv[1:], STRENGTHS, measure_stealth)
