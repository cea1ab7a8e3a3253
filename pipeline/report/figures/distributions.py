"""Every seed a dot: the test accuracies behind the means of the grid."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures.grid import CHANCE
from pipeline.report.figures.style import GREY, FigureContext, LineStyle, caption, entry, in_house_style, panels

SEED: dict[str, Any] = {"marker": "o", "markersize": 2.6, "markeredgewidth": 0, "linestyle": "none", "alpha": 0.5}
MEAN: dict[str, Any] = {"marker": "D", "markersize": 3.6, "markerfacecolor": "white", "markeredgewidth": 0.8}
MEDIAN: dict[str, Any] = {"marker": "|", "markersize": 8, "markeredgewidth": 1.4, "linestyle": "none"}
COLLAPSE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 2))}
REACH = 0.16  # of the dots of a row, above and below its middle
SUMMARY = 0.32  # where mean, interval and median stand, below the middle


@in_house_style
def distributions(
    cells: pd.DataFrame, compared: pd.DataFrame, partition: str, collapse: float, context: FigureContext
) -> Figure:
    """Draw the test accuracy of every seed on one partition: one panel per attack, one row per defence.

    Args:
        cells: Of :func:`pipeline.report.analysis.cells_table`.
        compared: Of :func:`pipeline.report.analysis.comparison`.
        partition: Its name in params.yaml.
        collapse: Accuracy below which a run counts as collapsed, a fraction.
        context: Of all figures.
    """
    runs, groups = (table[table["partition"] == partition] for table in (cells, compared))
    attacks, defences = list(groups["attack"].unique()), list(groups["defence"].unique())
    figure, grid = panels(len(attacks), 0.45 + 0.24 * len(defences), "test accuracy (%)")
    for axes, attack in zip(grid, attacks, strict=True):
        own = runs[runs["attack"] == attack]
        for row in groups[groups["attack"] == attack].to_dict("records"):
            place, look = defences.index(row["defence"]), context.styles[row["defence"]]
            _strip(axes, place, own[own["defence"] == row["defence"]]["test_accuracy"], look)
            _summary(axes, place + SUMMARY, row, look)
        axes.axvline(100 * context.chance, **CHANCE, zorder=0)
        axes.axvline(100 * collapse, **COLLAPSE, zorder=0)
        axes.set(title=attack, xlim=(0, 102))
    grid[0].set_yticks(range(len(defences)), defences)
    grid[0].set_ylim(len(defences) - 0.4, -0.5)
    caption(figure, context.title("Test accuracy of every seed", partition), _entries(collapse, context), columns=3)
    return figure


def _strip(axes: Axes, place: int, accuracies: pd.Series, look: LineStyle) -> None:
    """Draw the seeds of a row, in turn at other heights, so that equal accuracies do not hide each other."""
    heights = place + REACH * np.linspace(-1, 1, 5)[np.arange(len(accuracies)) % 5]
    axes.plot(100 * accuracies, heights, color=look.color, **SEED)


def _summary(axes: Axes, place: float, row: dict[Any, Any], look: LineStyle) -> None:
    mean, half_width = 100 * row["accuracy"], 100 * row["accuracy_half_width"]
    ends = np.clip([mean - half_width, mean + half_width], 0, 100)
    axes.plot(ends, [place, place], color=look.color, linewidth=1.1)
    axes.plot([100 * row["accuracy_median"]], [place], color=look.color, **MEDIAN)
    axes.plot([mean], [place], color=look.color, **MEAN)


def _entries(collapse: float, context: FigureContext) -> list[Any]:
    return [
        entry("a seed", color=GREY, **SEED),
        entry("mean and interval", color=GREY, linewidth=1.1, **MEAN),
        entry("median", color=GREY, **MEDIAN),
        entry(f"chance, {context.chance_percent}", **CHANCE),
        entry(f"collapsed below {100 * collapse:g} %", **COLLAPSE),
    ]
