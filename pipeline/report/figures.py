"""From tables to figures, in one look. Sized for the full width of a two-column paper."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Figure  # report_text.py names the type, and imports no matplotlib
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from pipeline.core.files import replacing
from pipeline.report.analysis import worst_attacks

WIDTH = 7.0  # inches
COMFORTABLE = 7  # attacks beside each other in a heatmap; more of them need narrower text
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))
GREY = "#666666"
DIVERGED = "†"
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

READ_HEATMAP = (
    "A row is a defence, a column an attack; a cell holds the mean test accuracy after the last step with the half "
    "width of its interval over seeds, both in percent. The framed cell is the attack of the grid that hurts the "
    "defence of its row most; compare defences by their framed cells, not by their averages. A bright row does not "
    "prove a defence safe: every attack here has one fixed strength, and another strength or attack may do more. "
    "Where the intervals of two attacks overlap, which of them carries the frame is partly luck."
)
READ_CURVES = (
    "A panel is an attack, a line the mean validation accuracy of a defence over seeds, the band its interval, cut at "
    "0 and 100 %; a defence has the same colour in every figure. Look at where a line settles and at how wide its "
    "band is: a wide band means that the seeds disagree, not that one run goes up and down. A line still rising at "
    "the right edge is not converged, so its last value says how fast training is under attack and not how well it "
    "would end. Do not read off the highest point of a line: results are taken after the last step."
)


@dataclass(frozen=True)
class LineStyle:
    """How a defence looks in every figure."""

    color: str
    linestyle: Any


@dataclass(frozen=True)
class Setting:
    """What every figure must say: chance level (fraction), confidence of the intervals, training steps."""

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
        return f"{100 * self.chance:.3g} %"


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


def uncertain(value: float, half_width: float) -> str:
    """Return ``mean ± half width`` of fractions, in percent; n/a for what is not known.

    Example:
        >>> uncertain(0.5, 0.012), uncertain(0.5, float("nan"))
        ('50.0 ± 1.2', '50.0 ± n/a')
    """
    numbers = (f"{100 * number:.1f}" if np.isfinite(number) else "n/a" for number in (value, half_width))
    return " ± ".join(numbers)


@in_house_style
def heatmap(compared: pd.DataFrame, partition: str, setting: Setting) -> Figure:
    """Draw mean test accuracy of defence x attack on one partition; the worst attack of each defence is framed."""
    rows = compared[compared["partition"] == partition]
    defences, attacks = list(rows["defence"].unique()), list(rows["attack"].unique())
    figure = Figure(figsize=(WIDTH, 1.4 + 0.42 * len(defences)))
    axes = figure.add_subplot()
    table = rows.pivot(index="defence", columns="attack", values="accuracy").loc[defences, attacks]
    image = axes.imshow(100 * table.to_numpy(), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    worst = set(worst_attacks(rows)[["defence", "attack"]].itertuples(index=False, name=None))
    between, size, rotation = (" ", 7.5, 0) if len(attacks) <= COMFORTABLE else ("\n", 6.5, 30)
    for row in rows.to_dict("records"):
        place = attacks.index(row["attack"]), defences.index(row["defence"])
        dark = luminance(image.to_rgba(100 * row["accuracy"])) < 0.18
        framed = (row["defence"], row["attack"]) in worst
        _annotate(axes, place, _cell_text(row, between), framed, "white" if dark else "black", size)
    axes.set_xticks(range(len(attacks)), attacks, rotation=rotation)
    axes.set_yticks(range(len(defences)), defences)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="attack", ylabel="defence")
    axes.set_title(f"Test accuracy (%) after {setting.steps} steps, partition {partition}")
    _heatmap_key(figure, image, setting)
    return figure


def _heatmap_key(figure: Figure, image: AxesImage, setting: Setting) -> None:
    bar = figure.colorbar(image, label="mean test accuracy (%)", pad=0.02)
    bar.ax.axhline(100 * setting.chance, color="white", linewidth=1.5)
    bar.ax.set_yticks([0, 20, 40, 60, 80, 100])
    figure.supxlabel(
        f"Mean ± half width of the {setting.interval}. Frame and bold: the defence's worst attack.\n"
        f"{DIVERGED}: runs diverged. Chance level: {setting.chance_percent} (line in the scale).",
        fontsize=7.5,
    )


def _cell_text(row: Mapping[Any, Any], between: str) -> str:
    mean, half_width = uncertain(row["accuracy"], row["accuracy_half_width"]).split(" ± ")
    return f"{mean}{DIVERGED if row['diverged'] else ''}{between}± {half_width}"


def luminance(rgba: Any) -> float:
    """Return the relative luminance of an sRGB colour, in [0, 1]; 0.18 reads as well in black as in white."""
    linear = ((np.array(rgba[:3]) + 0.055) / 1.055) ** 2.4
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _annotate(axes: Axes, place: tuple[int, int], text: str, worst: bool, colour: str, size: float) -> None:
    weight = "bold" if worst else "normal"
    axes.text(*place, text, ha="center", va="center", color=colour, fontsize=size, fontweight=weight)
    if worst:
        corner = place[0] - 0.46, place[1] - 0.42
        for width, shade in ((3.2, "white"), (1.4, "black")):
            axes.add_patch(Rectangle(corner, 0.92, 0.84, fill=False, edgecolor=shade, linewidth=width))


@in_house_style
def learning_curves(measured: pd.DataFrame, partition: str, styles: dict[str, LineStyle], setting: Setting) -> Figure:
    """Draw mean validation accuracy against steps on one partition: a panel an attack, a line a defence."""
    rows = measured[measured["partition"] == partition]
    attacks = list(rows["attack"].unique())
    figure, grid = panels(len(attacks), 1.75, "steps done")
    for axes, attack in zip(grid, attacks, strict=True):
        of_attack = rows[rows["attack"] == attack]
        for defence, curve in of_attack.groupby("defence", sort=False):
            band(axes, curve["steps_done"], curve["accuracy"], curve["accuracy_half_width"], styles[str(defence)])
        axes.axhline(100 * setting.chance, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        axes.set(title=attack, ylim=(0, 102), xlim=(0, rows["steps_done"].max()))
    figure.supylabel("validation accuracy (%)", fontsize=8)
    figure.suptitle(f"Learning curves, partition {partition}: mean and {setting.interval}", fontsize=8.5)
    _curve_legend(figure, {name: styles[name] for name in styles if name in set(rows["defence"])}, setting)
    return figure


def _curve_legend(figure: Figure, styles: dict[str, LineStyle], setting: Setting) -> None:
    chance = Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label=f"chance, {setting.chance_percent}")
    lines = [Line2D([], [], color=look.color, linestyle=look.linestyle, label=name) for name, look in styles.items()]
    band = Patch(color=GREY, alpha=0.25, linewidth=0, label="interval")
    figure.legend(handles=[*lines, chance, band], loc="outside lower center", ncols=4)


def band(
    axes: Axes, x: pd.Series, y: pd.Series, half_width: pd.Series, look: LineStyle, limits: tuple[int, int] = (0, 100)
) -> None:
    """Draw fractions ``y`` in percent as a line, with their intervals as a band that is cut at ``limits`` (percent)."""
    axes.plot(x, 100 * y, color=look.color, linestyle=look.linestyle)
    low, high = (100 * (y + sign * half_width.fillna(0)) for sign in (-1, 1))
    axes.fill_between(
        x, low.clip(lower=limits[0]), high.clip(upper=limits[1]), color=look.color, alpha=0.15, linewidth=0
    )


def panels(count: int, height: float, xlabel: str) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels of that height (inches), up to three side by side, that share their axes."""
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
