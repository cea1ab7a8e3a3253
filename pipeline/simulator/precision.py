"""What computes: the backend of the gradients, and what PyTorch and the C library are told, by model and device."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.core.errors import UserError
from pipeline.simulator.cell import Training
from pipeline.simulator.gradients import BACKENDS, Backend
from pipeline.simulator.models import Model, Network


def backend_name(name: str, model: Model, device: torch.device) -> str:
    """Return the backend that ``execution.gradients`` stands for; "auto" is the fastest for this model and device."""
    if name != "auto":
        return name
    return model.cpu_gradients if device.type == "cpu" else "vmap"


def backend(name: str, model: Model, device: torch.device) -> Backend:
    """Return the function of :func:`backend_name`.

    Raises:
        UserError: ``chain`` was chosen for a model that is not made of linear layers and ReLU.
    """
    if name == "chain" and model.cpu_gradients != "chain":
        raise UserError(f"execution.gradients = 'chain': needs a model of linear layers and ReLU, not {model.name!r}")
    return BACKENDS[backend_name(name, model, device)]


def one_at_a_time(network: Network, device: torch.device) -> bool:
    """Return whether replicas are evaluated one after the other: a CPU is faster with one's convolutions at a time."""
    return network.convolutional and device.type == "cpu"


@contextmanager
def kernels_chosen(training: Training, together: bool) -> Iterator[None]:
    """Choose PyTorch's kernels for convolutions and for a GPU's products while the context lasts.

    oneDNN chooses a convolution by its shape: it is not used where replicas share a call (``together``), whose last
    bits would depend on each other.
    """
    onednn = torch.backends.mkldnn.set_flags(not together)  # type: ignore[no-untyped-call]
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32" if training.tf32 else "ieee"
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(*onednn)  # type: ignore[no-untyped-call]
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def keep_freed_memory() -> None:
    """Have the C library hand out again what is freed, instead of returning it to the system, in this process.

    Fresh memory costs a page fault every 4 KB. With replicas whose vectors take more than 32 MB together, that was half
    of the time of a step.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # as in malloc.h of the GNU C library
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(trim_threshold, 2**31 - 1)
            library.mallopt(mmap_threshold, 2**31 - 1)
