"""The stage ``search``: one study of params.yaml, from the first trial to the confirmed result.

For each defence (and number of Byzantine workers), an Optuna study of its own maximises the degradation on validation
data, averaged over the search's seeds. All trials of a round are trained together, whatever their defence and seed.
What is confirmed is chosen before test data are read, and rerun with fresh seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pandas as pd

from pipeline.core.files import file_hash, refilling, write_sealed, write_text
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash
from pipeline.runs.evaluator import Evaluator
from pipeline.runs.execution import arithmetic, trainer
from pipeline.runs.params import Params
from pipeline.search.finalists import finalists
from pipeline.search.measure import means, measure
from pipeline.search.pruning import end_early
from pipeline.search.samplers import Asker, Direction, pruner, sampler
from pipeline.search.study import Candidate, Study, Target

DIRECTIONS: dict[str, Direction] = {"degradation": "maximize", "flagged": "minimize"}


def search_study(root: Path, params: Params, name: str) -> None:
    """Search, confirm and transfer; write the tables and ``study.json``."""
    study, data = Study(params, name), data_hash(root / DATASET)
    size = f"{len(study.targets)} x {params.search.trials} trials x {len(params.search.seeds)} seeds"
    with trainer(root / DATASET, params.execution) as processes:
        print(f"search {name}: mode {study.mode}, {study.sampler}, {size}", flush=True)
        asked, tables = _tables(study, Evaluator(root, processes, data))
    made = {
        "key": study.key(data, arithmetic(params.model, params.execution)),
        "made_with": study.made_with(data),
        "stopped_after": asked,
    }
    with refilling(root / "results" / "search" / name) as folder:
        for title, table in tables.items():
            write_text(folder / f"{title}.csv", table.to_csv(index=False))
        files = {title: file_hash(folder / f"{title}.csv") for title in tables}
        write_sealed(folder / "study.json", {**study.description(), **made, "files": files})


def _tables(study: Study, evaluator: Evaluator) -> tuple[int, dict[str, pd.DataFrame]]:
    """Return how many trials there were, and the tables by the names of their files."""
    trials, pruned = _search(study, evaluator)
    chosen = finalists(study, trials)
    confirmed = measure(study, chosen, "test", evaluator, f"confirm {study.name}")
    tables = {"trials": _written(trials, "origin"), "confirmation": _written(confirmed, "candidate")}
    if study.mode == "strength" and study.params.search.transfer:
        tables["transfer"] = _transfer(study, chosen, evaluator)
    if study.params.search.pruner:
        tables["pruned"] = pruned
    return int(pd.concat([trials["trial"], pruned["trial"]]).max()) + 1, tables


def _written(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return the table of a file: ``label`` gets a name of its own, and the columns that identify a row come first."""
    table = table.rename(columns={"label": label})
    first = ["defence", "byzantine", *(["trial", label] if label == "origin" else [label, "trial"])]
    return table[[*first, *(column for column in table if column not in first)]]


def _search(study: Study, evaluator: Evaluator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask every target's sampler for a batch, train all batches together, tell the samplers the results; repeat.

    Return the trials that were trained to their end, and those that ended early.
    """
    search, askers = study.params.search, {target: _asker(study, target) for target in study.targets}
    objectives = list(DIRECTIONS)[: 2 if study.mode == "stealth" else 1]
    rounds, pruned = list[pd.DataFrame](), list[pd.DataFrame]()
    for done in _starts(study):
        asked = {target: asker.ask(_size(study, target, done)) for target, asker in askers.items()}
        candidates = [
            Candidate(target, number, proposal.origin, proposal.attack, proposal.parameters)
            for target, proposals in asked.items()
            for number, proposal in proposals.items()
        ]
        until = min(done + search.batch, search.trials)
        title = f"search {study.name}, trials {done + 1} to {until}"
        whole, ended = end_early(study, candidates, askers, evaluator, title)
        pruned.append(ended)
        if whole:
            rounds.append(measure(study, whole, "validation", evaluator, title))
            _tell(askers, rounds[-1], objectives)
        print(f"search {study.name}: {until} of {search.trials} trials; {_best(pd.concat(rounds))}", flush=True)
    return _in_order(rounds), _in_order(pruned)


def _tell(askers: Mapping[Target, Asker], measured: pd.DataFrame, objectives: Sequence[str]) -> None:
    """Tell the sampler of every target what its trials have done."""
    for row in means(measured).to_dict("records"):
        target = Target(row["defence"], row["byzantine"])
        askers[target].tell(row["trial"], [row[objective] for objective in objectives])


def _in_order(rounds: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(rounds).sort_values(["defence", "byzantine", "trial", "seed"], kind="stable")


def _asker(study: Study, target: Target) -> Asker:
    search, first = study.params.search, study.startup(target.byzantine)
    proposes = sampler(study.sampler, search.sampler_seed, max(search.batch, len(first)), search.batch)
    directions = list(DIRECTIONS.values())[: 2 if study.mode == "stealth" else 1]
    return Asker(study.spaces, first, proposes, directions, pruner(search.pruner, search.batch))


def _starts(study: Study) -> Iterator[int]:
    """Yield the number of trials done before each round, until all are done or the time is up."""
    search, started = study.params.search, monotonic()
    for done in range(0, search.trials, search.batch):
        if done and search.budget_minutes is not None and monotonic() - started > 60 * search.budget_minutes:
            print(f"search {study.name}: stopped after {done} trials, search.budget_minutes", flush=True)
            return
        yield done


def _size(study: Study, target: Target, done: int) -> int:
    """Return how many trials a round asks for; without Byzantine workers one is enough, as all would be the same."""
    trials = study.params.search.trials if target.byzantine else 1
    return max(0, min(study.params.search.batch, trials - done))


def _best(trials: pd.DataFrame) -> str:
    """Return in words the largest degradation of each defence so far."""
    best = means(trials).groupby("defence", sort=False)["degradation"].max()
    return "worst so far " + ", ".join(f"{defence} {value:.1%}" for defence, value in best.items())


def _transfer(study: Study, chosen: list[Candidate], evaluator: Evaluator) -> pd.DataFrame:
    """Return what the strength found for each defence costs every defence, with the seeds of the confirmation."""
    found = [candidate for candidate in chosen if candidate.label == "found"]
    applied = [
        replace(candidate, target=to, label=candidate.target.defence) for to in study.targets for candidate in found
    ]
    table = measure(study, applied, "test", evaluator, f"transfer {study.name}")
    table = table.rename(columns={"label": "from_defence", "defence": "to_defence"})
    return table[["from_defence", "to_defence", *(c for c in table if c not in ("from_defence", "to_defence"))]]
