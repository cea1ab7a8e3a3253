"""The stage ``tune``: the defender's learning rate, and its rule's own parameters, chosen on validation data.

Every defence has the same number of trials and seeds. The first trial is the common learning rate with the rule's
parameters of params.yaml, so what is tuned is never worse than that on validation data; then come a grid over all that
is tuned, each value once, and what the sampler proposes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.component import parse
from pipeline.core.files import file_hash, refilling, write_sealed, write_text
from pipeline.core.paths import DATASET
from pipeline.core.space import Choice, Range, Space, Value
from pipeline.data.dataset import data_hash
from pipeline.runs.evaluator import Evaluator
from pipeline.runs.execution import trainer
from pipeline.runs.params import DefenceEntry, Params
from pipeline.runs.plan import planned
from pipeline.runs.tuned import tune_folder, tuning_key
from pipeline.search.samplers import Asker, sampler
from pipeline.search.study import Parameters, Proposal, evenly

RATE = "learning_rate"


def tune_defence(root: Path, params: Params, defence: str) -> None:
    """Tune one defence; write ``trials.csv`` and ``tuned.json``."""
    data = data_hash(root / DATASET)
    with trainer(root / DATASET, params.execution) as processes:
        trials = _search(params, defence, Evaluator(root, processes, data))
    best = chosen(trials, params.tuning.objective)
    row = trials[trials["trial"] == best].iloc[0]
    entry = _entry(params, defence, {RATE: float(row[RATE]), **json.loads(row["parameters"])})
    found = {"key": tuning_key(params, defence, data), "trial": best, "defence": entry.content()}
    with refilling(tune_folder(root, defence)) as folder:
        write_text(folder / "trials.csv", trials.to_csv(index=False))
        write_sealed(folder / "tuned.json", {**found, "files": {"trials": file_hash(folder / "trials.csv")}})
    print(f"tune {defence}: learning rate {entry.learning_rate:g}, {entry.rule.content()}", flush=True)


def chosen(trials: pd.DataFrame, objective: str) -> int:
    """Return the number of the best trial; of equal ones the earliest.

    Args:
        trials: Of :func:`_search`.
        objective: ``worst``: mean accuracy over the seeds under the attack that lowers it most; ``clean``: under none.
    """
    values = objectives(trials, objective)
    return int(values.index[int(values.to_numpy().argmax())])


def objectives(trials: pd.DataFrame, objective: str) -> pd.Series:
    """Return the objective of every trial, by its number; see :func:`chosen`."""
    means = trials.groupby(["trial", "attack"])["accuracy"].mean().unstack()
    values: pd.Series = means["none"] if objective == "clean" else means.min(axis=1)
    return values


def _search(params: Params, defence: str, evaluator: Evaluator) -> pd.DataFrame:
    """Return one row per trial, attack and seed."""
    tuning, space = params.tuning, _space(params, defence)
    first = _first(params, defence, space)
    proposes = sampler(tuning.sampler, tuning.sampler_seed, max(tuning.batch, len(first)), tuning.batch)
    asker = Asker({defence: space}, first, proposes, ["maximize"])
    rounds: list[pd.DataFrame] = []
    for done in range(0, tuning.trials, tuning.batch):
        asked = asker.ask(min(tuning.batch, tuning.trials - done))
        title = f"tune {defence}, trials {done + 1} to {done + len(asked)}"
        rounds.append(_measured(params, defence, asked, evaluator, title))
        for trial, value in objectives(rounds[-1], tuning.objective).items():
            asker.tell(int(str(trial)), [value])
    return pd.concat(rounds, ignore_index=True)


def _space(params: Params, defence: str) -> Space:
    low, high = params.tuning.learning_rate
    return {RATE: Range(low, high, log=True), **params.defences[defence].rule.space}


def _first(params: Params, defence: str, space: Space) -> list[Proposal]:
    """Return the common learning rate with the rule's parameters of params.yaml, then a grid over the space."""
    entry = params.defences[defence]
    common = params.training.learning_rate if entry.learning_rate is None else entry.learning_rate
    own = {name: getattr(entry.rule, name) for name in space if name != RATE}
    count = params.tuning.batch - 1
    columns: dict[str, list[Value]] = {RATE: [*evenly(space[RATE], count)]}
    columns |= {name: _out_of_step(space[name], count) for name in own}
    grid = [dict(zip(columns, point, strict=True)) for point in zip(*columns.values(), strict=True)]
    return [Proposal("common", defence, {RATE: common, **own}), *(Proposal("grid", defence, point) for point in grid)]


def _out_of_step(entry: Range | Choice, count: int) -> list[Value]:
    """Return ``count`` values of a parameter in another order than the rates: over a range, or the choices in turn."""
    if isinstance(entry, Choice):
        return [entry.values[position % len(entry.values)] for position in range(count)]
    values: list[Value] = [round(value) if entry.whole else value for value in evenly(entry, count)]
    return values[1::2] + values[::2]


def _entry(params: Params, defence: str, parameters: Mapping[str, Any]) -> DefenceEntry:
    """Return the defence with these parameters of its rule, and this learning rate."""
    content = params.defences[defence].content()
    content["rule"] |= {name: value for name, value in parameters.items() if name != RATE}
    entry: DefenceEntry = parse(DefenceEntry, {**content, RATE: parameters[RATE]}, f"defences.{defence}")
    return entry


def _measured(
    params: Params, defence: str, asked: Mapping[int, Proposal], evaluator: Evaluator, title: str
) -> pd.DataFrame:
    """Return the validation accuracies of the proposals: one row per trial, attack and seed."""
    tuning, rows, cells = params.tuning, [], []
    for trial, proposal in asked.items():
        entries = {**params.defences, defence: _entry(params, defence, proposal.parameters)}
        changed = params.model_copy(update={"defences": entries})
        for attack in tuning.attacks:
            for seed in tuning.seeds:
                rows.append({"trial": trial, **_described(proposal), "attack": attack, "seed": seed})
                cells.append(planned(changed, attack, defence, tuning.partition, seed).cell)
    outcomes = evaluator.outcomes(cells, "validation", title)
    return pd.DataFrame(rows).assign(accuracy=[outcome.accuracy for outcome in outcomes])


def _described(proposal: Proposal) -> dict[str, Any]:
    own: Parameters = {name: value for name, value in proposal.parameters.items() if name != RATE}
    described = {"origin": proposal.origin, RATE: proposal.parameters[RATE]}
    return {**described, "parameters": json.dumps(own, sort_keys=True)}
