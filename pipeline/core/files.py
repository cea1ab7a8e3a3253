"""Files that are whole or absent: written under a temporary name beside their target, then renamed. And their hashes.

A temporary name starts with ``WRITING``, which .gitignore and .dvcignore hold: what a killed process leaves counts for
nothing.
"""

import errno
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError

WRITING = ".writing-"


def root() -> Path:
    """Return the folder of params.yaml: the working folder; ``DVC_ROOT`` is another one in a DVC experiment."""
    return Path.cwd()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends without an error."""
    temporary = temporary_in(path.parent)
    try:
        with naming(path):
            yield temporary
        temporary.replace(path)
    except IsADirectoryError:
        raise UserError(f"{path}: a folder stands where a file is to be written; move it away") from None
    finally:
        with suppress(OSError):  # it is gone, or on a disk that can only be read: the first error says so
            temporary.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have what the system refuses in the block name ``path``, where it names no file or a temporary one."""
    try:
        yield
    except OSError as error:
        named = "" if error.filename is None else Path(str(error.filename)).name
        if error.errno is not None and (not named or named.startswith(WRITING)):
            error.filename = str(path)
        raise


def temporary_in(folder: Path) -> Path:
    """Return a new path inside ``folder``, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{WRITING}{uuid.uuid4().hex[:8]}"


@contextmanager
def refilling(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; what is in it becomes all that ``folder`` holds when the block ends without an error.

    The folder itself stays, so it may be a link or a mount.
    """
    temporary = temporary_in(folder)
    try:
        with naming(folder):
            temporary.mkdir()
            yield temporary
        for old in [found for found in folder.iterdir() if found != temporary]:
            remove(old)
        for new in temporary.iterdir():
            new.rename(folder / new.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; to another file system it is copied, and removed once ``target`` is whole."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = temporary_in(target.parent)
        if _is_folder(source):
            shutil.copytree(source, copy, symlinks=True)
        else:
            shutil.copy2(source, copy, follow_symlinks=False)
        copy.rename(target)
        remove(source)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON; NaN and infinity are an error, absent numbers are null."""
    write_text(path, _as_text(value))


def _as_text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Return the parsed content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as :func:`write_json` does, with its ``checksum``."""
    write_json(path, {**value, "checksum": content_hash(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what :func:`write_sealed` wrote.

    Raises:
        ValueError: A byte of the file is not as it was written.
    """
    text = path.read_bytes().decode("utf-8")
    value: dict[str, Any] = json.loads(text)
    if not isinstance(value, dict) or _as_text(value) != text or value.pop("checksum", "") != content_hash(value):
        raise ValueError(f"{path.name} is not as it was written")
    return value


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of ``value`` as canonical JSON.

    Example:
        >>> content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
        True
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
