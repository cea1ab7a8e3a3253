"""Optuna's own plots of a study."""

import warnings
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import optuna
from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

from pipeline.core.files import replacing
from pipeline.report.search_export import optuna_studies
from pipeline.report.search_results import StudyResult


def draw(folder: Path, result: StudyResult) -> list[Path]:
    """Draw Optuna's history of all defences and, where several parameters vary, their importance for each.

    Returns:
        The files ``history.<study>.png`` (in mode breakdown ``history.<study>.<defence>.png``, with every b) and
        ``importance.<study>.<defence>.png`` in ``folder``.
    """
    studies = optuna_studies(result)
    drawn = []
    with warnings.catch_warnings(), pyplot.rc_context():  # Optuna sets its own style
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
    """Return the studies of each picture by its name: all together, or in mode breakdown one picture per defence."""
    pictures: dict[str, list[optuna.Study]] = {}
    for study in studies:
        name = study.study_name.rpartition(".")[0] if result.description["mode"] == "breakdown" else result.name
        pictures.setdefault(name, []).append(study)
    return pictures


def _history(studies: Sequence[optuna.Study]) -> Axes:
    """Return Optuna's plot of every trial, with a line for the worst so far of each study."""
    axes: Axes = plot_optimization_history(list(studies), target=_damage, target_name="degradation")
    trials = axes.collections[::2]  # the others are infeasible trials, of which there are none
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
