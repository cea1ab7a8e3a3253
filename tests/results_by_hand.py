"""A project of a few results written by hand, in a git repository of its own."""

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from support import ROOT

from pipeline.__main__ import main
from pipeline.core.files import write_json

KRUM = {
    "clean": 0.9,
    "clean_half_width": 0.02,
    "worst_attack": "ipm",
    "accuracy": 0.6,
    "accuracy_half_width": 0.1,
    "degradation": 0.3,
    "degradation_half_width": 0.05,
    "found_attack": "alie",
    "found_strength": 1.5,
    "found_accuracy": 0.2,
    "found_accuracy_half_width": 0.15,
    "found_degradation": 0.7,
    "found_degradation_half_width": 0.03,
}
MEAN = {"clean": 0.9, "worst_attack": "ipm", "accuracy": 0.1, "accuracy_half_width": 0.0}
FOUND = {
    "found_attack": "ipm",
    "found_parameters": '{"strength": 1.5}',
    "found_accuracy": 0.2,
    "found_accuracy_half_width": 0.15,
    "literature_attack": None,
    "literature_accuracy": None,
    "literature_accuracy_half_width": None,
    "difference": None,
    "p": 0.01,
    "significant": True,
}
SUMMARY = {"grid": {"iid": {"krum": KRUM, "mean": MEAN}}, "search": {"ipm": {"krum": FOUND}}}


def changed(path, changes) -> dict:
    """``SUMMARY`` with values changed in the row at a dotted path."""
    summary = deepcopy(SUMMARY)
    part, group, defence = path.split(".")
    summary[part][group][defence] |= changes
    return summary


def write_results(root: Path, summary=SUMMARY) -> Path:
    """The summary, and the files of its grid's rows."""
    write_json(root / "results" / "summary.json", summary)
    for partition, defences in summary["grid"].items():
        for defence, row in defences.items():
            write_json(root / "results" / "metrics" / f"{partition}.{defence}.json", row)
    return root


def git(root, *arguments) -> str:
    who = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def commit(root) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "state")


def write_project(root: Path) -> Path:
    """Parameters and results, not yet in git."""
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_bytes((ROOT / "tests" / "params.yaml").read_bytes())
    (root / ".gitignore").write_text(".cellcache/\n/reports/\n")
    return write_results(root)


def committed_project(root: Path) -> Path:
    write_project(root)
    git(root, "init", "--quiet")
    commit(root)
    return root


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class Printed(NamedTuple):
    out: str
    err: str


def run(root, *arguments) -> tuple[int, Printed]:
    """``python -m pipeline compare`` in a folder: its exit code, and what it prints."""
    out, err = StringIO(), StringIO()
    with chdir(root), patch.dict(os.environ), patch.object(sys, "argv", ["pipeline", "compare", *arguments]):
        os.environ.pop("DVC_ROOT", None)
        with redirect_stdout(out), redirect_stderr(err):
            code = main()
    return code, Printed(out.getvalue(), err.getvalue())


def counts(printed) -> dict[str, list[str]]:
    """The table of counts: verdict -> a number a column."""
    table = printed.split("\n\n")[1].splitlines()
    return {line[:20].strip(): line[20:].split() for line in table}
