"""How good the search is: what each sampler finds, compared with an exhaustive grid of strengths.

``python -m benchmarks.samplers`` trains a logarithmic grid of strengths for every study of mode strength and every
defence of params.yaml, lets every sampler search these tables instead of training, and writes
``benchmarks/search.json``. Every cell that was trained is kept in ``.cellcache``, so a second run trains nothing, and a
grid of 401 strengths trains only what a grid of 201 lacks.

The objective of the search is the mean over the seeds of ``search.seeds``; the truth is the mean over these and
``EXTRA`` further seeds. The regret is the largest true mean degradation on the grid minus that of the strength chosen.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.samplers import BaseSampler

from benchmarks import tables
from pipeline.attacks import Range, Space
from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, root, write_json
from pipeline.core.paths import DATASET
from pipeline.report.intervals import t_half_width
from pipeline.runs.evaluator import Evaluator
from pipeline.runs.execution import trainer
from pipeline.runs.params import Params, load
from pipeline.runs.search_checks import SAMPLERS
from pipeline.search.measure import measure
from pipeline.search.samplers import Asker, sampler
from pipeline.search.study import Candidate, Study

RESULT = Path("benchmarks/search.json")
STRENGTHS = 201
EXTRA = 2  # seeds of the truth that the search does not see
BUDGETS = (24, 48)
SAMPLER_SEEDS = 20
CONFIDENCE = 0.95


def truth(here: Path, params: Params, count: int) -> pd.DataFrame:
    """Return the degradation at ``count`` strengths for every study, defence and seed."""
    with trainer(here / DATASET, params.execution) as processes:
        evaluator = Evaluator(here, processes, file_hash(here / DATASET))
        tables = [_table(study, evaluator, count) for study in studies(_with_seeds(params))]
    return pd.concat(tables, ignore_index=True)


def _with_seeds(params: Params) -> Params:
    seeds = params.search.seeds
    more = tuple(range(max(seeds) + 1, max(seeds) + 1 + EXTRA))
    return params.model_copy(update={"search": params.search.replace(seeds=(*seeds, *more))})


def studies(params: Params) -> Iterator[Study]:
    """Yield the studies of mode strength, with everything but the strength fixed as in ``attacks``."""
    for name, declared in params.studies.items():
        if name in params.search.studies and declared.mode == "strength":
            ((attack, space),) = Study(params, name).spaces.items()
            values = {p: (getattr(params.attacks[attack], p),) for p in space if p != "strength"}
            fixed = declared.replace(space={attack: {**declared.space.get(attack, {}), **values}})
            yield Study(params.model_copy(update={"studies": {**params.studies, name: fixed}}), name)


def _table(study: Study, evaluator: Evaluator, count: int) -> pd.DataFrame:
    """Return the degradation for every defence, strength and seed of one study."""
    candidates = [
        Candidate(target, 0, "", point.attack, {**point.parameters, "strength": strength})
        for target in study.targets
        for point in study.startup(target.byzantine)[:1]
        for strength in strengths(study.spaces[point.attack], count)
    ]
    rows = measure(study, candidates, "validation", evaluator, f"truth {study.name}")
    strength = [json.loads(parameters)["strength"] for parameters in rows["parameters"]]
    rows = rows.assign(study=study.name, strength=strength)
    return rows[["study", "defence", "strength", "seed", "degradation"]]


def strengths(space: Space, count: int) -> list[float]:
    """Return a logarithmic grid over the range of the strength."""
    strength = space["strength"]
    assert isinstance(strength, Range)
    return [float(f"{value:.6g}") for value in np.geomspace(strength.low, strength.high, count)]


def regrets(rows: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Let every sampler search the tables of the truth; return the regret of each at every budget."""
    runs = [
        run
        for study in studies(params)
        for defence in params.search.defences
        for name in SAMPLERS["strength"]
        for run in _runs(study, rows[(rows["study"] == study.name) & (rows["defence"] == defence)], name)
    ]
    return _summary(pd.DataFrame(runs), rows)


def _runs(study: Study, rows: pd.DataFrame, name: str) -> Iterator[dict[str, Any]]:
    """Yield the regret of one sampler on one table, for every seed of the sampler and every budget."""
    search = study.params.search
    true, seen = _means(rows), _means(rows[rows["seed"].isin(search.seeds)])
    best = max(seen, key=seen.__getitem__)
    for seed in range(SAMPLER_SEEDS):
        found = _found(study, seen, sampler(name, seed, search.batch, search.batch))
        for budget, strength in found.items():
            yield {
                "study": study.name,
                "defence": rows["defence"].iloc[0],
                "sampler": name,
                "seed": seed,
                "trials": budget,
                "regret": max(true.values()) - true[strength],
                "search_regret": seen[best] - seen[strength],
                "floor": max(true.values()) - true[best],
            }


def _means(rows: pd.DataFrame) -> dict[float, float]:
    """Return the mean degradation of every strength."""
    means = rows.groupby("strength")["degradation"].mean()
    return dict(zip(means.index.tolist(), means.tolist(), strict=True))


def _found(study: Study, seen: dict[float, float], proposes: BaseSampler) -> dict[int, float]:
    """Return for every budget the strength with the largest mean degradation among the first trials."""
    (byzantine,) = study.threats
    asker = Asker(study.spaces, study.startup(byzantine), proposes, ["maximize"])
    grid, tried = np.array(list(seen)), []
    for _ in range(0, max(BUDGETS), study.params.search.batch):
        for trial, proposal in asker.ask(study.params.search.batch).items():
            nearest = float(grid[np.abs(np.log(grid / float(proposal.parameters["strength"]))).argmin()])
            asker.tell(trial, [seen[nearest]])
            tried.append(nearest)
    return {budget: max(tried[:budget], key=seen.__getitem__) for budget in BUDGETS}


def _summary(runs: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the regret of every sampler and budget, with intervals over the sampler's seeds."""
    return {
        "strengths": int(rows.groupby("study")["strength"].nunique().max()),
        "tables": int(rows.groupby(["study", "defence"]).ngroups),
        "truth_seeds": sorted(int(seed) for seed in rows["seed"].unique()),
        "sampler_seeds": SAMPLER_SEEDS,
        "confidence": CONFIDENCE,
        "floor": float(runs.groupby(["study", "defence"])["floor"].first().mean()),
        "samplers": [_result(of_sampler) for _, of_sampler in runs.groupby(["sampler", "trials"])],
    }


def _result(runs: pd.DataFrame) -> dict[str, Any]:
    """Return what one sampler reached at one budget."""
    tables = runs.groupby(["study", "defence"])[["regret"]].mean().reset_index().to_dict("records")
    return {
        "sampler": str(runs["sampler"].iloc[0]),
        "trials": int(runs["trials"].iloc[0]),
        **mean_and_half_width(runs, "regret"),
        **mean_and_half_width(runs, "search_regret"),
        "tables": {f"{row['study']}.{row['defence']}": row["regret"] for row in tables},
    }


def mean_and_half_width(runs: pd.DataFrame, column: str) -> dict[str, float]:
    """Return a column's mean and the half width of its interval over the sampler's seeds."""
    of_seed = runs.groupby("seed")[column].mean()
    return {column: float(of_seed.mean()), f"{column}_half_width": t_half_width(of_seed, CONFIDENCE)}


def table(result: Mapping[str, Any]) -> str:
    """Return the regrets as a Markdown table in points of accuracy, the smallest first."""
    return tables.table(
        [
            {
                "trials": row["trials"],
                "sampler": row["sampler"],
                "regret (points)": points(row, "regret"),
                "regret on the seeds of the search": points(row, "search_regret"),
            }
            for row in sorted(result["samplers"], key=lambda row: (row["trials"], row["regret"]))
        ]
    )


def points(row: Mapping[str, Any], column: str) -> str:
    """Return a mean and its half width in points of accuracy."""
    return f"{100 * row[column]:.2f} ± {100 * row[f'{column}_half_width']:.2f}"


def command_line(arguments: list[str], strengths: int, measure: Callable[[Path, int], None]) -> None:
    """Call ``measure`` with the project's folder and the number of strengths that the command line names."""
    parser = ArgumentParser(description="Compare the samplers with an exhaustive grid of strengths.")
    parser.add_argument("--strengths", type=int, default=strengths, help="size of the grid (default %(default)s)")
    try:
        measure(root(), parser.parse_args(arguments).strengths)
    except UserError as error:
        sys.exit(f"error: {error}")


def measure_samplers(here: Path, count: int) -> None:
    """Write the regrets of the samplers for params.yaml."""
    params = load(here / "params.yaml")
    write_json(here / RESULT, regrets(truth(here, params, count), params))


if __name__ == "__main__":
    command_line(sys.argv[1:], STRENGTHS, measure_samplers)
