"""What runs on a cluster: the workers' side of ``cluster.py``."""

import os
import pickle
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.files import replacing
from pipeline.runs.pool import plain_errors

LETTER_ARRIVES_WITHIN = 5.0  # seconds


class Mailbox:
    """What the workers have told, until it is fetched."""

    def __init__(self) -> None:
        self._letters: dict[int, list[tuple[Any, ...]]] = {}

    def put(self, number: int, told: tuple[Any, ...]) -> None:
        """Keep what the worker on the task with that number tells."""
        self._letters.setdefault(number, []).append(told)

    def take(self, numbers: Sequence[int]) -> list[tuple[int, tuple[Any, ...]]]:
        """Return what was told on these tasks, in order for each, and keep it no longer."""
        return [(number, told) for number in numbers for told in self._letters.pop(number, [])]


class Setting(NamedTuple):
    """What a worker needs before its first task.

    Attributes:
        name: Under which a worker keeps what it has prepared.
        content: Bytes of a file.
        prepare: A pickled pair: a function, and what it is called with after the file.
    """

    name: str
    content: np.ndarray
    prepare: bytes


class Raised(NamedTuple):
    """What a task raised."""

    error: Exception


_kept: dict[str, Any] = {}  # what this worker has prepared, by the name of its setting


def work(setting: Setting, number: int, call: bytes, mailbox: Any) -> Any:
    """Return what a task's function returns, or what it raises.

    Args:
        setting: Of the pool.
        number: Under which the mailbox is told of this task.
        call: A pickled pair: the function, and its arguments between what was prepared and what it tells with.
        mailbox: Of the driver.
    """
    import ray

    last: list[Any] = []

    def tell(*told: Any) -> None:
        last[:] = [mailbox.put.remote(number, told)]

    try:
        with plain_errors():
            return _called(setting, call, tell)
    except Exception as error:
        return Raised(error)
    finally:
        if last:  # letters arrive in order: after the last one the driver may believe that the task has ended
            ray.wait(last, timeout=LETTER_ARRIVES_WITHIN)


def _called(setting: Setting, call: bytes, tell: Callable[..., None]) -> Any:
    try:
        _choose_gpu()
        function, arguments = pickle.loads(call)
        return function(_prepared(setting), *arguments, tell)
    except ModuleNotFoundError as error:
        raise UserError(
            f"execution.cluster: node {socket.gethostname()} has no package {error.name!r}; every node needs the "
            "environment of this one"
        ) from None


def _prepared(setting: Setting) -> Any:
    if setting.name not in _kept:
        _kept.clear()
        prepare, arguments = pickle.loads(setting.prepare)
        _kept[setting.name] = prepare(_written(setting), *arguments)
    return _kept[setting.name]


def _written(setting: Setting) -> Path:
    """Return the file, written by the first worker of a node to the folder of its code, which Ray removes."""
    path = Path.cwd() / f"{setting.name}.data"
    if not path.exists():
        with replacing(path) as temporary:
            setting.content.tofile(temporary)
    return path


def _choose_gpu() -> None:
    """Compute on the GPU that Ray has chosen for this task: the one before, in the same process, may have had another.

    PyTorch sees all GPUs of the node, as it looks but once which are visible.
    """
    import ray
    import torch

    given, visible = ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if given and torch.cuda.is_available():
        torch.cuda.set_device(visible.split(",").index(str(given[0])) if visible else int(given[0]))
