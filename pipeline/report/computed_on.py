"""On which processor, and with which versions, the current results were computed.

``results/computed_on.json`` is in git and describes the results beside it. A machine that gets the same bytes leaves it
alone, so that a reproduction changes no file in git; ``.cellcache/computed_on.json`` says what this machine computed
last. Each holds a hash of the results it describes, and is ignored for any others. The machine is the one that ran the
stage ``analysis``: training results that were pulled from elsewhere do not say where they come from.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import TypeAdapter

from pipeline.core.files import content_hash, file_hash, read_json, write_json
from pipeline.core.paths import CACHE

TRACKED = Path("results/computed_on.json")
OWN = CACHE / "computed_on.json"
PACKAGES = ("torch", "numpy", "scipy", "optuna", "numba")
FIELDS = ("processor", "cores", "gpu", "platform", "python", *PACKAGES)
Machine = dict[str, str | int | None]


def record(root: Path, device: torch.device) -> None:
    """Write down that this machine computed the results in ``root``.

    Args:
        root: The project's folder.
        device: What the training ran on.
    """
    computed_on = {"results": results_hash(root), **machine(device)}
    write_json(root / OWN, computed_on)
    if _read(root / TRACKED).get("results") != computed_on["results"]:
        write_json(root / TRACKED, computed_on)


def of_results(root: Path) -> Machine | None:
    """Return the machine that computed the results in ``root``, None where no record describes them."""
    results = results_hash(root)
    records = (_read(root / path) for path in (OWN, TRACKED))
    return next((found for found in records if found.get("results") == results), None)


def results_hash(root: Path) -> str:
    """Return the hash of ``results/summary.json`` and ``results/metrics``."""
    files = [root / "results" / "summary.json", *(root / "results" / "metrics").glob("*.json")]
    return content_hash({path.name: file_hash(path) for path in files})


def machine(device: torch.device) -> Machine:
    """Return ``FIELDS`` of this machine; ``gpu`` is None where the device is the processor."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name with its family and model numbers: on rented machines the name is often vague."""
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    first = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0]
    described = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    numbers = [f"{name} {described[name]}" for name in ("cpu family", "model", "stepping") if name in described]
    if "model name" not in described:
        return platform.processor() or platform.machine()
    return f"{described['model name']} ({', '.join(numbers)})" if numbers else described["model name"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> Machine:
    """Return a record, empty where it is missing or cannot be read: the next analysis writes it anew."""
    try:
        found: Machine = TypeAdapter(Machine).validate_python(read_json(path))
    except (OSError, ValueError):
        return {}
    return found
