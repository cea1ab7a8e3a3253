"""The picture of a partition: how many samples of each class every worker holds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pipeline.report.figures.style import WIDTH, in_house_style

NUMBERED = 20  # workers or classes at most, for their counts to be read
TICKS = 20  # at most, for workers and for classes


@in_house_style
def label_map(counts: np.ndarray, honest: int, partition: str, seed: int) -> Figure:
    """Draw how many samples of each class every worker holds, honest and Byzantine workers apart.

    Args:
        counts: ``[n, classes]``, honest workers first.
        honest: h, at least 1.
        partition: Its name in params.yaml.
        seed: The one for which the shares were drawn.
    """
    workers, classes = counts.shape
    groups = {"honest workers": range(honest), "Byzantine workers": range(honest, workers)}
    shown = {name: members for name, members in groups.items() if members}
    figure = Figure(figsize=(WIDTH, 1.1 + min(4.5, 0.2 * classes)))
    panels = figure.subplots(
        1, len(shown), sharey=True, squeeze=False, width_ratios=[len(members) for members in shown.values()]
    )[0]
    for axes, (name, members) in zip(panels, shown.items(), strict=True):
        held = counts[members.start : members.stop]
        image = _draw_group(axes, held, members, counts.max())
        if max(workers, classes) <= NUMBERED:
            _write_counts(axes, held, members.start + 1, counts.max())
        axes.set_xticks(_ticks(range(members.start + 1, members.stop + 1), workers))
        axes.set_xlabel(name)
    panels[0].set_ylabel("class")
    panels[0].set_yticks(_ticks(range(classes), classes))
    figure.colorbar(image, ax=list(panels), label="samples", pad=0.02)
    figure.suptitle(f"Training samples by worker and class, partition {partition}, seed {seed}", fontsize=8.5)
    return figure


def _draw_group(axes: Axes, counts: np.ndarray, members: range, most: int) -> AxesImage:
    """Draw the columns of some workers, numbered from 1, on a scale from 0 to ``most``."""
    edges = (members.start + 0.5, members.stop + 0.5, -0.5, counts.shape[1] - 0.5)
    image = axes.imshow(counts.T, cmap="Blues", vmin=0, vmax=most, aspect="auto", origin="lower", extent=edges)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(True)
    return image


def _write_counts(axes: Axes, counts: np.ndarray, first: int, most: int) -> None:
    """Write every count except 0 into its cell; ``first`` is the number of the first worker."""
    for (worker, label), count in np.ndenumerate(counts):
        if count:
            colour = "white" if count > 0.6 * most else "black"
            axes.text(first + worker, label, str(count), ha="center", va="center", color=colour, fontsize=6.5)


def _ticks(numbers: range, of: int) -> range:
    """Return the numbers to print: all, or every k-th so that of ``of`` numbers at most ``TICKS`` are left."""
    return numbers[:: -(-of // TICKS)]
