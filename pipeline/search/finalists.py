"""Which trials are confirmed: chosen from validation data, before test data are read."""

import json
from collections.abc import Iterator

import pandas as pd

from pipeline.search.measure import means, of_target
from pipeline.search.pareto import non_dominated
from pipeline.search.study import Candidate, Parameters, Study, Target


def finalists(study: Study, trials: pd.DataFrame) -> list[Candidate]:
    """Return what is confirmed for every target: the literature, and the worst trials or the Pareto front.

    ``literature`` is the default and ``literature_2`` a further published value; in mode worst, ``literature_<attack>``
    is the default of each attack and ``literature`` the one that hurts most. ``found``, ``found_2``, ... are the trials
    with the largest mean degradation (the earlier one where two are equal); in mode stealth, ``front_1``, ``front_2``,
    ... are the Pareto front, from the largest degradation down.
    """
    ranked = means(trials).sort_values(["degradation", "trial"], ascending=[False, True], kind="stable")
    chosen = []
    for target in study.targets:
        own = of_target(ranked, target).drop_duplicates(["attack", "parameters"])
        chosen += [*_published(study, target, own), *_worst(study, target, own)]
    return chosen


def _published(study: Study, target: Target, ranked: pd.DataFrame) -> Iterator[Candidate]:
    known = {name: study.literature(name, target.byzantine) for name in study.spaces}
    if target.byzantine == 0:  # all attacks are the same, and one was tried
        known = {name: values[:1] for name, values in known.items()}
    if study.mode != "worst":
        ((name, values),) = known.items()
        for rank, parameters in enumerate(values, 1):
            yield _candidate(target, _numbered("literature", rank), ranked, name, parameters)
        return
    defaults = {name: values[0] for name, values in known.items() if values}
    labelled = [_candidate(target, f"literature_{name}", ranked, name, found) for name, found in defaults.items()]
    place = {trial: position for position, trial in enumerate(ranked["trial"])}
    if labelled:
        worst = min(labelled, key=lambda candidate: place[candidate.trial])
        yield Candidate(target, worst.trial, "literature", worst.attack, worst.parameters)
    yield from labelled


def _candidate(target: Target, label: str, ranked: pd.DataFrame, attack: str, parameters: Parameters) -> Candidate:
    same = (ranked["attack"] == attack) & (ranked["parameters"] == json.dumps(parameters, sort_keys=True))
    return Candidate(target, int(ranked[same]["trial"].iloc[0]), label, attack, parameters)


def _worst(study: Study, target: Target, ranked: pd.DataFrame) -> Iterator[Candidate]:
    if study.mode == "stealth":
        distinct = ranked.drop_duplicates(["degradation", "flagged"])
        kept = distinct[non_dominated(distinct)]
    else:
        kept = ranked.head(study.params.search.finalists)
    for rank, row in enumerate(kept.to_dict("records"), 1):
        label = f"front_{rank}" if study.mode == "stealth" else _numbered("found", rank)
        yield Candidate(target, int(row["trial"]), label, row["attack"], json.loads(row["parameters"]))


def _numbered(label: str, rank: int) -> str:
    return label if rank == 1 else f"{label}_{rank}"
