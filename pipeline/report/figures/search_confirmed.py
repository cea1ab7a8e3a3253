"""Figures of what was confirmed on test data and fresh seeds: literature against found, breakdown, transfer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipeline.report.figures.heatmap import coloured, frame, write
from pipeline.report.figures.marks import DEGRADATION, LIMITS, TRIAL, ZERO, dot, limits, outlined
from pipeline.report.figures.style import (
    GREY,
    FigureContext,
    LineStyle,
    band,
    band_entry,
    caption,
    entry,
    in_house_style,
    panels,
)
from pipeline.report.search_tables import FOUND, LITERATURE

DASHED = (0, (3, 2))
OTHERS: dict[str, Any] = {"color": GREY, "alpha": 0.3, "linewidth": 0.7}
NOT_TOLERATED: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "alpha": 0.4, "hatch": "////", "linewidth": 0}


@in_house_style
def dumbbells(compared: pd.DataFrame, title: str, context: FigureContext) -> Figure:
    """Draw the degradation under the literature's and the found attack: one panel per study, one row per defence."""
    studies, defences = list(compared["study"].unique()), list(compared["defence"].unique())
    figure, grid = panels(len(studies), 0.7 + 0.22 * len(defences), "degradation (points)")
    for axes, study in zip(grid, studies, strict=True):
        for row in compared[compared["study"] == study].to_dict("records"):
            place = defences.index(row["defence"])
            _dumbbell(axes, place, row, context.styles[row["defence"]].color)
            axes.text(1.02, place, _mark(row), transform=axes.get_yaxis_transform(), va="center", fontsize=7)
        axes.axvline(0, **ZERO)
        axes.set_title(study)
    grid[0].xaxis.set_major_locator(MaxNLocator(5))
    grid[0].set_yticks(range(len(defences)), defences)
    grid[0].set_ylim(len(defences) - 0.5, -0.5)
    low, high = grid[0].get_xlim()
    grid[0].set_xlim(max(low, LIMITS[0]), min(high, LIMITS[1]))
    caption(figure, title, _dumbbell_entries(1 - context.confidence), columns=3)
    return figure


def _mark(row: Mapping[Any, Any]) -> str:
    """Return whether a row is significant and, where the attack was searched too, which one was found."""
    significant = "*" if row["significant"] else "n.s."
    return f"{significant} {row['found_attack']}" if row["mode"] == "worst" else significant


def _dumbbell(axes: Axes, place: int, row: Mapping[Any, Any], colour: str) -> None:
    """Draw one row; the two intervals stand a little apart so that both can be read."""
    ends = 100 * np.array([row["literature_degradation"], row["found_degradation"]])
    axes.plot(ends, [place, place], color=colour, linewidth=2.5, alpha=0.35, zorder=1)
    looks = ((LITERATURE, "o", "white", 7.0, -0.14), (FOUND, "D", colour, 4.0, 0.14))
    for end, (candidate, marker, face, size, shift) in zip(ends, looks, strict=True):
        half_width = 100 * row[f"{candidate}_degradation_half_width"]
        if np.isfinite(half_width):
            reach = [end - half_width, end + half_width]
            axes.plot(reach, [place + shift, place + shift], color=colour, linewidth=0.9, zorder=2)
        axes.plot([end], [place], marker=marker, markersize=size, color=colour, markerfacecolor=face, zorder=3)


def _dumbbell_entries(level: float) -> list[Any]:
    return [
        entry("literature's default", **outlined("o", 7, GREY)),
        entry("found by the search", color=GREY, marker="D", markersize=4, linestyle="none"),
        entry(f"*: found is significantly worse (Holm, level {level:.2g}); n.s.: not", linestyle="none"),
    ]


@in_house_style
def breakdowns(curves: pd.DataFrame, title: str, styles: dict[str, LineStyle]) -> Figure:
    """Draw degradation against the number of attackers of one study: one panel per defence."""
    defences, most = list(curves["defence"].unique()), int(curves["byzantine"].max())
    figure, grid = panels(len(defences), 1.75, "attackers, b = f")
    found = {
        str(defence): rows for defence, rows in curves[curves["candidate"] == FOUND].groupby("defence", sort=False)
    }
    last = {defence: int(rows["byzantine"].max()) for defence, rows in found.items()}
    told = curves[curves["candidate"] == LITERATURE]
    for axes, defence in zip(grid, defences, strict=True):
        for other in found.values():
            axes.plot(other["byzantine"], 100 * other["degradation"], **OTHERS)
        _breakdown_line(axes, told[told["defence"] == defence], LineStyle(GREY, DASHED))
        _breakdown_line(axes, found[defence], LineStyle(styles[defence].color, "-"))
        if last[defence] < most:
            axes.axvspan(last[defence] + 0.5, most + 0.5, **NOT_TOLERATED)
        axes.set(title=defence, xlim=(-0.3, most + 0.3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0].set_ylim(limits(curves))
    caption(figure, title, _breakdown_entries(len(set(last.values())) > 1), columns=3, ylabel=DEGRADATION)
    return figure


def _breakdown_line(axes: Axes, rows: pd.DataFrame, look: LineStyle) -> None:
    band(axes, rows["byzantine"], rows["degradation"], rows["degradation_half_width"], look, LIMITS)
    axes.plot(rows["byzantine"], 100 * rows["degradation"], **dot(look.color, TRIAL))


def _breakdown_entries(refused: bool) -> list[Any]:
    """Return the legend; ``refused`` says whether some defence does not tolerate every f."""
    return [
        entry("found anew at each f", color="black", marker="o", markersize=TRIAL),
        entry("literature's default", color=GREY, marker="o", markersize=TRIAL, linestyle=DASHED),
        band_entry(),
        entry("found, other defences", **OTHERS),
        *([Patch(**NOT_TOLERATED, label="not tolerated")] if refused else []),
    ]


@in_house_style
def transfer_heatmap(transfer: pd.DataFrame, title: str) -> Figure:
    """Draw the mean degradation of one study: defence a strength was found for x defence it is applied to."""
    defences = list(transfer["from_defence"].unique())
    table = transfer.pivot(index="from_defence", columns="to_defence", values="degradation").loc[defences, defences]
    figure, axes, image = coloured(table, margin=1.5, rotation=20, ha="right", rotation_mode="anchor")
    for row in transfer.to_dict("records"):
        place = defences.index(row["to_defence"]), defences.index(row["from_defence"])
        write(image, place, _transferred(row), row["degradation"], fontsize=7)
        if row["from_defence"] == row["to_defence"]:
            frame(axes, place, height=0.88)
    axes.set(xlabel="applied to", ylabel="found for")
    axes.set_title(title)
    figure.colorbar(image, label="degradation (points)", pad=0.02)
    return figure


def _transferred(row: Mapping[Any, Any]) -> str:
    """Return the degradation, and off the diagonal how it differs from that under the defence's own strength."""
    change = "" if row["from_defence"] == row["to_defence"] else f"\n({-100 * row['lost']:+z.1f})"
    return f"{100 * row['degradation']:.1f}{change}".replace("-", "\N{MINUS SIGN}")
