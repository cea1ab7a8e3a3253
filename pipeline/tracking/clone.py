"""Who publishes: the identity of this copy of the project, by which its runs are found again on any server."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from pipeline.core.files import read_json, write_json


class Clone(NamedTuple):
    """The identity of a copy of the project, and the one under which it published before it was copied."""

    id: str
    before: str


def identify(root: Path) -> Clone:
    """Return the identity of the project in ``root``: it moves along, while a copy of the folder gets another one.

    It stands in ``tracking/clone.json`` with the folder. Where that folder still holds it, this one is a copy.

    Args:
        root: The project's folder, resolved.
    """
    file = _file(root)
    known = _read(file)
    if known is None:
        new = uuid4().hex
        return Clone(new, new)
    original = _file(Path(known["folder"]))
    copied = original.exists() and not original.samefile(file) and _read(original) == known
    return Clone(uuid4().hex if copied else known["id"], known["id"])


def remember(root: Path, clone: Clone) -> None:
    """Write down the identity of the project in ``root``."""
    described = {"id": clone.id, "folder": str(root)}
    if _read(_file(root)) != described:
        write_json(_file(root), described)


def _file(root: Path) -> Path:
    return root / "tracking" / "clone.json"


def _read(file: Path) -> dict[str, Any] | None:
    """Return what the file holds, None if it is missing or damaged."""
    try:
        return {name: str(read_json(file)[name]) for name in ("id", "folder")}
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None
