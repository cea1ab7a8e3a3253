"""Files from mirrors: folders behind an http(s) or file address, or on this machine."""

import hashlib
import http.client
import shutil
import sys
from http import HTTPStatus
from pathlib import Path
from typing import IO, NoReturn
from urllib.request import Request, url2pathname, urlopen

from tqdm import tqdm

from pipeline.core.files import root

STALLED_AFTER = 30.0  # seconds without data before a connection is given up
PIECE = 1 << 16  # bytes
WEB = ("http://", "https://")


class FetchError(Exception):
    """A mirror did not deliver a file; the text says why."""


def fetch(location: str, target: Path, md5: str) -> None:
    """Fetch a file under a temporary name, and rename it once its checksum is verified.

    Args:
        location: An http(s) address or the path of a file: :func:`located`.
        target: Where the file goes.
        md5: Its checksum.

    Raises:
        FetchError: The mirror is silent, lacks the file, sends a web page instead, or a file with another checksum.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        if location.startswith(WEB):
            _download(location, part)
        else:
            shutil.copyfile(location, part)
        if (found := hashlib.md5(part.read_bytes()).hexdigest()) != md5:
            raise FetchError(f"{_described(part)} with the md5 checksum {found}")
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(str(error) or type(error).__name__) from None
    finally:
        part.unlink(missing_ok=True)


def located(mirror: str, name: str) -> str:
    """Return the address, or for a folder on this machine the path, of the file ``name`` on a mirror.

    Example:
        >>> located("http://127.0.0.1/mnist", "a.gz"), located("file:///data/mnist/", "a.gz")
        ('http://127.0.0.1/mnist/a.gz', '/data/mnist/a.gz')
    """
    if mirror.startswith(WEB):
        return f"{mirror.rstrip('/')}/{name}"
    return str(root() / url2pathname(mirror.removeprefix("file://")) / name)


def _download(url: str, part: Path) -> None:
    """Download into ``part``; a connection that is cut is taken up again as long as that brings new bytes."""
    with part.open("wb") as file:
        most = -1
        while file.tell() > most:
            most = file.tell()
            try:
                if _receive(url, file):
                    return
                fault = "cut"
            except (http.client.IncompleteRead, ConnectionError):
                fault = "cut"
            except TimeoutError:
                fault = f"silent for {STALLED_AFTER:g} s"
        raise FetchError(f"the connection was {fault} after {file.tell()} bytes, and again when it was taken up")


def _receive(url: str, file: IO[bytes]) -> bool:
    """Append what ``file`` lacks, or write it anew where the server cannot resume; return whether it is whole."""
    asked = Request(url, headers={"Range": f"bytes={file.tell()}-"} if file.tell() else {})
    with urlopen(asked, timeout=STALLED_AFTER) as answer:
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
        length, start = answer.headers.get("Content-Length"), file.tell()
        total = None if length is None else start + int(length)
        with _bar(url.rpartition("/")[2], total, start) as bar:
            while piece := answer.read1(PIECE):
                bar.update(file.write(piece))
    return total in (None, file.tell())


def _bar(name: str, total: int | None, start: int) -> "tqdm[NoReturn]":
    """Return a bar with rate and remaining time, which shows on a terminal alone."""
    shown = sys.stderr.isatty()
    return tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=not shown)


def _described(part: Path) -> str:
    """Return what was delivered instead of the file, judged by how it begins."""
    with part.open("rb") as stream:
        begins = stream.read(200).lstrip().lower()
    return "an HTML page" if begins.startswith((b"<!doctype html", b"<html")) else "another or a damaged file"
