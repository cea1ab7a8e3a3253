"""What it saves, and what it costs, to end mild trials early.

``python -m benchmarks.pruners`` trains a grid of strengths, as :mod:`benchmarks.samplers` does, and notes the
accuracy at the steps where a pruner may end a trial. Then each pruner searches these tables instead of training. The
regret is the largest mean degradation on the grid over the seeds of the search, minus that of the strength chosen.
Beside it stands the regret of a search without pruner that stops after as many steps. The command writes
``benchmarks/pruners.<data source>.json``.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import tables
from benchmarks.samplers import command_line, mean_and_half_width, points, strengths, studies
from pipeline.core.files import write_json
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash
from pipeline.runs.evaluator import Evaluator
from pipeline.runs.execution import trainer
from pipeline.runs.params import Params, load
from pipeline.search.pruning import LITERATURE, rungs
from pipeline.search.samplers import Asker, pruner, sampler
from pipeline.search.study import Candidate, Study

STRENGTHS = 41
BUDGETS = (10, 24)
SAMPLER_SEEDS = 10
PRUNERS = ("median",)
Table = dict[float, dict[int, float]]  # strength -> steps -> mean error over the seeds


def truth(here: Path, params: Params, count: int) -> pd.DataFrame:
    """Return the validation error at ``count`` strengths for every study, defence, seed and rung, and at the end."""
    with trainer(here / DATASET, params.execution) as processes:
        evaluator = Evaluator(here, processes, data_hash(here / DATASET))
        return pd.concat([_errors(study, evaluator, count) for study in studies(params)], ignore_index=True)


def _errors(study: Study, evaluator: Evaluator, count: int) -> pd.DataFrame:
    rows, cells = [], []
    for target in study.targets:
        point = study.startup(target.byzantine)[0]
        for strength in strengths(study.spaces[point.attack], count):
            for seed in study.params.search.seeds:
                tried = Candidate(target, 0, "", point.attack, {**point.parameters, "strength": strength})
                cells.append(study.attacked(tried, seed))
                rows.append({"study": study.name, "defence": target.defence, "strength": strength, "seed": seed})
    table, last = pd.DataFrame(rows), study.params.training.steps
    for steps in rungs(study.params.training):
        found = evaluator.early(cells, steps, f"truth {study.name}, to step {steps}")
        table[f"{steps}"] = [1 - accuracy for accuracy in found]
    ends = evaluator.outcomes(cells, "validation", f"truth {study.name}")
    return table.assign(**{f"{last}": [1 - outcome.accuracy for outcome in ends]})


def regrets(rows: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Let each pruner search the tables of the truth; return its regret, and the share of steps that it trained."""
    runs = [
        run
        for study in studies(params)
        for defence in params.search.defences
        for seed in range(SAMPLER_SEEDS)
        for run in _runs(study, _table(rows, study, defence, params), defence, seed)
    ]
    table = pd.DataFrame(runs)
    return {
        "strengths": int(rows.groupby("study")["strength"].nunique().max()),
        "tables": int(rows.groupby(["study", "defence"]).ngroups),
        "seeds": len(params.search.seeds),
        "sampler_seeds": SAMPLER_SEEDS,
        "pruners": [_result(of_pruner) for _, of_pruner in table.groupby(["trials", "pruner"])],
    }


def _table(rows: pd.DataFrame, study: Study, defence: str, params: Params) -> Table:
    own = rows[(rows["study"] == study.name) & (rows["defence"] == defence)]
    steps = [*rungs(params.training), params.training.steps]
    means = own.groupby("strength")[[str(step) for step in steps]].mean()
    return {
        float(str(strength)): dict(zip(steps, row, strict=True))
        for strength, row in zip(means.index, means.to_numpy().tolist(), strict=True)
    }


def _runs(study: Study, table: Table, defence: str, seed: int) -> Iterator[dict[str, Any]]:
    last = study.params.training.steps
    worst = max(errors[last] for errors in table.values())
    plain = _searched(study, table, None, seed)
    for name in PRUNERS:
        whole = _searched(study, table, name, seed)
        for budget in BUDGETS:
            tried = whole[:budget]
            trained = sum(steps for _, steps in tried)
            alike = plain[: max(1, trained // last)]
            yield {
                "defence": defence,
                "seed": seed,
                "trials": budget,
                "pruner": name,
                "steps": trained / (budget * last),
                "regret": worst - max(table[strength][last] for strength, steps in tried if steps == last),
                "plain": worst - max(table[strength][last] for strength, _ in plain[:budget]),
                "fewer": worst - max(table[strength][last] for strength, _ in alike),
            }


def _searched(study: Study, table: Table, name: str | None, seed: int) -> list[tuple[float, int]]:
    """Return the strength of every trial, and for how many steps it was trained."""
    search, (byzantine,) = study.params.search, study.threats
    first = study.startup(byzantine)
    proposes = sampler(study.sampler, seed, max(search.batch, len(first)), search.batch)
    asker = Asker(study.spaces, first, proposes, ["maximize"], pruner(name, search.batch))
    grid, tried = np.array(list(table)), dict[int, tuple[float, int]]()
    while len(tried) < max(BUDGETS):
        asked = asker.ask(search.batch)
        near = {number: _nearest(grid, float(proposal.parameters["strength"])) for number, proposal in asked.items()}
        left = list(asked)
        for steps in rungs(study.params.training):
            for number in left:
                asker.report(number, table[near[number]][steps], step=steps)
            for number in [number for number in left if asked[number].origin != LITERATURE and asker.prune(number)]:
                tried[number] = (near[number], steps)
                left.remove(number)
        for number in left:
            tried[number] = (near[number], study.params.training.steps)
            asker.tell(number, [table[near[number]][study.params.training.steps]])
    return [tried[number] for number in sorted(tried)]


def _nearest(grid: Any, strength: float) -> float:
    return float(grid[np.abs(np.log(grid / strength)).argmin()])


def _result(runs: pd.DataFrame) -> dict[str, Any]:
    measured = ("steps", "regret", "plain", "fewer")
    means = {name: value for column in measured for name, value in mean_and_half_width(runs, column).items()}
    return {"trials": int(runs["trials"].iloc[0]), "pruner": str(runs["pruner"].iloc[0]), **means}


def table(result: Mapping[str, Any]) -> str:
    """Return the results as a Markdown table."""
    return tables.table(
        [
            {
                "trials": row["trials"],
                "pruner": row["pruner"],
                "steps trained (%)": points(row, "steps"),
                "regret (points)": points(row, "regret"),
                "without pruner": points(row, "plain"),
                "without, stopped after as many steps": points(row, "fewer"),
            }
            for row in result["pruners"]
        ]
    )


def measure_pruners(here: Path, count: int) -> None:
    """Write what the pruners save and cost for params.yaml."""
    params = load(here / "params.yaml")
    result = regrets(truth(here, params, count), params)
    write_json(here / "benchmarks" / f"pruners.{params.data.source.name}.json", result)
    print(table(result))


if __name__ == "__main__":
    command_line(sys.argv[1:], STRENGTHS, measure_pruners)
