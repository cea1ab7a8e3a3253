"""Figures of the grid: test accuracy as a heatmap, and learning curves."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pipeline.report.analysis import worst_attacks
from pipeline.report.figures.heatmap import coloured, frame, write
from pipeline.report.figures.style import GREY, FigureContext, band, band_entry, caption, entry, in_house_style, panels
from pipeline.report.wording import UNCONVERGED, uncertain

COMFORTABLE = 5  # attacks beside each other in a heatmap; more of them need two lines a cell
UPRIGHT = 7  # and more than these, slanted names
DIVERGED, COLLAPSED = "‡", "▾"
CHANCE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (1, 2))}


@in_house_style
def heatmap(compared: pd.DataFrame, partition: str, context: FigureContext) -> Figure:
    """Draw mean test accuracy of defence x attack on one partition; the worst attack of each defence is framed."""
    rows = compared[compared["partition"] == partition]
    defences, attacks = list(rows["defence"].unique()), list(rows["attack"].unique())
    table = rows.pivot(index="defence", columns="attack", values="accuracy").loc[defences, attacks]
    between, size = (" ", 7.5) if len(attacks) <= COMFORTABLE else ("\n", 6.5)
    figure, axes, image = coloured(table, margin=1.4, rotation=0 if len(attacks) <= UPRIGHT else 30)
    worst = set(worst_attacks(rows)[["defence", "attack"]].itertuples(index=False, name=None))
    for row in rows.to_dict("records"):
        place, framed = _place(table, row), (row["defence"], row["attack"]) in worst
        weight = "bold" if framed else "normal"
        write(image, place, _cell_text(row, between), row["accuracy"], fontsize=size, fontweight=weight)
        if framed:
            frame(axes, place, height=0.84)
    axes.set(xlabel="attack", ylabel="defence")
    axes.set_title(f"Test accuracy (%) after {context.steps} steps, partition {partition}")
    _heatmap_key(figure, image, context)
    return figure


def _place(table: pd.DataFrame, row: Mapping[Any, Any]) -> tuple[int, int]:
    return list(table.columns).index(row["attack"]), list(table.index).index(row["defence"])


def _cell_text(row: Mapping[Any, Any], between: str) -> str:
    mean, half_width = uncertain(row["accuracy"], row["accuracy_half_width"]).split(" ± ")
    marks = {UNCONVERGED: row["unconverged"], DIVERGED: row["diverged"], COLLAPSED: row["collapsed"]}
    return f"{mean}{''.join(mark for mark, holds in marks.items() if holds)}{between}± {half_width}"


def _heatmap_key(figure: Figure, image: AxesImage, context: FigureContext) -> None:
    bar = figure.colorbar(image, label="mean test accuracy (%)", pad=0.02)
    bar.ax.axhline(100 * context.chance, color="white", linewidth=1.5)
    bar.ax.set_yticks([0, 20, 40, 60, 80, 100])
    figure.supxlabel(
        f"Mean ± half width of the {context.interval}. Frame and bold: the defence's worst attack.\n"
        f"{COLLAPSED}: some runs collapse. {DIVERGED}: some diverge. {UNCONVERGED}: not shown to have converged. "
        f"Line in the scale: chance, {context.chance_percent}.",
        fontsize=7.5,
    )


@in_house_style
def learning_curves(measured: pd.DataFrame, partition: str, context: FigureContext) -> Figure:
    """Draw mean validation accuracy against steps on one partition: one panel per attack, one line per defence."""
    rows = measured[measured["partition"] == partition]
    attacks, defences = list(rows["attack"].unique()), set(rows["defence"])
    figure, grid = panels(len(attacks), 1.75, "steps done")
    for axes, attack in zip(grid, attacks, strict=True):
        _curves(axes, rows[rows["attack"] == attack], context)
        axes.set(title=attack, ylim=(0, 102), xlim=(0, rows["steps_done"].max()))
    lines = [
        entry(name, color=look.color, linestyle=look.linestyle)
        for name, look in context.styles.items()
        if name in defences
    ]
    entries = [*lines, entry(f"chance, {context.chance_percent}", **CHANCE), band_entry()]
    title = f"Learning curves, partition {partition}: mean and {context.interval}"
    caption(figure, title, entries, columns=4, ylabel="validation accuracy (%)")
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, context: FigureContext) -> None:
    for defence, curve in rows.groupby("defence", sort=False):
        look = context.styles[str(defence)]
        band(axes, curve["steps_done"], curve["accuracy"], curve["accuracy_half_width"], look)
    axes.axhline(100 * context.chance, **CHANCE, zorder=0)
