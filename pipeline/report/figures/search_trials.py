"""Figures of trials on validation data, with what was confirmed on test data: strengths, and fronts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter

from pipeline.report.figures.marks import CONFIRMED, DEGRADATION, LIMITS, TRIAL, ZERO, bars, dot, limits, outlined
from pipeline.report.figures.style import (
    DASHES,
    GREY,
    LineStyle,
    band,
    band_entry,
    caption,
    entry,
    in_house_style,
    panels,
)
from pipeline.report.search_tables import LITERATURE

DEFAULT: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (6, 2))}
RANGE: dict[str, Any] = {"color": "#F0E442", "alpha": 0.35, "linewidth": 1.5, "zorder": -1}
FURTHER = {**DEFAULT, "linestyle": (0, (1.5, 1.5))}


@dataclass(frozen=True)
class Axis:
    """A parameter of an attack as the horizontal axis."""

    parameter: str
    label: str
    log: bool


@in_house_style
def strengths(
    trials: pd.DataFrame,
    confirmed: pd.DataFrame,
    ranges: pd.DataFrame,
    axis: Axis,
    title: str,
    styles: dict[str, LineStyle],
) -> Figure:
    """Draw degradation against one parameter of one study: one panel per defence, with what was confirmed on test data.

    Args:
        trials: Of the study.
        confirmed: Of the study.
        ranges: Of the study, empty where several parameters have bounds.
        axis: The horizontal one; only trials that differ in nothing else are joined by a line.
        title: Of the figure.
        styles: Of the defences.
    """
    defences = list(trials["defence"].unique())
    figure, grid = panels(len(defences), 1.75, axis.label)
    tried, rerun = (_along(table, axis.parameter) for table in (trials, confirmed))
    dashes = _dashes(tried)
    for axes, defence in zip(grid, defences, strict=True):
        _strength_panel(axes, tried[tried["defence"] == defence], dashes, styles[defence].color)
        _confirmed_marks(axes, rerun[rerun["defence"] == defence])
        for low, high in ranges[ranges["defence"] == defence][["low", "high"]].to_numpy():
            axes.axvspan(low, high, **RANGE)
        axes.set_title(defence)
    if axis.log:
        grid[0].set_xscale("log")
        grid[0].xaxis.set_major_formatter(FormatStrFormatter("%g"))
    grid[0].set_ylim(limits(tried, rerun[rerun["candidate"].isin(list(CONFIRMED))]))
    caption(figure, title, [*_strength_entries(tried, dashes), *_range_entry(ranges)], columns=3, ylabel=DEGRADATION)
    return figure


def _along(table: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """Add the value of ``parameter`` as column ``x``, and all others in words as ``others``."""
    parsed = [json.loads(parameters) for parameters in table["parameters"]]
    x = [parameters.pop(parameter) for parameters in parsed]
    others = [", ".join(f"{name} {value}" for name, value in parameters.items()) for parameters in parsed]
    return table.assign(x=x, others=others)


def _dashes(tried: pd.DataFrame) -> dict[str, Any]:
    """Return a line style for each set of other parameters under which several values were tried."""
    values = tried.groupby("others", sort=False)["x"].nunique()
    several = [others for others in values.index if values[others] > 1]
    return {others: DASHES[place % len(DASHES)] for place, others in enumerate(several)}


def _strength_panel(axes: Axes, points: pd.DataFrame, dashes: Mapping[str, Any], colour: str) -> None:
    axes.axhline(0, **ZERO)
    published = points[points["origin"] == "literature"].sort_values("trial")["x"].unique()
    for place, x in enumerate(published):
        axes.axvline(x, **(DEFAULT if place == 0 else FURTHER), zorder=0)
    for others, dash in dashes.items():
        line = points[points["others"] == others].sort_values("x", kind="stable")
        look = LineStyle(colour, dash)
        band(axes, line["x"], line["degradation"], line["degradation_half_width"], look, LIMITS)
    axes.plot(points["x"], 100 * points["degradation"], **dot(colour, TRIAL))


def _confirmed_marks(axes: Axes, rows: pd.DataFrame) -> None:
    for candidate, mark in CONFIRMED.items():
        of_candidate = rows[rows["candidate"] == candidate]
        axes.errorbar(
            of_candidate["x"],
            100 * of_candidate["degradation"],
            yerr=bars(of_candidate["degradation_half_width"]),
            **outlined(*mark),
            elinewidth=1,
            capsize=2,
            zorder=3,
            label=candidate,
        )


def _strength_entries(tried: pd.DataFrame, dashes: Mapping[str, Any]) -> list[Any]:
    entries = [
        entry("trial (validation)", **dot(GREY, TRIAL)),
        band_entry(),
        entry("literature's default", **DEFAULT),
        entry("default, confirmed (test)", **outlined(*CONFIRMED["literature"])),
        entry("found, confirmed (test)", **outlined(*CONFIRMED["found"])),
    ]
    published = tried[tried["origin"] == "literature"]
    if published.groupby(["defence", "byzantine"])["x"].nunique().gt(1).any():
        entries.append(entry("further published value", **FURTHER))
    if len(dashes) > 1:
        entries += [entry(others, color=GREY, linestyle=dash) for others, dash in dashes.items()]
    return entries


def _range_entry(ranges: pd.DataFrame) -> list[Patch]:
    return [] if ranges.empty else [Patch(**RANGE, label="cannot be told from the worst")]


@in_house_style
def fronts(
    trials: pd.DataFrame, front: pd.DataFrame, confirmed: pd.DataFrame, title: str, styles: dict[str, LineStyle]
) -> Figure:
    """Draw damage against detectability of one study: one panel per defence, with what was confirmed."""
    defences = list(trials["defence"].unique())
    figure, grid = panels(len(defences), 1.75, "Byzantine vectors flagged (%)")
    for axes, defence in zip(grid, defences, strict=True):
        tried, best, again = (table[table["defence"] == defence] for table in (trials, front, confirmed))
        axes.axhline(0, **ZERO)
        axes.plot(100 * tried["flagged"], 100 * tried["degradation"], **dot(GREY, TRIAL), alpha=0.5)
        _staircase(axes, best, styles[defence].color)
        _crosses(axes, again[again["candidate"] == LITERATURE], outlined("s", 4.5))
        of_front = again["candidate"].str.startswith("front_")
        _crosses(axes, again[of_front], outlined("D", 4.5, styles[defence].color))
        axes.set(title=defence, xlim=(-3, 103))
    caption(figure, title, _front_entries(), columns=4, ylabel=DEGRADATION)
    return figure


def _front_entries() -> list[Line2D]:
    return [
        entry("trial (validation)", **dot(GREY, TRIAL), alpha=0.5),
        entry("front (validation)", color="black", marker="o", markersize=3, linewidth=1),
        entry("front, confirmed (test)", **outlined("D", 4.5)),
        entry("literature's default (test)", **outlined("s", 4.5)),
    ]


def _staircase(axes: Axes, best: pd.DataFrame, colour: str) -> None:
    """Draw the largest degradation that is reached with at most a given share flagged."""
    x, y = 100 * best["flagged"], 100 * best["degradation"]
    axes.step([*x, 100], [*y, y.iloc[-1]], where="post", color=colour, linewidth=1)
    axes.plot(x, y, **dot(colour, 3))


def _crosses(axes: Axes, rows: pd.DataFrame, look: Mapping[str, Any]) -> None:
    """Draw confirmed points with their intervals in both directions."""
    axes.errorbar(
        100 * rows["flagged"],
        100 * rows["degradation"],
        yerr=bars(rows["degradation_half_width"]),
        xerr=bars(rows["flagged_half_width"]),
        **look,
        elinewidth=0.8,
        zorder=3,
    )
