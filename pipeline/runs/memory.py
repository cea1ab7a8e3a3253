"""How much memory this process may still take."""

from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OF_THIS_PROCESS = Path("/proc/self/cgroup")


def available() -> int:
    """Return the bytes that can be had without swapping, within the limits of the control groups (containers)."""
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups()]))


def _left_in_groups() -> Iterator[int]:
    """Yield what each limited control group around this process leaves; the file cache does not count as used."""
    for folder, names in _groups():
        limit = _number(folder / names[0])
        used = _number(folder / names[1])
        if limit is not None and used is not None:
            yield limit - used + _cache(folder / "memory.stat", names[2])


def _groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the folder of each group around this process, with the names of its limit, its use and its cache."""
    for line in _lines(OF_THIS_PROCESS):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        here = base / path.strip("/")
        yield from ((folder, names) for folder in (here, *here.parents) if folder.is_relative_to(base))


def _cache(stat: Path, name: str) -> int:
    found = [int(value) for key, value in map(str.split, _lines(stat)) if key == name]
    return found[0] if found else 0


def _number(file: Path) -> int | None:
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None  # "max": no limit


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
