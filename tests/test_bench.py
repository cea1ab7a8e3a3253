"""``python -m benchmarks`` at toy size: its file is complete, and what measures measures."""

import json
import math
import sys
import time

import pytest
import torch
from support import ROOT

from benchmarks import obvious, peer
from benchmarks.__main__ import main
from benchmarks.command import SECTIONS
from benchmarks.memory import peak_bytes
from benchmarks.timing import Conditions, alternating

CPU = torch.device("cpu")
TINY = Conditions(CPU, tiny=True)


def bench(monkeypatch, *arguments):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    return main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a toy run has written its file."""
    out, threads = tmp_path_factory.mktemp("benchmarks"), torch.get_num_threads()
    one_dnn = torch.backends.mkldnn.enabled
    with pytest.MonkeyPatch.context() as patch:
        assert bench(patch, "--tiny", "--out", out) == 0
    torch.set_num_threads(threads)
    torch.backends.mkldnn.set_flags(one_dnn)
    return out


@pytest.fixture
def document(folder):
    (file,) = folder.iterdir()
    return json.loads(file.read_text())


def test_every_section_has_rows_or_says_why_not(document):
    assert list(document["sections"]) == list(SECTIONS)
    without = {name for name, section in document["sections"].items() if not section["rows"]}
    assert {"repro"} <= without <= {"repro", "peer"}
    assert all(bool(section["missing"]) == (name in without) for name, section in document["sections"].items())
    assert document["machine"]["tiny"] is True


def test_every_rule_and_pre_aggregation_with_an_obvious_twin_is_measured(document):
    for section in ("rules", "memory"):
        measured = {(row["kind"], row["name"]) for row in document["sections"][section]["rows"]}
        expected = {("rule", name) for name in obvious.RULES}
        expected |= {("pre-aggregation", name) for name in obvious.MAPS}
        assert expected <= measured, section


def test_every_number_is_finite_and_times_are_positive(document):
    for section in document["sections"].values():
        for row in section["rows"]:
            numbers = {key: value for key, value in row.items() if isinstance(value, float)}
            assert all(map(math.isfinite, numbers.values()))
            assert all(value > 0 for key, value in numbers.items() if "ms" in key.split() or "/ s" in key)


def test_ratios_are_those_of_the_times(document):
    for row in document["sections"]["rules"]["rows"]:
        assert row["ours / read"] == row["ours ms"] / row["read ms"]
        assert row["obvious / ours"] == row["obvious ms"] / row["ours ms"]
    for row in document["sections"]["step"]["rows"]:
        assert row["ours / plain"] == row["ours ms a replica"] / row["plain SGD ms"]


def test_one_knee_for_each_workload(document):
    rows = document["sections"]["replicas"]["rows"]
    for workload in ("mlp", "logistic", "digits float32", "digits float64"):
        assert sum(row["knee"] for row in rows if row["workload"] == workload) == 1


def test_a_section_measured_again_replaces_itself_alone(folder, document, monkeypatch, capsys):
    assert bench(monkeypatch, "--tiny", "--sections", "replicas", "--out", folder) == 0
    (file,) = folder.iterdir()
    again = json.loads(file.read_text())
    assert again["sections"]["rules"] == document["sections"]["rules"]
    assert again["sections"]["replicas"]["rows"] != document["sections"]["replicas"]["rows"]
    assert "### Replica-steps a second" in capsys.readouterr().out


def test_show_prints_the_tables_of_a_file(folder, monkeypatch, capsys):
    (file,) = folder.iterdir()
    assert bench(monkeypatch, "--show", file) == 0
    printed = capsys.readouterr().out
    assert all(f"### {part.title}\n" in printed for part in SECTIONS.values())
    assert "Toy sizes" in printed
    assert "| rule | krum |" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sections", "rulse"], "error: bench --sections rulse: no such section; one of 'rules', "),
        (["--sections", "rulse"], "did you mean 'rules'?"),
        (["--show", "nowhere.json"], "error: nowhere.json: no such file"),
        (["--show", "params.yaml"], "error: params.yaml: not a file of `python -m benchmarks`"),
        (["--show", "results/summary.json"], "error: results/summary.json"),
    ],
)
def test_a_mistake_is_a_message(arguments, message, monkeypatch, capsys):
    assert bench(monkeypatch, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_missing_peer_is_one_clear_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peer.importlib.util, "find_spec", lambda name: None)
    assert bench(monkeypatch, "--tiny", "--sections", "peer", "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: ByzFL is not installed; `pip install -e '.[peer]'` brings it\n"
    assert "Not measured: ByzFL is not installed" in printed.out


def test_a_time_is_that_of_its_own_action():
    times = alternating({"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)}, TINY)
    assert 2 <= times["short"] < times["long"]
    assert times["long"] >= 20


def test_actions_take_turns():
    calls = []
    alternating({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, TINY)
    assert calls == ["a", "b"] * 4


def test_peak_memory_counts_what_is_held_at_once():
    vectors = torch.ones(1000)  # 4000 bytes
    assert peak_bytes(lambda: vectors + vectors, CPU) == 4000
    assert peak_bytes(lambda: vectors + vectors + vectors, CPU) == 8000
    assert peak_bytes(lambda: vectors + vectors + vectors + vectors, CPU) == 8000
    assert peak_bytes(lambda: vectors[:10], CPU) == 0
