"""The look of all figures, and the pieces that several of them are made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.core.files import replacing
from pipeline.report.wording import percent

WIDTH = 7.0  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))
GREY = "#666666"
LOOK = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
}
in_house_style = style.context(["default", LOOK])
SHORT = 30  # characters of a title that leave room for the rest beside them


@dataclass(frozen=True)
class LineStyle:
    """How a defence looks in every figure."""

    color: str
    linestyle: Any


@dataclass(frozen=True)
class FigureContext:
    """What all figures share.

    Attributes:
        styles: The look of each defence.
        chance: The accuracy of guessing, a fraction.
        confidence: Of the intervals.
        steps: How long training lasts.
    """

    styles: dict[str, LineStyle]
    chance: float
    confidence: float
    steps: int

    @property
    def interval(self) -> str:
        """The interval, in words."""
        return f"{100 * self.confidence:g} % t-interval over seeds"

    @property
    def chance_percent(self) -> str:
        """The accuracy of guessing, with its unit."""
        return f"{percent(self.chance)} %"

    def title(self, what: str, partition: str) -> str:
        """Return the title of a figure with intervals."""
        between = "\n" if len(what) > SHORT else " "
        return f"{what}:{between}partition {partition}, mean and {self.interval}"


def line_styles(defences: Iterable[str]) -> dict[str, LineStyle]:
    """Return a look for each defence, by its place in the list."""
    return {
        name: LineStyle(COLOURS[i % len(COLOURS)], DASHES[(i + i // len(COLOURS)) % len(DASHES)])
        for i, name in enumerate(defences)
    }


@in_house_style
def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG, atomically; equal figures give equal bytes."""
    with replacing(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png", metadata={"Software": None})


def panels(count: int, height: float, xlabel: str) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels of that height (inches) that share their axes, up to three side by side."""
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.9 + height * rows))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    for axes in grid[columns * (rows - 1) : count]:
        axes.set_xlabel(xlabel)
    return figure, list(grid[:count])


def band(
    axes: Axes, x: pd.Series, y: pd.Series, half_width: pd.Series, look: LineStyle, limits: tuple[int, int] = (0, 100)
) -> None:
    """Draw fractions ``y`` in percent as a line, with their intervals as a band that is cut at ``limits`` (percent)."""
    axes.plot(x, 100 * y, color=look.color, linestyle=look.linestyle)
    low, high = (100 * (y + sign * half_width.fillna(0)) for sign in (-1, 1))
    axes.fill_between(
        x, low.clip(lower=limits[0]), high.clip(upper=limits[1]), color=look.color, alpha=0.15, linewidth=0
    )


def entry(label: str, **look: Any) -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], label=label, **look)


def band_entry() -> Patch:
    """Return the legend's entry for the bands."""
    return Patch(color=GREY, alpha=0.25, linewidth=0, label="interval")


def caption(figure: Figure, title: str, entries: Sequence[Any], columns: int, ylabel: str | None = None) -> None:
    """Give a figure of panels its title, a legend below them in so many columns, and their common label."""
    if ylabel is not None:
        figure.supylabel(ylabel, fontsize=8)
    figure.suptitle(title, fontsize=8.5)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)
