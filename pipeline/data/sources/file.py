"""A user's own data, from a file."""

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from torch import Tensor

from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, root
from pipeline.core.paths import RAW
from pipeline.data.arrays import Parts, checked
from pipeline.data.dataset import write_tensors
from pipeline.data.sources import SOURCES, Format, Source

UNREADABLE = (OSError, EOFError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error, SafetensorError)


@SOURCES.register
class File(Source):
    """Your own images or feature vectors, in an ``.npz`` or ``.safetensors`` file.

    The file holds the arrays ``train_inputs`` (images ``[N, C, H, W]`` or ``[N, H, W]``, or feature vectors
    ``[N, p]``; integers or floats) and ``train_labels`` (``[N]``, integers from 0 to C - 1, each of them present).
    If it also holds ``test_inputs`` and ``test_labels``, they are the test split, otherwise that is cut from the
    training arrays; the validation split always is.

    Inputs are normalised with the mean and the deviation of ``train_inputs``, per channel for images and per feature
    for vectors; a constant feature becomes 0. Without test arrays these are the statistics of all samples in the file.

    ``sha256`` states which file is meant, so that results cannot change because a file was replaced: a stage stops if
    the hash of the file at ``path`` is another one, and says which. Once downloaded, the file may be absent.
    """

    name: Literal["file"] = "file"
    path: str = Field(description="of the file, relative to the folder of params.yaml")
    sha256: str | None = Field(None, description="of the file; if it is left out, the error message tells it")
    formula: ClassVar[str] = "arrays from an .npz or .safetensors file of yours"

    @property
    def format(self) -> Format:
        """Read from the raw file if that was made from this file, otherwise from the file itself."""
        try:
            format = self.format_of(self.raw_file(root() / RAW))
        except (OSError, SafetensorError, KeyError, ValueError):
            return self._read()[1]
        if self._file.is_file():
            self._check_hash()
        return format

    def format_of(self, raw: Path) -> Format:
        """Return the format that ``download`` wrote into the raw file; see :meth:`Source.format_of`."""
        with safe_open(raw, framework="pt") as file:
            written = json.loads((file.metadata() or {})["format"])
        if written.pop("sha256") != self.sha256:
            raise ValueError("made from a file with another sha256")
        return TypeAdapter(Format).validate_python(written)

    def download(self, folder: Path) -> None:
        """Check the arrays and write the raw file, with their format; see :meth:`Source.download`."""
        parts, format = self._read()
        tensors: dict[str, Tensor] = {}
        for part, (inputs, labels) in parts.items():
            tensors |= {f"{part}_images": inputs, f"{part}_labels": labels}
        described = json.dumps({"sha256": self.sha256, **asdict(format)})  # one entry: the order of several varies
        write_tensors(self.raw_file(folder), tensors, {"format": described})

    @property
    def _file(self) -> Path:
        return root() / self.path

    def _read(self) -> tuple[Parts, Format]:
        """Return what the file holds, checked."""
        reader = READERS.get(self._file.suffix)
        if reader is None:
            raise self._fault(f"unknown suffix {self._file.suffix!r}; {allowed(self._file.suffix, READERS)}")
        if not self._file.exists():
            raise self._fault(f"no such file in {root()}")
        if self._file.is_dir():
            raise self._fault("is a folder, not a file")
        self._check_hash()
        try:
            arrays = reader(self._file)
        except UNREADABLE as error:
            raise self._fault(f"cannot be read as {self._file.suffix} with arrays of numbers ({error})") from None
        try:
            return checked(arrays)
        except UserError as error:
            raise self._fault(str(error)) from None

    def _check_hash(self) -> None:
        found = file_hash(self._file)
        if self.sha256 is None:
            raise UserError(f"data.source.sha256: missing; that of {self.path} is {found}")
        if self.sha256 != found:
            raise UserError(
                f"data.source.sha256 = {self.sha256!r}: is not that of {self.path}, which is {found}; "
                "set it if that is the file you mean"
            )

    def _fault(self, message: str) -> UserError:
        return UserError(f"data.source.path = {self.path!r}: {message}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {".npz": _read_npz, ".safetensors": load_file}
