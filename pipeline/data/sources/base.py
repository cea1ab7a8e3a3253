"""The contract of a source of data."""

from abc import abstractmethod
from pathlib import Path

from pipeline.core.component import Component
from pipeline.data.format import Format


class Source(Component):
    """A set of labelled images or feature vectors: a name, and how to get it."""

    @property
    @abstractmethod
    def format(self) -> Format:
        """What the data look like.

        Raises:
            UserError: The data must be read to know this, and cannot be.
        """

    @abstractmethod
    def download(self, folder: Path) -> None:
        """Write ``folder/<name>.safetensors``, the raw file: ``<part>_images`` and ``<part>_labels`` of each part.

        The parts are train and, if the source has its own, test. Images are uint8 ``[N, C, H, W]`` and labels int64
        ``[N]``; where ``Format.brightest`` is None, "images" are numbers of any type, ``[N, *shape]``.

        Raises:
            UserError: The data cannot be obtained; nothing incomplete is left under a final name.
        """

    def raw_file(self, folder: Path) -> Path:
        """Return the path that ``download`` writes."""
        return folder / f"{self.name}.safetensors"

    def format_of(self, raw: Path) -> Format:  # noqa: ARG002
        """Return the format of the data in the raw file ``raw``.

        Raises:
            OSError, SafetensorError, KeyError, ValueError: The raw file says this itself, and is missing or damaged.
        """
        return self.format
