"""Studies as Optuna sees them: in memory, or in a database for ``optuna-dashboard``."""

import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from pipeline.core.errors import UserError
from pipeline.core.files import replacing
from pipeline.report.search_results import StudyResult
from pipeline.runs.cache import set_aside

OBJECTIVES = ("degradation", "flagged")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)


def export(path: Path, results: Sequence[StudyResult]) -> None:
    """Write the studies into the SQLite file ``path``; a file that holds them already is kept, a damaged one set aside.

    There is one Optuna study per study of params.yaml, defence and number of Byzantine workers, as
    :func:`optuna_studies` returns them.
    """
    try:
        if path.exists() and _held(path) == _content(study for result in results for study in optuna_studies(result)):
            return
    except (SQLAlchemyError, StorageInternalError, KeyError, ValueError, RuntimeError) as error:
        set_aside(path.parents[1], path, str(error).splitlines()[0])
    try:
        with replacing(path) as temporary:
            storage = _storage(temporary)
            for result in results:
                optuna_studies(result, storage)
            storage.engine.dispose()
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error  # Optuna's own text blames invalid data
        raise UserError(f"{path}: {str(cause).splitlines()[0]}") from None


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """Return the database ``path``; it is not forced to disk after every trial, as it can be made again."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": NullPool})


def _held(path: Path) -> dict[str, Any]:
    """Return the content of a database."""
    storage = _storage(path)
    try:
        names = optuna.get_all_study_names(storage)
        return _content(optuna.load_study(study_name=name, storage=storage) for name in names)
    finally:
        storage.engine.dispose()


def _content(studies: Iterable[optuna.Study]) -> dict[str, Any]:
    """Return the key and the trials of every study, by its name."""
    return {
        study.study_name: (
            study.user_attrs.get("key"),
            [(trial.params, trial.values, trial.user_attrs) for trial in study.get_trials(deepcopy=False)],
        )
        for study in studies
    }


def optuna_studies(result: StudyResult, storage: optuna.storages.BaseStorage | None = None) -> list[optuna.Study]:
    """Return the Optuna studies of one study of params.yaml, in memory or in ``storage``.

    A trial's values are means over the seeds; its user attributes hold origin, attack, the degradation for every seed,
    and for how many of the seeds training diverged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives = OBJECTIVES if result.description["mode"] == "stealth" else OBJECTIVES[:1]
    studies = []
    for name, rows in _targets(result):
        study = optuna.create_study(storage=storage, study_name=name, directions=DIRECTIONS[: len(objectives)])
        study.set_user_attr("key", result.description["key"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
        study.add_trials(
            [_trial(trial, result.description["spaces"], objectives) for _, trial in rows.groupby("trial")]
        )
        studies.append(study)
    return studies


def _targets(result: StudyResult) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name of every Optuna study and its rows."""
    for (defence, byzantine), rows in result.trials.groupby(["defence", "byzantine"], sort=False):
        suffix = f".f{byzantine}" if result.description["mode"] == "breakdown" else ""
        yield f"{result.name}.{defence}{suffix}", rows


def _trial(rows: pd.DataFrame, spaces: Mapping[str, Any], objectives: Sequence[str]) -> FrozenTrial:
    first = rows.iloc[0]
    attributes = {
        "origin": str(first["origin"]),
        "attack": str(first["attack"]),
        "diverged": int(rows["diverged"].sum()),
        **{
            f"seed {seed}": value
            for seed, value in zip(rows["seed"].tolist(), rows["degradation"].tolist(), strict=True)
        },
    }
    params, distributions = _parameters(str(first["attack"]), json.loads(first["parameters"]), spaces)
    values = [float(rows[objective].mean()) for objective in objectives]
    return create_trial(values=values, params=params, distributions=distributions, user_attrs=attributes)


def _parameters(
    attack: str, chosen: Mapping[str, Any], spaces: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return the parameters that varied, with their distributions; where there are several attacks, the attack too."""
    varied = {name: described for name, described in spaces[attack].items() if len(described.get("choices", "..")) > 1}
    prefix = "" if len(spaces) == 1 else f"{attack}."
    params = {f"{prefix}{name}": chosen[name] for name in varied}
    distributions = {f"{prefix}{name}": _distribution(varied[name], chosen[name]) for name in varied}
    if len(spaces) > 1:
        params["attack"], distributions["attack"] = attack, CategoricalDistribution(sorted(spaces))
    return params, distributions


def _distribution(described: Mapping[str, Any], value: Any) -> BaseDistribution:
    if "choices" in described:
        return CategoricalDistribution(described["choices"])
    if isinstance(value, int):
        return IntDistribution(int(described["low"]), int(described["high"]))
    return FloatDistribution(described["low"], described["high"], log=described["log"])
