"""Worst-case accuracy against the learning rate."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from pipeline.report.figures.marks import TRIAL, bars, dot, outlined
from pipeline.report.figures.style import GREY, FigureContext, caption, entry, in_house_style, panels
from pipeline.report.tuning import COMMON

OTHERS: dict[str, Any] = {"color": GREY, "alpha": 0.3, "linewidth": 0.7}
MARKS = {"common": ("s", 5.0), "chosen": ("*", 9.0)}


@in_house_style
def learning_rates(trials: pd.DataFrame, context: FigureContext) -> Figure:
    """Draw the trials of :func:`pipeline.report.tuning.tuning_trials`: one panel per defence, the others in grey."""
    defences = list(trials["defence"].unique())
    lines = {name: _best_at_each_rate(rows) for name, rows in trials.groupby("defence", sort=False)}
    figure, grid = panels(len(defences), 1.75, "learning rate")
    for axes, defence in zip(grid, defences, strict=True):
        for other in lines.values():
            axes.plot(other["learning_rate"], 100 * other["accuracy"], **OTHERS)
        own, colour = trials[trials["defence"] == defence], context.styles[defence].color
        axes.plot(lines[defence]["learning_rate"], 100 * lines[defence]["accuracy"], color=colour)
        axes.plot(own["learning_rate"], 100 * own["accuracy"], **dot(colour, TRIAL))
        _mark(axes, own[own["origin"] == COMMON], MARKS["common"])
        _mark(axes, own[own["chosen"]], MARKS["chosen"])
        axes.set_title(defence)
    grid[0].set_xscale("log")
    grid[0].xaxis.set_major_formatter(FormatStrFormatter("%g"))
    grid[0].set_ylim(0, 102)
    title = f"Worst-case accuracy of each trial, mean and {context.interval}"
    caption(figure, title, _entries(), columns=3, ylabel="validation accuracy (%)")
    return figure


def _best_at_each_rate(trials: pd.DataFrame) -> pd.DataFrame:
    best = trials.loc[trials.groupby("learning_rate")["accuracy"].idxmax()]
    return best.sort_values("learning_rate")


def _mark(axes: Axes, rows: pd.DataFrame, mark: tuple[str, float]) -> None:
    errors = bars(rows["accuracy_half_width"])
    axes.errorbar(
        rows["learning_rate"],
        100 * rows["accuracy"],
        yerr=errors,
        **outlined(*mark),
        elinewidth=1,
        capsize=2,
        zorder=3,
    )


def _entries() -> list[Any]:
    return [
        entry("trial", **dot(GREY, TRIAL)),
        entry("best at each rate", color="black"),
        entry("other defences", **OTHERS),
        entry("common rate", **outlined(*MARKS["common"])),
        entry("chosen", **outlined(*MARKS["chosen"])),
    ]
