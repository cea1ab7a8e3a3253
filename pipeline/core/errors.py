"""The one exception a user can cause: shown as a message without a traceback, exit code 1."""

import difflib
from collections.abc import Iterable


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
