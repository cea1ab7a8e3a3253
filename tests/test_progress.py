"""A bar on a terminal, a few plain lines elsewhere."""

import io
import sys
from threading import Thread

import pytest

from pipeline.runs.progress import Detail, WholeLines, progress, telling


def on_a_terminal(monkeypatch) -> io.StringIO:
    """Make standard error a terminal; return what it shows."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_plain_lines_come_at_each_quarter_with_the_last_note(capsys):
    with progress("train alie", 10, "step") as bar:
        for done in range(10):
            bar.advance(1, f"accuracy {done}")
    assert capsys.readouterr().out.splitlines() == [
        "train alie: 30 % accuracy 2",
        "train alie: 50 % accuracy 4",
        "train alie: 80 % accuracy 7",
        "train alie: 100 % accuracy 9",
    ]


def test_a_large_advance_is_one_line_and_a_note_is_optional(capsys):
    with progress("search", 8, "cell") as bar:
        bar.advance(7)
        bar.advance(1)
    assert capsys.readouterr().out.splitlines() == ["search: 87 %", "search: 100 %"]


def test_no_work_shows_nothing(monkeypatch, capsys):
    with progress("train alie", 0, "step"):
        pass
    assert "".join(capsys.readouterr()) == ""
    screen = on_a_terminal(monkeypatch)
    with progress("train alie", 0, "step"):
        pass
    assert screen.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_title_the_note_and_the_end(monkeypatch, capsys):
    screen = on_a_terminal(monkeypatch)
    with progress("train alie", 4, "step") as bar:
        for done in range(4):
            bar.advance(1, f"accuracy {done}")
    assert "train alie: 100%" in screen.getvalue()
    assert "4/4" in screen.getvalue()
    assert "accuracy" in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_lines_of_several_threads_do_not_mix():
    screen = io.StringIO()
    lines = WholeLines(screen)
    lines.write("train ipm: 6 cells")
    other = Thread(target=lambda: print("train none: 12 cells", file=lines))
    other.start()
    other.join()
    lines.write(", 6 to train\n")
    assert screen.getvalue() == "train none: 12 cells\ntrain ipm: 6 cells, 6 to train\n"


@pytest.mark.parametrize(("detail", "lines"), [(Detail.QUIET, 0), (Detail.NORMAL, 0), (Detail.VERBOSE, 10)])
def test_more_or_less_is_told_on_a_terminal(detail, lines, monkeypatch, capsys):
    screen = on_a_terminal(monkeypatch)
    with telling(detail):
        print("train alie: 10 cells")
        with progress("train alie", 10, "step") as bar:
            for done in range(10):
                bar.advance(1, f"accuracy {done}")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == (lines + 1 if detail is not Detail.QUIET else 0)
    assert ("10/10" in screen.getvalue()) == (detail is Detail.NORMAL)
    print("after")
    assert capsys.readouterr().out == "after\n"
