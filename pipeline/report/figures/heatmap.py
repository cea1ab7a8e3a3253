"""Tables of percentages as colours, with the numbers written in."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from pipeline.report.figures.style import WIDTH

Place = tuple[int, int]  # column, row


def coloured(table: pd.DataFrame, margin: float, **labels: Any) -> tuple[Figure, Axes, AxesImage]:
    """Draw a table of fractions as coloured cells, on a scale from 0 to 100 %.

    Args:
        table: Its index and columns name the rows and columns.
        margin: Height of everything above and below the cells, in inches.
        labels: Text properties of the column names.
    """
    figure = Figure(figsize=(WIDTH, margin + 0.42 * len(table)))
    axes = figure.add_subplot()
    image = axes.imshow(100 * table.to_numpy(), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(table.columns)), list(table.columns), **labels)
    axes.set_yticks(range(len(table)), list(table.index))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes, image


def write(image: AxesImage, place: Place, text: str, value: float, **font: Any) -> None:
    """Write into the cell that holds ``value``, in white where the cell is dark."""
    dark = luminance(image.to_rgba(np.array(100 * value))) < 0.18
    image.axes.text(*place, text, ha="center", va="center", color="white" if dark else "black", **font)


def frame(axes: Axes, place: Place, height: float) -> None:
    """Draw a black frame with a white edge around a cell."""
    corner = place[0] - 0.46, place[1] - height / 2
    for width, shade in ((3.2, "white"), (1.4, "black")):
        axes.add_patch(Rectangle(corner, 0.92, height, fill=False, edgecolor=shade, linewidth=width))


def luminance(rgba: Any) -> float:
    """Return the relative luminance of an sRGB colour, in [0, 1]; at 0.18, black and white text read equally well."""
    linear = ((np.array(rgba[:3]) + 0.055) / 1.055) ** 2.4
    return float(linear @ [0.2126, 0.7152, 0.0722])
