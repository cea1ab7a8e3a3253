"""Figures of the searches, from the tables of ``search_tables``. Degradations in percentage points."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from pipeline.report.figures import (
    DASHES,
    GREY,
    WIDTH,
    Figure,
    LineStyle,
    Setting,
    band,
    in_house_style,
    luminance,
    panels,
)
from pipeline.report.search_tables import FOUND, LITERATURE

LIMITS = (-105, 105)  # what a degradation can be; intervals of few seeds reach far beyond
DEGRADATION = "degradation (percentage points)"
DASHED, DEFAULT, FURTHER = (0, (3, 2)), (0, (6, 2)), (0, (1.5, 1.5))
NOT_TOLERATED: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "alpha": 0.4, "hatch": "////", "linewidth": 0}
CONFIRMED = ((LITERATURE, "s", 5.0), (FOUND, "*", 9.0))

READ_STRENGTHS = (
    "A panel is a defence; each small point is one strength that the search tried, with its mean degradation on "
    "validation data, and the band is the interval over the search's seeds, joined in order of strength. Dashed "
    "lines mark the literature's strengths, the longer dashes its default. The open square (the default) and the "
    "star (found) were measured again on test data and fresh seeds, and only these two are results. The highest "
    "small point is the best of many noisy ones and so looks worse for the defence than it is; a star below it "
    "shows by how much. A maximum at the edge of the range may go on rising beyond it, and nothing is known between "
    "points far apart."
)
READ_DUMBBELLS = (
    "Each row joins the degradation under the literature's default (open circle) with that under what the search "
    "found (filled diamond); the thin bars beside them are their intervals. Both are measured on test data and on "
    "seeds that the search never saw. The longer the bar, the more a study that tries the default alone "
    "underestimates the attack. Overlapping intervals do not mean that there is no difference, because both ends "
    "share their seeds: the mark at the right edge, from the paired test in the table, decides. Where two marks "
    "coincide the search found nothing stronger, and a diamond left of its circle is a strength that did better on "
    "validation data by luck."
)
READ_FRONTS = (
    "A panel is a defence, a point an attack that was tried: to the right it is seen more (the share of its vectors "
    "that a norm or a distance filter would flag), upwards it hurts more. Grey points are beaten in both by "
    "another; the line joins those that are not, on validation data. Open diamonds are the points of that line "
    "measured again on test data and fresh seeds, the open square is the literature's default, and these are the "
    "results: where they fall below the line, the front owed part of its height to the choice among noisy trials. "
    "Read off how much damage an attacker keeps who must stay below a share; a front that climbs at the left edge "
    "means that the filters would not help."
)
READ_BREAKDOWN = (
    "A panel is a defence, the horizontal axis the number of attackers, which the defence is always told (b = f). "
    "The solid line is the degradation under the strength found anew at each f, the dashed one under the "
    "literature's default, both on test data and fresh seeds with their intervals; the other defences' found curves "
    "stand behind in grey. Where the panel is hatched, the defence does not tolerate so many attackers by its own "
    "condition. Look for the f from which the solid line leaves 0: that is how many attackers the defence stands in "
    "this experiment. A dashed line that stays at 0 beyond it is the false comfort of a fixed strength."
)
READ_TRANSFER = (
    "A row is the defence for which a strength was found, a column the defence to which it was then applied; a cell "
    "holds the mean degradation on test data and fresh seeds, and in brackets how it differs from that under the "
    "strength found for the column's own defence, which stands framed on the diagonal. A row that is bright on the "
    "diagonal alone is an attack made for one defence: an attacker who does not know which defence is used gains "
    "little by it. A row bright everywhere needs no such knowledge. A positive number in brackets is a borrowed "
    "strength that hurt more than the defence's own: the search missed it, or the seeds made it up."
)


@dataclass(frozen=True)
class Axis:
    """A parameter of an attack as horizontal axis."""

    parameter: str
    label: str
    log: bool


@in_house_style
def strengths(
    trials: pd.DataFrame,
    confirmed: pd.DataFrame,
    axis: Axis,
    title: str,
    styles: dict[str, LineStyle],
) -> Figure:
    """Draw degradation against one parameter of one study: a panel a defence, with what was confirmed on test data.

    Args:
        trials: Of the study.
        confirmed: Of the study.
        axis: The horizontal one; only trials that differ in nothing else are joined.
        title: Of the figure.
        styles: Of the defences.
    """
    defences = list(trials["defence"].unique())
    figure, grid = panels(len(defences), 1.75, axis.label)
    tried, rerun = (_split(table, axis.parameter) for table in (trials, confirmed))
    dashes, published = _dashes(tried), tried[tried["origin"] == "literature"]
    further = bool(published.groupby(["defence", "byzantine"])["x"].nunique().gt(1).any())
    for axes, defence in zip(grid, defences, strict=True):
        _strength_panel(axes, tried[tried["defence"] == defence], dashes, styles[defence].color)
        _confirmed_marks(axes, rerun[rerun["defence"] == defence])
        axes.set_title(defence)
    if axis.log:
        grid[0].set_xscale("log")
        grid[0].xaxis.set_major_formatter(FormatStrFormatter("%g"))
    grid[0].set_ylim(_range(tried, rerun[rerun["candidate"].isin([LITERATURE, FOUND])]))
    figure.supylabel(DEGRADATION, fontsize=8)
    figure.suptitle(title, fontsize=8.5)
    figure.legend(handles=_strength_key(dashes, further), loc="outside lower center", ncols=3)
    return figure


def _split(table: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """Add the value of ``parameter`` as column ``x``, and all others in words as ``others``."""
    parsed = [json.loads(parameters) for parameters in table["parameters"]]
    x = [parameters.pop(parameter) for parameters in parsed]
    others = [", ".join(f"{name} {value}" for name, value in parameters.items()) for parameters in parsed]
    return table.assign(x=x, others=others)


def _dashes(tried: pd.DataFrame) -> dict[str, Any]:
    """Return a line style for each set of other parameters under which several values were tried."""
    tried_values = tried.groupby("others", sort=False)["x"].nunique()
    several = [others for others in tried_values.index if tried_values[others] > 1]
    return {others: DASHES[place % len(DASHES)] for place, others in enumerate(several)}


def _strength_panel(axes: Axes, points: pd.DataFrame, dashes: Mapping[str, Any], colour: str) -> None:
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    literature = points[points["origin"] == "literature"].sort_values("trial")["x"].unique()
    for place, x in enumerate(literature):
        axes.axvline(x, color=GREY, linewidth=0.9, linestyle=DEFAULT if place == 0 else FURTHER, zorder=0)
    for others, dash in dashes.items():
        line = points[points["others"] == others].sort_values("x", kind="stable")
        look = LineStyle(colour, dash)
        band(axes, line["x"], line["degradation"], line["degradation_half_width"], look, LIMITS)
    axes.plot(points["x"], 100 * points["degradation"], **_dot(colour, 2.5))


def _confirmed_marks(axes: Axes, rows: pd.DataFrame) -> None:
    for candidate, marker, size in CONFIRMED:
        of_candidate = rows[rows["candidate"] == candidate]
        axes.errorbar(
            of_candidate["x"],
            100 * of_candidate["degradation"],
            yerr=_known(of_candidate["degradation_half_width"]),
            **_outlined(marker, size),
            elinewidth=1,
            capsize=2,
            zorder=3,
            label=candidate,
        )


def _outlined(marker: str, size: float, colour: str = "black") -> dict[str, Any]:
    return {"color": colour, "marker": marker, "markersize": size, "markerfacecolor": "white", "linestyle": "none"}


def _strength_key(dashes: Mapping[str, Any], further: bool) -> list[Any]:
    """Return the legend; ``further`` if there is more than one published value."""
    handles = {
        "trial (validation)": Line2D([], [], **_dot(GREY, 2.5)),
        "interval": Patch(color=GREY, alpha=0.25, linewidth=0),
        "literature's default": Line2D([], [], color=GREY, linewidth=0.9, linestyle=DEFAULT),
        "default, confirmed (test)": Line2D([], [], **_outlined("s", 5)),
        "found, confirmed (test)": Line2D([], [], **_outlined("*", 9)),
    }
    if further:
        handles["further published value"] = Line2D([], [], color=GREY, linewidth=0.9, linestyle=FURTHER)
    if len(dashes) > 1:
        handles |= {others: Line2D([], [], color=GREY, linestyle=dash) for others, dash in dashes.items()}
    return [_labelled(handle, label) for label, handle in handles.items()]


def _labelled(handle: Any, label: str) -> Any:
    handle.set_label(label)
    return handle


@in_house_style
def dumbbells(compared: pd.DataFrame, title: str, styles: dict[str, LineStyle], setting: Setting) -> Figure:
    """Draw the degradation under the literature's and under the found attack: a panel a study, a row a defence."""
    studies, defences = list(compared["study"].unique()), list(compared["defence"].unique())
    figure, grid = panels(len(studies), 0.7 + 0.22 * len(defences), "degradation (points)")
    for axes, study in zip(grid, studies, strict=True):
        for row in compared[compared["study"] == study].to_dict("records"):
            place = defences.index(row["defence"])
            _dumbbell(axes, place, row, styles[row["defence"]].color)
            mark = ("*" if row["significant"] else "n.s.") + (
                f" {row['found_attack']}" if row["mode"] == "worst" else ""
            )
            axes.text(1.02, place, mark, transform=axes.get_yaxis_transform(), va="center", fontsize=7)
        axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
        axes.set_title(study)
    grid[0].xaxis.set_major_locator(MaxNLocator(5))
    grid[0].set_yticks(range(len(defences)), defences)
    grid[0].set_ylim(len(defences) - 0.5, -0.5)
    low, high = grid[0].get_xlim()
    grid[0].set_xlim(max(low, LIMITS[0]), min(high, LIMITS[1]))
    figure.suptitle(title, fontsize=8.5)
    level = f"{1 - setting.confidence:.2g}"
    handles = [
        Line2D([], [], **_outlined("o", 7, GREY), label="literature's default"),
        Line2D([], [], color=GREY, marker="D", markersize=4, linestyle="none", label="found by the search"),
        Line2D([], [], linestyle="none", label=f"*: found is significantly worse (Holm, level {level}); n.s.: not"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _mark(row: Mapping[Any, Any]) -> str:
    """Return whether a row is significant, and where the attack was searched too, which one was found."""
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


@in_house_style
def fronts(
    trials: pd.DataFrame, front: pd.DataFrame, confirmed: pd.DataFrame, title: str, styles: dict[str, LineStyle]
) -> Figure:
    """Draw damage against detectability of one study: a panel a defence, its front on validation data, confirmed."""
    defences = list(trials["defence"].unique())
    figure, grid = panels(len(defences), 1.75, "Byzantine vectors flagged (%)")
    for axes, defence in zip(grid, defences, strict=True):
        tried, best, again = (table[table["defence"] == defence] for table in (trials, front, confirmed))
        colour = styles[defence].color
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        axes.plot(100 * tried["flagged"], 100 * tried["degradation"], **_dot(GREY, 2.5), alpha=0.5)
        _staircase(axes, best, colour)
        of_front = again["candidate"].str.startswith("front_")
        _crosses(axes, again[again["candidate"] == LITERATURE], _outlined("s", 4.5))
        _crosses(axes, again[of_front], _outlined("D", 4.5, colour))
        axes.set(title=defence, xlim=(-3, 103))
    figure.supylabel(DEGRADATION, fontsize=8)
    figure.suptitle(title, fontsize=8.5)
    handles = [
        Line2D([], [], **_dot(GREY, 2.5), alpha=0.5, label="trial (validation)"),
        Line2D([], [], color="black", marker="o", markersize=3, linewidth=1, label="front (validation)"),
        Line2D([], [], **_outlined("D", 4.5), label="front, confirmed (test)"),
        Line2D([], [], **_outlined("s", 4.5), label="literature's default (test)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _dot(colour: str, size: float) -> dict[str, Any]:
    return {"color": colour, "marker": "o", "markersize": size, "linestyle": "none"}


def _staircase(axes: Axes, best: pd.DataFrame, colour: str) -> None:
    """Draw what is reached with at most that share flagged."""
    x, y = 100 * best["flagged"], 100 * best["degradation"]
    axes.step([*x, 100], [*y, y.iloc[-1]], where="post", color=colour, linewidth=1)
    axes.plot(x, y, **_dot(colour, 3))


def _crosses(axes: Axes, rows: pd.DataFrame, look: Mapping[str, Any]) -> None:
    """Draw confirmed points with their intervals in both directions."""
    axes.errorbar(
        100 * rows["flagged"],
        100 * rows["degradation"],
        yerr=_known(rows["degradation_half_width"]),
        xerr=_known(rows["flagged_half_width"]),
        **look,
        elinewidth=0.8,
        zorder=3,
    )


@in_house_style
def breakdowns(curves: pd.DataFrame, title: str, styles: dict[str, LineStyle]) -> Figure:
    """Draw degradation against the number of attackers of one study: a panel a defence."""
    defences, most = list(curves["defence"].unique()), int(curves["byzantine"].max())
    figure, grid = panels(len(defences), 1.75, "attackers, b = f")
    found = {
        str(defence): rows for defence, rows in curves[curves["candidate"] == FOUND].groupby("defence", sort=False)
    }
    for axes, defence in zip(grid, defences, strict=True):
        for other in defences:
            axes.plot(
                found[other]["byzantine"], 100 * found[other]["degradation"], color=GREY, alpha=0.3, linewidth=0.7
            )
        told = curves[(curves["defence"] == defence) & (curves["candidate"] == LITERATURE)]
        for rows, look in ((told, LineStyle(GREY, DASHED)), (found[defence], LineStyle(styles[defence].color, "-"))):
            band(axes, rows["byzantine"], rows["degradation"], rows["degradation_half_width"], look, LIMITS)
            axes.plot(rows["byzantine"], 100 * rows["degradation"], **_dot(look.color, 2.5))
        last = int(found[defence]["byzantine"].max())
        if last < most:
            axes.axvspan(last + 0.5, most + 0.5, **NOT_TOLERATED)
        axes.set(title=defence, xlim=(-0.3, most + 0.3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0].set_ylim(_range(curves))
    figure.supylabel(DEGRADATION, fontsize=8)
    figure.suptitle(title, fontsize=8.5)
    ends = {int(rows["byzantine"].max()) for rows in found.values()}
    figure.legend(handles=_breakdown_key(len(ends) > 1), loc="outside lower center", ncols=3)
    return figure


def _breakdown_key(refused: bool) -> list[Any]:
    """Return the legend; ``refused`` if some defence does not tolerate all."""
    handles = {
        "found anew at each f": Line2D([], [], color="black", marker="o", markersize=2.5),
        "literature's default": Line2D([], [], color=GREY, marker="o", markersize=2.5, linestyle=DASHED),
        "interval": Patch(color=GREY, alpha=0.25, linewidth=0),
        "found, other defences": Line2D([], [], color=GREY, alpha=0.3, linewidth=0.7),
    }
    if refused:
        handles["not tolerated"] = Patch(**NOT_TOLERATED)
    return [_labelled(handle, label) for label, handle in handles.items()]


@in_house_style
def transfer_heatmap(transfer: pd.DataFrame, title: str) -> Figure:
    """Draw the mean degradation of one study, strength found for a defence x defence it is applied to."""
    defences = list(transfer["from_defence"].unique())
    matrix = transfer.pivot(index="from_defence", columns="to_defence", values="degradation").loc[defences, defences]
    figure = Figure(figsize=(WIDTH, 1.5 + 0.42 * len(defences)))
    axes = figure.add_subplot()
    image = axes.imshow(100 * matrix.to_numpy(), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for row in transfer.to_dict("records"):
        place = defences.index(row["to_defence"]), defences.index(row["from_defence"])
        dark = luminance(image.to_rgba(100 * row["degradation"])) < 0.18
        axes.text(*place, _moved(row), ha="center", va="center", color="white" if dark else "black", fontsize=7)
        if row["from_defence"] == row["to_defence"]:
            _frame(axes, place)
    axes.set_xticks(range(len(defences)), defences, rotation=20, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(defences)), defences)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="applied to", ylabel="found for")
    axes.set_title(title)
    figure.colorbar(image, label="degradation (points)", pad=0.02)
    return figure


def _moved(row: Mapping[Any, Any]) -> str:
    """Return the degradation, and beside the diagonal how it differs from that under the defence's own strength."""
    change = "" if row["from_defence"] == row["to_defence"] else f"\n({-100 * row['lost']:+z.1f})"
    return f"{100 * row['degradation']:.1f}{change}".replace("-", "\N{MINUS SIGN}")


def _frame(axes: Axes, place: tuple[int, int]) -> None:
    for width, shade in ((3.2, "white"), (1.4, "black")):
        corner = place[0] - 0.46, place[1] - 0.44
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=shade, linewidth=width))


def _known(half_width: pd.Series) -> pd.Series:
    """Return half widths in percentage points, 0 (no bar) where there is none."""
    return 100 * half_width.fillna(0)


def _range(*tables: pd.DataFrame) -> tuple[float, float]:
    """Return limits (percentage points) that hold every point with its interval, cut to what is possible."""
    half_widths = [(table, table["degradation_half_width"].fillna(0)) for table in tables]
    ends = pd.concat([table["degradation"] + sign * reach for table, reach in half_widths for sign in (-1, 1)])
    margin = 0.04 * (ends.max() - ends.min()) + 0.005
    low, high = np.clip([100 * (ends.min() - margin), 100 * (ends.max() + margin)], *LIMITS)
    return float(low), float(high)
