"""The one exception a user can cause: shown as a message without a traceback, exit code 1."""

import difflib
import reprlib
from collections.abc import Iterable


class _Short(reprlib.Repr):
    """Shows what may be long, deep or, with aliases, larger than any memory."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 30
        self.maxstring = self.maxother = 200
        self.maxlong = 60

    def repr_int(self, x: int, level: int) -> str:
        """Python itself writes no number of more than 4300 digits."""
        return super().repr_int(x, level) if abs(x) < 10**1000 else "a number of more than 1000 digits"


def shown(value: object) -> str:
    """Return ``repr(value)``, cut where it is long.

    Example:
        >>> shown([1, 2]), len(shown([[[["a"] * 9] * 9] * 9] * 9))
        ('[1, 2]', 300)
    """
    text = _Short().repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


class UserError(Exception):
    """A wrong parameter, file, checksum or environment; the text says what, where and what would be right."""


def nearest(value: object, valid: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the valid name nearest to ``value``, or an empty string.

    Example:
        >>> nearest("krumm", ["krum", "mean"])
        " - did you mean 'krum'?"
        >>> nearest("zzz", ["krum", "mean"])
        ''
    """
    matches = difflib.get_close_matches(str(value), list(valid), n=1)
    return f" - did you mean {matches[0]!r}?" if matches else ""
