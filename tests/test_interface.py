"""What ``import pipeline`` offers: the numbers and the checks of the stages, without files."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from inputs import unequal_vectors
from ruamel.yaml import YAML
from support import PARAMS, ROOT, Unwatched, blobs, parameters, raw_parameters
from support import SMALL as SETTINGS

import pipeline
from pipeline.attacks import ATTACKS, TunableAttack, VectorAttack
from pipeline.core.errors import UserError
from pipeline.data.dataset import write
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.interface import DEFAULTS, MODEL
from pipeline.runs import params
from pipeline.runs.train import train_row
from pipeline.search.stage import search_study

SMALL = {"workers": 7, "byzantine": 2, "tolerated": 2, "steps": 6, "batch_size": 3, "evaluate_every": 4}
GRID = {"grid.attacks": ["none", "alie"], "grid.defences": ["median", "nnm_trimmed_mean"], "grid.seeds": [0, 3]}
PARTITION = {"name": "dirichlet_by_worker", "alpha": 0.3}


@pytest.fixture
def project(tmp_path):
    """A project whose small grid is trained."""
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    here = parameters({**GRID, "grid.partitions": ["alpha_03"]})
    for attack in here.grid.attacks:
        train_row(tmp_path, here, attack, lambda *_: Unwatched())
    return tmp_path, here


def test_the_numbers_are_those_of_the_stages(project, monkeypatch):
    folder, here = project
    monkeypatch.setattr("pipeline.runs.params.load", lambda path: here)
    defences = {"median": "median", "nnm_trimmed_mean": "nnm + trimmed_mean"}
    found = pipeline.simulate(
        ["none", "alie"], defences, PARTITION, [0, 3], data=blobs(), model={"name": "mlp", "hidden": [5]}, **SMALL
    )
    for ours, stored in zip(found, pipeline.load_results(folder), strict=True):
        named = ours.assign(partition="alpha_03")
        pd.testing.assert_frame_equal(named, stored, check_exact=True)
    assert len(found.final) == 8
    assert found.curves["steps_done"].unique().tolist() == [0, 4, 6]


def test_a_path_and_a_data_set_in_memory_give_the_same(project):
    folder, _ = project
    of = [folder / "data" / "dataset.safetensors", blobs()]
    one, other = (pipeline.simulate("ipm", "krum", "iid", [1], data=data, **SMALL).final for data in of)
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_data_set_of_vectors_is_simulated_or_refused_beforehand(tmp_path, monkeypatch):
    data = blobs(shape=(4,))
    final = pipeline.simulate("ipm", "krum", "iid", [1], data=data, **SMALL).final
    assert final["test_accuracy"].between(0, 1).all()
    write(tmp_path / "vectors.safetensors", data)
    monkeypatch.setattr("pipeline.interface._data_file", None)
    for held in (data, tmp_path / "vectors.safetensors"):
        with pytest.raises(UserError) as caught:
            pipeline.simulate("ipm", "krum", "iid", [1], held, model={"name": "resnet20"}, augment="crop_flip")
        assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
            "training.augment = 'crop_flip'",
            "model.name = 'resnet20'",
        ]


def test_without_a_clean_run_there_is_no_degradation():
    final = pipeline.simulate("ipm", "krum", "iid", [1], data=blobs(), **SMALL).final
    assert final["degradation"].isna().all()
    assert final["test_accuracy"].notna().all()


def test_the_defaults_are_those_of_params_yaml():
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    del raw["data"]["source"]
    assert {section: raw[section] for section in DEFAULTS} == DEFAULTS
    assert raw["model"] == MODEL


def test_every_fault_is_told_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr("pipeline.interface._data_file", None)
    with pytest.raises(UserError) as caught:
        pipeline.simulate(["alie", "ipmm"], "krumm + mean", {"name": "iid", "alpha": 1}, [], stepz=3, momentum=2)
    starts = ["stepz: unknown field", "training.momentum = 2: ", "attacks.ipmm.name = 'ipmm': "]
    starts += [
        "defences.krumm + mean.before.0.name = 'krumm': ",
        "partition.iid.alpha = 1: unknown key",
        "seeds: empty",
    ]
    lines = str(caught.value).splitlines()
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


@pytest.mark.parametrize(
    ("attack", "defence", "changes", "message"),
    [
        ("none", "bulyan", {}, r"defence: bulyan needs n >= 4f \+ 3, got n = 17, f = 4"),
        ("alie", "mean", {"tolerated": 0}, "attack: .*alie has no default strength for n = 17, f = 0"),
        ({"name": "mimic", "target": 13}, "mean", {}, "attack: target = 13: there are 13 honest workers"),
        ("none", "mean", {"model": "cnn_mnist"}, "model.name = 'cnn_mnist': needs images"),
    ],
)
def test_what_does_not_fit_is_refused(attack, defence, changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        pipeline.simulate(attack, defence, "iid", [0], **changes)


def test_labels_describe_what_is_given():
    attacks = [{"name": "ipm", "strength": 0.1}, ATTACKS["sign_flip"](own=True, strength=2.0)]
    defences = [{"before": [{"name": "bucketing", "s": 1}], "rule": {"name": "krum"}}, "median"]
    final = pipeline.simulate(attacks, defences, PARTITION, [0], data=blobs(), **SMALL).final
    assert final["attack"].unique().tolist() == ["ipm(strength=0.1)", "sign_flip(strength=2.0, own=True)"]
    assert final["defence"].unique().tolist() == ["bucketing(s=1) + krum", "median"]
    assert final["partition"].unique().tolist() == ["dirichlet_by_worker(alpha=0.3)"]
    assert final["strength"].unique().tolist() == [0.1, 2.0]


@pytest.mark.parametrize("name", AGGREGATORS.names)
def test_every_rule_aggregates_tensors_and_arrays(name):
    vectors = unequal_vectors(11, 5)
    found = pipeline.aggregate(vectors, 2, f"nnm + {name}")
    assert found.shape == (5,)
    np.testing.assert_array_equal(pipeline.aggregate(vectors.numpy(), 2, f"nnm + {name}"), found.numpy())
    batched = pipeline.aggregate(vectors.expand(2, 3, 11, 5), 2, f"nnm + {name}")
    assert torch.equal(batched[1, 0], found)


@pytest.mark.parametrize("name", [name for name in ATTACKS.names if issubclass(ATTACKS[name], VectorAttack)])
def test_every_vector_attack_makes_vectors(name):
    honest = unequal_vectors(9, 5)
    sent = pipeline.attack(honest, name, byzantine=2, defence="nnm + median")
    assert sent.shape == (2, 5)
    if issubclass(ATTACKS[name], TunableAttack):
        default = ATTACKS[name]().resolved(11, 2).strength
        assert torch.equal(sent, pipeline.attack(honest, name, byzantine=2, strength=default))


def test_a_single_call_is_checked():
    vectors = unequal_vectors(17, 3)
    for f, message in [(9, "median needs n > 2f"), (-1, "median needs")]:
        with pytest.raises(UserError, match=message):
            pipeline.aggregate(vectors, f, "median")
    with pytest.raises(UserError, match="poisons labels"):
        pipeline.attack(vectors, "label_flip", byzantine=2)
    with pytest.raises(UserError, match=r"strenght = 1: unknown key.*did you mean 'strength'"):
        pipeline.attack(vectors, "ipm", byzantine=2, strenght=1)
    with pytest.raises(UserError, match="should be floats"):
        pipeline.aggregate(np.ones((4, 2), dtype=int), 1, "median")


def test_importing_the_package_imports_nothing_else():
    program = (
        "import sys, pipeline; print(pipeline.__all__, [m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"{pipeline.__all__} []"


def test_a_search_is_that_of_the_stage(tmp_path):
    """In a project that says the same in params.yaml, the stage finds the same, to the last digit."""
    found = pipeline.search_strength(
        "ipm", ["median", "nnm + trimmed_mean"], PARTITION, trials=3, batch=3, seeds=[100], confirmation_seeds=[200],
        space={"strength": [0.05, 20.0]}, model={"name": "mlp", "hidden": [5]}, **SMALL
    )  # fmt: skip
    study = {"mode": "strength", "attacks": ["ipm"], "space": {"ipm": {"strength": [0.05, 20.0]}}}
    search = {"studies": ["ipm"], "defences": ["median", "nnm_trimmed_mean"], "trials": 3, "batch": 3, "sampler": "tpe"}
    search |= {"seeds": [100], "confirmation_seeds": [200], "partition": "alpha_03", "transfer": False, "finalists": 1}
    changes = {f"search.{name}": value for name, value in search.items()}
    raw = raw_parameters({**SETTINGS, "studies": {"ipm": study}, **changes, "tuning.defences": []})
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(raw, file)
    write(tmp_path / "data" / "dataset.safetensors", pipeline.load_data("digits"))
    search_study(tmp_path, params.load(tmp_path / "params.yaml"), "ipm")
    for ours, stored in zip(found, pipeline.load_search("ipm", tmp_path), strict=True):
        pd.testing.assert_frame_equal(ours, stored, check_exact=True)
    assert found.trials["strength"].between(0.05, 20).all()
    assert sorted(found.trials["defence"].unique()) == ["median", "nnm_trimmed_mean"]


def test_a_search_tells_every_fault_beforehand(tmp_path):
    with pytest.raises(UserError, match=r"^stepz: unknown field"):
        pipeline.search_strength("ipm", "mean", "iid", stepz=3)
    with pytest.raises(UserError, match=r"^attacks.ipmm.name = 'ipmm': unknown name"):
        pipeline.search_strength("ipmm", "mean", "iid")
    with pytest.raises(UserError, match=r"^search.confirmation_seeds: \[3\] also stand in search.seeds"):
        pipeline.search_strength("ipm", "mean", "iid", seeds=[3], confirmation_seeds=[3])
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    with pytest.raises(UserError, match=r"study 'ipmm': not in params\.yaml"):
        pipeline.load_search("ipmm", tmp_path)
    with pytest.raises(UserError, match="no such result"):
        pipeline.load_search("alie", tmp_path)


def test_data_are_loaded_as_training_sees_them():
    digits = pipeline.load_data("digits", split_seed=1)
    assert digits.shape == (1, 8, 8)
    assert not torch.equal(digits.train.labels, pipeline.load_data("digits").train.labels)
    with pytest.raises(UserError, match="did you mean 'digits'"):
        pipeline.load_data("digit")
    with pytest.raises(UserError, match="split_sed"):
        pipeline.load_data("digits", split_sed=1)
