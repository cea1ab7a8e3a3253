"""The attacker's search from Python: the part of ``import pipeline`` that looks for the worst strength."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from pipeline.core.errors import UserError
from pipeline.core.identity import source_file
from pipeline.core.paths import DATASET, RAW
from pipeline.data.prepare import prepare
from pipeline.interface import MODEL, Spec, Specs, labelled, raw_component, raw_defence, raw_sections
from pipeline.report.search_results import StudyResult, read_study
from pipeline.runs import params
from pipeline.runs.params import Params
from pipeline.runs.tuned import tuned
from pipeline.search.stage import search_study

UNUSED = (2**32 - 1, 2**32 - 2)  # seeds of the sections that a search does not read, and that must be others


class Searched(NamedTuple):
    """What a search tried, and what was confirmed, as two tidy tables.

    Accuracies and ``degradation`` (accuracy without attack minus that under it, same seed) are fractions; ``attack`` is
    the attack's name, ``parameters`` holds what was searched, as JSON, and ``strength`` the number among it.

    Attributes:
        trials: One row per defence, trial and seed, measured on validation data; ``origin`` says what proposed a trial:
            ``literature``, ``grid`` or ``sampler``.
        confirmation: One row per defence, ``candidate`` (``literature``, ``found``, ...) and seed, measured on test
            data with seeds that the search never saw.
    """

    trials: pd.DataFrame
    confirmation: pd.DataFrame


def search_strength(
    attack: Spec,
    defences: Specs,
    partition: Spec,
    data: Spec = "digits",
    model: Spec = MODEL,
    *,
    trials: int = 10,
    batch: int = 5,
    sampler: str = "tpe",
    seeds: Sequence[int] = (100, 101),
    confirmation_seeds: Sequence[int] = range(200, 206),
    space: Mapping[str, Sequence[Any]] | None = None,
    **changes: Any,
) -> Searched:
    """Search for the strength of one attack that hurts each defence most, and confirm it on fresh seeds.

    The search is that of ``dvc repro search@<study>``, mode ``strength``. Nothing is left on disk.

    Args:
        attack: A name (``"alie"``), or a mapping as in params.yaml.
        defences: One defence or several, as in :func:`pipeline.simulate`; in the tables ``"nnm + trimmed_mean"`` is
            called ``nnm_trimmed_mean``.
        partition: Who holds which samples: ``"iid"``, ``{"name": "dirichlet_by_worker", "alpha": 0.3}``, ...
        data: The name of a source, or a mapping as in ``data.source`` of params.yaml.
        model: A mapping as in params.yaml.
        trials: How many strengths are tried against each defence; the literature's come first, then a grid.
        batch: Trials that are asked for at once.
        sampler: What proposes the others: ``tpe``, ``cmaes``, ``gp``, ``qmc`` or ``random``.
        seeds: Every trial is the mean over these.
        confirmation_seeds: Of the confirmation; none of ``seeds`` may be among them.
        space: Replaces or adds to what the attack declares: ``{"strength": [0.1, 10.0]}``.
        changes: As in :func:`pipeline.simulate`, as in ``steps=50, workers=25``.

    Raises:
        UserError: Lists every fault, before anything is computed.

    Example:
        >>> small = {"steps": 20, "trials": 3, "batch": 3, "seeds": [100], "confirmation_seeds": [200]}
        >>> trials, confirmation = search_strength("ipm", "mean", "iid", **small)  # doctest: +ELLIPSIS
        search ipm: mode strength, tpe, 1 x 3 trials x 1 seeds
        ...
        >>> trials[["defence", "trial", "origin", "strength"]]
          defence  trial      origin  strength
        0    mean      0  literature      0.10
        1    mean      1  literature      1.00
        2    mean      2        grid      0.01
    """
    wanted = {
        "trials": trials,
        "batch": batch,
        "sampler": sampler,
        "seeds": list(seeds),
        "confirmation_seeds": list(confirmation_seeds),
    }
    raw, unknown = raw_sections(changes)
    if unknown:
        raise UserError("\n".join(unknown))
    name = attack if isinstance(attack, str) else str(dict(attack).get("name", "attack"))
    named = {_name(label): raw_defence(spec) for label, spec in labelled(defences).items()}
    raw["data"]["source"] = raw_component(data)
    raw |= {
        "model": model,
        "partitions": {"searched": raw_component(partition)},
        "defences": named,
        "attacks": {"none": {"name": "none"}, name: raw_component(attack)},
        "studies": {name: {"mode": "strength", "attacks": [name], "space": {name: dict(space)} if space else {}}},
        **_settings(name, list(named), wanted),
    }
    sections, faults = params.checked(raw)
    if faults:
        raise UserError("\n".join(faults))
    return _searched(Params.model_construct(**sections), name)


def _name(label: str) -> str:
    """Return a label as params.yaml would write it.

    Example:
        >>> _name("nnm + trimmed_mean")
        'nnm_trimmed_mean'
    """
    return re.sub(r"\W+", "_", label.lower()).strip("_")


def _settings(study: str, defences: list[str], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of params.yaml that say what is searched, and those that a search does not read."""
    common = {"defences": defences, "partition": "searched", "sampler_seed": 0}
    search = {**common, **wanted, "studies": [study], "finalists": 1, "transfer": False, "budget_minutes": None}
    tuning = {**common, "defences": [], "attacks": ["none"], "objective": "clean", "learning_rate": [1e-9, 1e9]}
    tuning |= {"trials": 1, "batch": 1, "sampler": "tpe", "seeds": [UNUSED[0]]}
    grid = {"attacks": ["none"], "defences": defences, "partitions": ["searched"], "seeds": [UNUSED[1]]}
    analysis = {"confidence": 0.95, "half_width": 0.03, "collapse": 0.5, "published": None}
    return {"search": search, "tuning": tuning, "grid": {**grid, "max_seeds": 1}, "analysis": analysis}


def _searched(parameters: Params, study: str) -> Searched:
    _refuse_what_has_no_file(parameters)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        parameters.data.source.download(root / RAW)
        prepare(parameters.data, root / RAW, root / DATASET)
        search_study(root, parameters, study)
        return _tables(read_study(root, parameters, study))


def _refuse_what_has_no_file(parameters: Params) -> None:
    defences = [part for defence in parameters.defences.values() for part in (*defence.before, defence.rule)]
    for part in (parameters.model, *parameters.attacks.values(), *parameters.partitions.values(), *defences):
        if not source_file(type(part).__module__).exists():
            raise UserError(f"{part.name}: a search knows its runs by their code; put the class into a file first")


def load_search(study: str, folder: str | Path = ".") -> Searched:
    """Return the results of one study of a project, as :func:`search_strength` does.

    Args:
        study: Its name in params.yaml, such as ``"alie"``.
        folder: Of params.yaml and of the results that ``dvc repro`` wrote.

    Raises:
        UserError: There is no such study, or its result is missing, damaged, or belongs to other parameters than
            params.yaml states.
    """
    root = Path(folder)
    parameters = params.load(root / "params.yaml")
    if study not in parameters.studies:
        raise UserError(f"study {study!r}: not in params.yaml; one of {', '.join(map(repr, parameters.studies))}")
    return _tables(read_study(root, tuned(root, parameters), study))


def _tables(found: StudyResult) -> Searched:
    return Searched(*(_with_strength(table) for table in (found.trials, found.confirmation)))


def _with_strength(table: pd.DataFrame) -> pd.DataFrame:
    parsed = [json.loads(parameters) for parameters in table["parameters"]]
    return table.assign(strength=[float(one.get("strength", "nan")) for one in parsed])
