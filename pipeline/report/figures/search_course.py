"""How a search went: the worst attack so far, trial after trial, and which parameter the damage depends on."""

import warnings

import numpy as np
import optuna
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from pipeline.report.figures.marks import DEGRADATION, LIMITS, TRIAL, ZERO, dot
from pipeline.report.figures.style import GREY, LineStyle, caption, entry, in_house_style, panels
from pipeline.report.search_export import OBJECTIVES, optuna_studies
from pipeline.report.search_results import StudyResult

FEWEST = 3  # trials, below which a picture would be all but empty


@in_house_style
def history(study: StudyResult, partition: str, styles: dict[str, LineStyle]) -> Figure | None:
    """Draw every trial, and the worst so far of each defence: a panel for each number of Byzantine workers.

    Returns:
        The figure; None with fewer than ``FEWEST`` trials.
    """
    damage = _damage(study)
    if damage["trial"].nunique() < FEWEST:
        return None
    counts = sorted(damage["byzantine"].unique())
    figure, grid = panels(len(counts), 2.5 if len(counts) == 1 else 1.75, "trial")
    for axes, count in zip(grid, counts, strict=True):
        for defence, rows in damage[damage["byzantine"] == count].groupby("defence", sort=False):
            look = styles[defence]
            axes.plot(rows["number"], 100 * rows["degradation"], **dot(look.color, TRIAL), alpha=0.6)
            axes.step(rows["number"], 100 * rows["worst"], where="post", color=look.color, linestyle=look.linestyle)
        axes.axhline(0, **ZERO)
        axes.set_title(f"b = {count}" if len(counts) > 1 else "")
    grid[0].set_ylim(max(LIMITS[0], 100 * damage["degradation"].min() - 2), LIMITS[1])
    grid[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = {name: look for name, look in styles.items() if name in set(damage["defence"])}
    entries = [entry(name, color=look.color, linestyle=look.linestyle) for name, look in drawn.items()]
    title = f"Study {study.name}: the worst so far of all trials, partition {partition}, validation data"
    caption(figure, title, [*entries, entry("trial", **dot(GREY, TRIAL))], columns=4, ylabel=DEGRADATION)
    return figure


@in_house_style
def importance(study: StudyResult, partition: str, styles: dict[str, LineStyle]) -> Figure | None:
    """Draw how much of the variance of the degradation each parameter explains: a panel for each, a bar a defence.

    Returns:
        The figure; None where fewer than two parameters vary in every trial, or where the number of Byzantine workers
        varies.
    """
    shares = _shares(study)
    if shares.empty or study.trials["byzantine"].nunique() > 1:
        return None
    parameters = sorted(shares.columns, key=lambda name: (name != "strength", name))
    shares = shares.reindex([name for name in styles if name in shares.index])
    figure, grid = panels(len(parameters), 0.4 + 0.16 * len(shares), "share of the variance (%)")
    for axes, parameter in zip(grid, parameters, strict=True):
        axes.barh(shares.index, 100 * shares[parameter], color=[styles[name].color for name in shares.index])
        axes.set_title(parameter)
    grid[0].set(xlim=(0, 100))
    grid[0].invert_yaxis()
    figure.suptitle(
        f"Study {study.name}: what the degradation depends on (fANOVA), partition {partition}", fontsize=8.5
    )
    return figure


def _damage(study: StudyResult) -> pd.DataFrame:
    """Return the mean degradation of every trial over the seeds, its number from 1, and the worst so far."""
    keys = ["defence", "byzantine", "trial"]
    means = study.trials.groupby(keys, sort=False)[OBJECTIVES[0]].mean().reset_index()
    worst = means.groupby(keys[:2], sort=False)[OBJECTIVES[0]].cummax()
    return means.assign(number=means["trial"] + 1, worst=worst)


def _shares(study: StudyResult) -> pd.DataFrame:
    """Return a row for each defence and a column for each parameter, empty where fewer than two vary in every trial."""
    shares = {}
    for found in optuna_studies(study):
        common = set.intersection(*(set(trial.params) for trial in found.trials))
        damage = [trial.values[0] for trial in found.trials]
        if len(common) > 1 and len(damage) >= FEWEST and np.ptp(damage) > 0:
            shares[found.study_name.removeprefix(f"{study.name}.")] = _fanova(found)
    return pd.DataFrame.from_dict(shares, orient="index")


def _fanova(study: optuna.Study) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return get_param_importances(
            study, evaluator=FanovaImportanceEvaluator(seed=0), target=lambda trial: trial.values[0]
        )
