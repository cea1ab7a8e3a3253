"""Studies as Optuna sees them: a database for ``optuna-dashboard``, and Optuna's own plots."""

import json
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances
from sqlalchemy.pool import NullPool

from pipeline.core.files import replacing
from pipeline.report.search_results import StudyResult

OBJECTIVES = ("degradation", "flagged")
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)


def export(path: Path, results: Sequence[StudyResult]) -> None:
    """Write the studies into the SQLite file ``path``; a file that holds them already is kept.

    There is an Optuna study for each study of params.yaml, defence and number of Byzantine workers, as
    :func:`optuna_studies` gives them.
    """
    wanted = {(name, result.description["key"]) for result in results for name, _ in _targets(result)}
    if path.exists() and _held(path) == wanted:
        return
    with replacing(path) as temporary:
        storage = _storage(temporary)
        for result in results:
            optuna_studies(result, storage)
        storage.engine.dispose()


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """Return the database ``path``; it is not forced to disk after every trial, it can be made again."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": NullPool})


def _held(path: Path) -> set[tuple[str, str]]:
    """Return the names and keys of the studies of a database."""
    storage = _storage(path)
    held = {(study.study_name, study.user_attrs.get("key", "")) for study in optuna.get_all_study_summaries(storage)}
    storage.engine.dispose()
    return held


def optuna_studies(result: StudyResult, storage: optuna.storages.BaseStorage | None = None) -> list[optuna.Study]:
    """Return the Optuna studies of one study of params.yaml, in memory or in ``storage``.

    A trial's values are means over the seeds; its user attributes hold origin, attack, the degradation for every seed,
    and for how many of them training diverged.
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
    """Return what varied, with its distributions; of several attacks, the attack too."""
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


def draw(folder: Path, result: StudyResult) -> list[Path]:
    """Draw Optuna's history of all defences and, where several parameters vary, their importance for each.

    Returns:
        The files ``history.<study>.png`` (in mode breakdown ``history.<study>.<defence>.png``, of every b) and
        ``importance.<study>.<defence>.png`` in ``folder``.
    """
    studies = optuna_studies(result)
    drawn = []
    with warnings.catch_warnings(), pyplot.rc_context():  # Optuna sets a style of its own
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for name, beside in _side_by_side(result, studies).items():
            drawn.append(_saved(_history(beside), folder / f"history.{name}.png"))
        for study in studies:
            if len(_common(study)) > 1 and len(study.trials) > 1:
                evaluator = FanovaImportanceEvaluator(seed=0)
                axes = plot_param_importances(study, evaluator, target=_damage, target_name="degradation")
                axes.set_title(study.study_name, loc="left", fontsize="medium")
                axes.set(xlabel="share of the variance of the degradation (fANOVA)", ylabel="")
                axes.legend_ = None
                drawn.append(_saved(axes, folder / f"importance.{study.study_name}.png"))
    return drawn


def _side_by_side(result: StudyResult, studies: Sequence[optuna.Study]) -> dict[str, list[optuna.Study]]:
    """Return the studies of one picture by its name: all, or in mode breakdown those of a defence."""
    pictures: dict[str, list[optuna.Study]] = {}
    for study in studies:
        name = study.study_name.rpartition(".")[0] if result.description["mode"] == "breakdown" else result.name
        pictures.setdefault(name, []).append(study)
    return pictures


def _history(studies: Sequence[optuna.Study]) -> Axes:
    """Return Optuna's plot of every trial, with a line for the worst so far of each study."""
    axes: Axes = plot_optimization_history(list(studies), target=_damage, target_name="degradation")
    trials = axes.collections[::2]  # the others are the infeasible trials, of which there are none
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(studies)))  # Optuna's repeat after five
    for study, points, colour in zip(studies, trials, colours, strict=True):
        worst = list(accumulate(map(_damage, study.trials), max))
        axes.step(range(len(worst)), worst, where="post", color=colour)
        points.set(label=study.study_name, alpha=0.6, sizes=[12], color=colour)
    axes.set_title("Trials as points, the worst so far as lines", fontsize="medium")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")
    return axes


def _damage(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _common(study: optuna.Study) -> set[str]:
    return set.intersection(*(set(trial.params) for trial in study.trials))


def _saved(axes: Axes, path: Path) -> Path:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.set_size_inches(8, 4)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    return path
