"""Progress of a stage: a bar with the remaining time on a terminal, plain lines otherwise."""

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm

LINES = 4  # plain lines a stage prints


class Progress(Protocol):
    """Something that is told how much work is done."""

    def advance(self, amount: int, note: str = "") -> None:
        """Add ``amount`` units of work; ``note`` says how the results look."""


class _Bar:
    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self.bar = bar

    def advance(self, amount: int, note: str = "") -> None:
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(amount)


class _Lines:
    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done = title, total, done

    def advance(self, amount: int, note: str = "") -> None:
        before, self.done = self.done, self.done + amount
        if before * LINES // self.total < self.done * LINES // self.total:
            print(f"{self.title}: {100 * self.done // self.total} % {note}".rstrip(), flush=True)


class WholeLines(io.TextIOBase):
    """Standard output for threads: what one writes appears when its line is whole."""

    def __init__(self, stream: TextIO) -> None:
        """Stand before ``stream``."""
        self._stream, self._own = stream, threading.local()

    def write(self, text: str) -> int:
        """Write the lines that are whole, and keep the rest."""
        whole, end, self._own.rest = (getattr(self._own, "rest", "") + text).rpartition("\n")
        self._stream.write(whole + end)
        return len(text)

    def flush(self) -> None:
        """Flush what is written."""
        self._stream.flush()


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Yield the progress of ``total`` units of work.

    Args:
        title: Stands before the bar or in each line.
        total: How many units there are; for 0 nothing is shown.
        unit: What is counted.
        done: Units that were done before; the remaining time is that of the others.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, desc=title, unit=unit, disable=total == 0) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(title, max(total, 1), done)
