"""The command line: stages, messages without a traceback, and stages that end with their ``dvc``."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time

import psutil
import pytest
from support import ROOT

from pipeline import __main__ as command_line
from pipeline.__main__ import main
from pipeline.runs import progress


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that holds a copy of params.yaml, as the working folder."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "tests" / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    return main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nope"], "error: train nope: not in grid.attacks; one of 'none', "),
        (["train", "aile"], "did you mean 'alie'?"),
        (["search", "label_flip"], "error: search label_flip: not in search.studies; one of 'sign_flip', "),
        (["prepare"], "no such file; run `dvc repro download`"),
        (["search", "alie"], "dataset.safetensors: no such file; run `dvc repro prepare`"),
        (["set", "grd.seeds=[0]"], "error: grd.seeds: no key 'grd' in params.yaml; one of "),
        (["set", "grd.seeds=[0]"], "did you mean 'grid'?"),
        (["apply", "experiments/nowhere"], "error: experiments/nowhere: not found"),
        (["distributed", "aile", "krum"], "error: distributed aile: not in attacks; one of 'none', "),
        (["distributed", "alie", "krumm"], "did you mean 'krum'?"),
        (
            ["distributed", "ipm", "krum", "--workers", "4", "--byzantine", "1"],
            "krum needs n >= 2f + 3, got n = 4, f = 1",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_1(arguments, message, here, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert "Traceback" not in printed.out


def test_another_number_of_processes_is_one_message(here, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "5", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run(monkeypatch, "distributed", "alie", "krum") == 1
    assert "5 processes, but 17 workers and a server are 18" in capsys.readouterr().err
    monkeypatch.delenv("MASTER_PORT")
    assert run(monkeypatch, "distributed", "alie", "krum") == 1
    assert "RANK is set, but not MASTER_PORT" in capsys.readouterr().err


def test_a_pytorch_without_gloo_is_one_message(here, monkeypatch, capsys):
    monkeypatch.setattr("torch.distributed.is_gloo_available", lambda: False)
    assert run(monkeypatch, "distributed", "alie", "krum") == 1
    assert "was built without gloo" in capsys.readouterr().err


def test_wrong_parameters_are_all_told_before_a_stage_starts(here, monkeypatch, capsys):
    path = here / "params.yaml"
    path.write_text(path.read_text().replace("steps: 150", "steps: '150'").replace("name: krum}", "name: krumm}"))
    monkeypatch.setitem(command_line.STAGES, "prepare", lambda *_: pytest.fail("it started"))
    assert run(monkeypatch, "prepare") == 1
    told = capsys.readouterr().err
    assert "training.steps = '150'" in told
    assert "defences.krum.rule.name = 'krumm'" in told


def test_a_missing_params_file_is_told(here, monkeypatch, capsys):
    (here / "params.yaml").unlink()
    for arguments in (["analysis"], ["set", "training.steps=3"]):
        assert run(monkeypatch, *arguments) == 1
        assert "params.yaml: not found" in capsys.readouterr().err


def test_missing_published_numbers_are_told_before_a_stage_starts(here, monkeypatch, capsys):
    path = here / "params.yaml"
    path.write_text(path.read_text().replace("published: null", "published: absent.csv"))
    monkeypatch.setitem(command_line.STAGES, "prepare", lambda *_: pytest.fail("it started"))
    assert run(monkeypatch, "prepare") == 1
    told = capsys.readouterr().err
    assert "error: analysis.published = " in told
    assert "absent.csv': no such file" in told


@pytest.mark.parametrize("arguments", [["trian", "alie"], [], ["train"], ["analysis", "alie"]])
def test_an_unknown_command_shows_the_usage(arguments, here, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_code:
        run(monkeypatch, *arguments)
    assert exit_code.value.code == 2
    assert "usage: python -m pipeline" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["download", "prepare", "train", "search", "analysis", "track"])
def test_a_stage_is_given_the_folder_the_parameters_and_its_attack(stage, here, monkeypatch):
    called = []
    monkeypatch.setitem(command_line.STAGES, stage, lambda *arguments: called.append(arguments))
    attack = ["alie"] if stage in ("train", "search") else []
    assert run(monkeypatch, stage, *attack) == 0
    ((folder, params, *rest),) = called
    assert folder == here.resolve()
    assert params.training.steps == 150
    assert rest == attack


def test_every_stage_of_dvc_is_a_command():
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        assert stage["cmd"].split()[:4] == ["python", "-m", "pipeline", name]
    assert set(stages) == set(command_line.STAGES)


def test_set_changes_the_file(here, monkeypatch):
    assert run(monkeypatch, "set", "training.steps=50 grid.seeds=[0,1]") == 0
    text = (here / "params.yaml").read_text()
    assert "steps: 50 " in text
    assert "# T, rounds of distributed SGD" in text


def test_apply_merges_an_overlay_into_the_file(here, monkeypatch):
    (here / "mine.yaml").write_text("training: {steps: 50}\ngrid: {seeds: [0, 1]}")
    assert run(monkeypatch, "apply", "mine.yaml") == 0
    text = (here / "params.yaml").read_text()
    assert "steps: 50 " in text
    assert "seeds: [0, 1] " in text
    assert "# T, rounds of distributed SGD" in text


def test_the_module_runs_and_prints_no_traceback(here):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "nope"], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: train nope: ")
    assert len(ran.stderr.splitlines()) == 1


STAGE = """
import time
from pipeline.runs.watchdog import stop_with_dvc
stop_with_dvc()
print("started", flush=True)
time.sleep(60)
"""
DVC = """
import subprocess, sys
stage = [sys.executable, "-c", sys.argv[2]]
if sys.argv[1] == "shell":
    stage = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, sys.argv[2]]
subprocess.run(stage)
"""


def stage_under(dvc: subprocess.Popen) -> psutil.Process:
    assert dvc.stdout.readline() == "started\n"
    return psutil.Process(dvc.pid).children(recursive=True)[-1]


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("between", ["nothing", "shell"])
@pytest.mark.parametrize("under_dvc", [True, False])
def test_a_stage_ends_with_its_dvc_and_lives_on_without_one(under_dvc, between, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"} | {"PYTHONPATH": str(ROOT)}
    environment |= {"DVC_ROOT": str(tmp_path)} if under_dvc else {}
    command = [sys.executable, "-c", DVC, between, STAGE]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as dvc:
        stage = stage_under(dvc)
        shells = [parent for parent in stage.parents() if parent.ppid() == dvc.pid]
        try:
            time.sleep(0.6)
            assert alive(stage)
            dvc.kill()
            deadline = time.monotonic() + (3 if under_dvc else 1.2)
            while alive(stage) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert alive(stage) != under_dvc
        finally:
            for process in [stage, *shells]:
                if process.is_running():
                    process.kill()


def test_help_describes_every_command_with_an_example_that_is_one(capsys):
    parser = command_line._parser()
    assert set(command_line.STAGES) < set(command_line.HELP)
    for name, text in command_line.HELP.items():
        example = shlex.split(text.rsplit("; ", 1)[1])
        assert example[0] == parser.parse_args(example).command == name
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    told = capsys.readouterr().out
    offered = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert set(offered[0].choices) == set(command_line.HELP)
    assert all(f"  {name} " in told for name in command_line.HELP)
    assert [path for path in re.findall("experiments/[a-z0-9_]+", told) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(("flag", "told"), [([], True), (["-q"], False), (["-v"], True)])
def test_a_stage_that_trains_can_be_quiet(flag, told, here, monkeypatch, capsys):
    monkeypatch.setitem(command_line.STAGES, "train", lambda *_: print(progress._detail.name))
    assert run(monkeypatch, "train", "alie", *flag) == 0
    out = capsys.readouterr().out
    assert bool(out) == told
    assert out.endswith("VERBOSE\n") == (flag == ["-v"])
