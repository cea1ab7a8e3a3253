"""``python -m pipeline compare``: the current results beside those of a git revision or of another folder.

A row (:mod:`pipeline.report.result_rows`) is

- ``identical``: all values are equal;
- ``same accuracy``: all accuracies and differences of accuracies are equal, other values are not;
- ``within the interval``: no accuracy differs by more than the half width of its interval;
- ``outside``: an accuracy differs by more, or differs and has no interval, or is missing on one side;
- ``another attack found``: the name of an attack differs, whatever the accuracies are;
- ``only here`` or ``only there``: the other side does not have it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.report import computed_on
from pipeline.report.paired import SAME
from pipeline.report.result_rows import Key, Row, Rows, Side, opened, read_both
from pipeline.runs import params

IDENTICAL, SAME_ACCURACY, WITHIN = "identical", "same accuracy", "within the interval"
OUTSIDE, ANOTHER_ATTACK = "outside", "another attack found"
ONLY_HERE, ONLY_THERE = "only here", "only there"
TITLES = (IDENTICAL, SAME_ACCURACY, WITHIN, OUTSIDE, ANOTHER_ATTACK, ONLY_HERE, ONLY_THERE)
ACCURACIES = {
    "accuracy",
    "clean",
    "degradation",
    "difference",
    "gain",
    "lost",
    "own",
}  # the last word of a column's name


@dataclass(frozen=True)
class Judged:
    """How a row compares.

    Attributes:
        verdict: One of ``TITLES``.
        attacks: Its columns in which the sides name different attacks.
        outside: Its accuracies that lie outside their intervals.
    """

    verdict: str
    attacks: Sequence[str] = ()
    outside: Sequence[str] = ()


def compare(root: Path, to: str) -> int:
    """Print how the results in ``root`` compare with those of ``to``; the verdict is the last line.

    Args:
        root: The project's folder.
        to: Another folder, or a revision of the git repository.

    Returns:
        The exit code: 0 if the sides share a row and none is outside, whichever attacks were found.

    Raises:
        UserError: There is no such revision, or the results of a side are missing or damaged.
    """
    with opened(root, to) as there:
        here = Side("here", root)
        ours, theirs = read_both(here, there)
        rows = {key: judge(key, ours, theirs) for key in theirs | ours}
        lines = [f"The results here beside those of {to}", "", *_counts(rows), *_details(rows, ours, theirs)]
        lines += ["", *_machines(here, there), "", "report: reports/report.html"]
        print("\n".join([*lines, _verdict(rows, to, _same_question(here, there))]))
    return int(_fails(rows))


def judge(key: Key, ours: Rows, theirs: Rows) -> Judged:
    """Return how one row compares."""
    if key not in ours or key not in theirs:
        return Judged(ONLY_HERE if key in ours else ONLY_THERE)
    here, there = ours[key], theirs[key]
    different = [name for name in there | here if here.get(name) != there.get(name)]
    accuracies = [name for name in different if name.split("_")[-1] in ACCURACIES]
    outside = [name for name in accuracies if not _within(name, here, there, half_width(name, key, ours, theirs))]
    attacks = [name for name in different if name.endswith("attack") and here.get(name) and there.get(name)]
    ordered = {ANOTHER_ATTACK: attacks, OUTSIDE: outside, WITHIN: accuracies, SAME_ACCURACY: different}
    return Judged(next((verdict for verdict, names in ordered.items() if names), IDENTICAL), attacks, outside)


def _within(name: str, here: Row, there: Row, width: float | None) -> bool:
    mine, other = here.get(name), there.get(name)
    if width is None or not isinstance(mine, int | float) or not isinstance(other, int | float):
        return False
    return abs(mine - other) <= width + SAME


def half_width(name: str, key: Key, ours: Rows, theirs: Rows) -> float | None:
    """Return how much an accuracy may differ: the half width of the other side, or of this side if the other has none.

    Where neither side has one for this column, that of the row's accuracy or degradation is taken. A single run takes
    that of the mean over its seeds. None where there is none at all, as with one seed.
    """
    if key[0] == "cells.csv":
        key = ("comparison.csv", *key[1:-1])
    columns = (f"{name}_half_width", "accuracy_half_width", "degradation_half_width")
    widths = [rows[key].get(column) for column in columns for rows in (theirs, ours) if key in rows]
    return next((width for width in widths if isinstance(width, int | float)), None)


def _counts(rows: dict[Key, Judged]) -> list[str]:
    """Return a table of counts: one line per verdict, one column per file or section that rows come from."""
    found = Counter((row.verdict, key[0]) for key, row in rows.items())
    places = list(dict.fromkeys(key[0] for key in rows))
    table = [["rows", *places, "all"]]
    for title in TITLES:
        counts = [found[title, place] for place in places]
        table.append([title, *map(str, counts), str(sum(counts))])
    return _aligned(table)


def _details(rows: dict[Key, Judged], ours: Rows, theirs: Rows) -> list[str]:
    """Return the rows that name another attack or are outside, with values and intervals; then the one-sided rows."""
    lines: list[str] = []
    for key, row in rows.items():
        if row.attacks or row.outside:
            lines += ["", f"{row.verdict}: {' '.join(key)}"]
        lines += [f"  {name}: {_both(name, ours[key], theirs[key])}" for name in row.attacks]
        for name in row.outside:
            width = half_width(name, key, ours, theirs)
            interval = "no interval" if width is None else f"interval ± {width:.4g}"
            lines.append(f"  {name}: {_both(name, ours[key], theirs[key])}, {interval}")
    for title in (ONLY_HERE, ONLY_THERE):
        one_sided = [f"  {' '.join(key)}" for key, row in rows.items() if row.verdict == title]
        lines += ["", f"{title}:", *one_sided] if one_sided else []
    return lines


def _both(name: str, here: Row, there: Row) -> str:
    values = ("nothing" if row.get(name) is None else row[name] for row in (here, there))
    return "{} here, {} there".format(*values)


def _machines(here: Side, there: Side) -> list[str]:
    """Return a table of the processors and versions of both sides."""
    machines = [computed_on.of_results(side.folder) for side in (here, there)]
    table = [["computed on", here.name, there.name]]
    for field in computed_on.FIELDS:
        known = ["unknown" if machine is None else str(machine.get(field) or "none") for machine in machines]
        table.append([field, *known])
    return _aligned(table)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]


def _same_question(here: Side, there: Side) -> bool:
    """Return whether both params.yaml ask for the same results; the section ``execution`` changes none."""
    asked = params.load(here.folder / "params.yaml")
    try:
        other = params.load(there.folder / "params.yaml")
    except UserError:  # missing, or of a version with other parameters
        return False
    return asked == other.replace(execution=asked.execution)


def _verdict(rows: dict[Key, Judged], to: str, same_question: bool) -> str:
    """Return the last line, which sums everything up."""
    found = Counter(row.verdict for row in rows.values())
    shared = len(rows) - found[ONLY_HERE] - found[ONLY_THERE]
    if not same_question:
        head = f"another question was asked, params.yaml differs from {to}"
    elif _fails(rows):
        head = "NOT reproduced"
    else:
        head = "reproduced in part" if found[ONLY_THERE] else "reproduced"
    others = [f"{title}: {found[title]}" for title in TITLES[1:] if found[title]]
    line = f"compare: {head}: {found[IDENTICAL]} of {shared} rows identical to {to}"
    return f"{line} ({', '.join(others)})" if others else line


def _fails(rows: dict[Key, Judged]) -> bool:
    one_sided = all(row.verdict in (ONLY_HERE, ONLY_THERE) for row in rows.values())
    return one_sided or any(row.outside for row in rows.values())
