"""The same in processes that talk over gloo; one pair in CI, all of them with ``make soak``."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from parties import ATTACKED, DATASET, DEFENDED, LOCAL, THREATS, cell
from support import ROOT, parameters

from pipeline.core.errors import UserError
from pipeline.core.paths import DATASET as FILE
from pipeline.data.dataset import write
from pipeline.runs.distributed import started_here
from pipeline.runs.together import together

EXECUTION = parameters().execution
SAMPLED = "9, 6 of them in a round"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "dataset.safetensors"
    write(path, DATASET)
    return path


def assert_equal_to_the_simulated(report, one):
    assert report.equal == [True] * one.training.steps
    assert report.difference == 0.0
    assert report.accuracies[0] == report.accuracies[1]


def test_processes_give_the_simulated_parameters_and_count_their_bytes(data):
    one = cell("optimal_alie", "bucketing clipping", 5)
    report = started_here(data, EXECUTION, one)
    assert_equal_to_the_simulated(report, one)
    d, n, b, number = 53, 5, 1, 8
    assert report.down == number * n * (d + 1)  # the parameters, and each worker's place
    assert report.up == number * n * d
    assert report.overheard == number * (n - b + 2) * d  # the last aggregate and the defence's memory as well


def kinds():
    for threat in THREATS:
        for attack in ATTACKED:
            for defence in DEFENDED:
                for training in ({}, LOCAL, {"augment": "crop_flip"}):
                    yield threat, attack, defence, training


@pytest.mark.soak
@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("defence", DEFENDED)
@pytest.mark.parametrize("attack", ATTACKED)
@pytest.mark.parametrize("training", [{}, LOCAL], ids=["gradient", "local steps"])
def test_every_kind_gives_the_simulated_parameters(training, attack, defence, threat, data):
    if not (attack.startswith("mimic") and threat == SAMPLED):  # it copies one worker, who must take part
        one = cell(attack, defence, threat, **training)
        assert_equal_to_the_simulated(started_here(data, EXECUTION, one), one)
