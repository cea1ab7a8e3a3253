"""A cell's key changes with everything that changes its result, and with nothing else."""

import os
import shutil
import subprocess
import sys

import pytest
from pydantic import ValidationError
from support import ROOT, cell, parameters

from pipeline.attacks import ATTACKS
from pipeline.core import identity as sources
from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.data.partitions import PARTITIONS
from pipeline.runs.plan import planned
from pipeline.simulator.local_updates import LOCAL_UPDATES
from pipeline.simulator.models import MODELS
from pipeline.simulator.schedules import SCHEDULES

PROGRAM = """
import sys; sys.path.insert(0, "tests")
from support import cell
print(cell().key("data", {}), cell("alie", "nnm_trimmed_mean").key("data", {}))
"""


def test_the_key_is_the_same_in_every_process():
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [cell().key("data", {}), cell("alie", "nnm_trimmed_mean").key("data", {})]


CHANGES = {
    "model": MODELS.parse({"name": "logistic"}, ""),
    "model.hidden": MODELS.parse({"name": "mlp", "hidden": [6]}, ""),
    "partition": PARTITIONS.parse({"name": "iid"}, ""),
    "partition.holders": PARTITIONS.parse({"name": "dirichlet_by_worker", "alpha": 0.3, "holders": "honest"}, ""),
    "partition.alpha": PARTITIONS.parse({"name": "dirichlet_by_worker", "alpha": 0.31}, ""),
    "threat.workers": 8,
    "threat.byzantine": 1,
    "threat.tolerated": 1,
    "threat.sampled": 6,
    "training.clip": 1.0,
    "training.augment": "crop_flip",
    "training.damped": False,
    "training.server_momentum": 0.1,
    "training.local_update": LOCAL_UPDATES.parse({"name": "local_sgd", "steps": 2, "learning_rate": 0.1}, ""),
    "training.steps": 7,
    "training.batch_size": 4,
    "training.learning_rate": 0.51,
    "training.schedule": SCHEDULES.parse({"name": "milestones", "at": [3], "factor": 0.5}, ""),
    "training.momentum": 0.91,
    "training.weight_decay": 0.01,
    "training.evaluate_every": 5,
    "training.precision": "float32",
    "training.tf32": True,
    "attack": ATTACKS.parse({"name": "ipm", "strength": 10.0}, ""),
    "attack.strength": ATTACKS.parse({"name": "sign_flip", "strength": 9.0}, ""),
    "attack.start": ATTACKS.parse({"name": "sign_flip", "strength": 10.0, "start": 1}, ""),
    "attack.ramp": ATTACKS.parse({"name": "sign_flip", "strength": 10.0, "ramp": 1}, ""),
    "attack.own": ATTACKS.parse({"name": "sign_flip", "strength": 10.0, "own": True}, ""),
    "seed": 1,
}


def leaf_fields(schema, path=()):
    """The dotted paths of the plain values in a cell."""
    for name, value in schema.content().items():
        if isinstance(value, dict) and name != "defence":
            yield from leaf_fields(getattr(schema, name), (*path, name))
        elif name not in ("defence", "name"):
            yield ".".join((*path, name))


def test_every_field_is_among_the_changes_below():
    renamed = {f"training.{part}.name": f"training.{part}" for part in ("schedule", "local_update")}
    assert {renamed.get(field, field) for field in leaf_fields(cell())} <= set(CHANGES)


@pytest.mark.parametrize("field", CHANGES)
def test_the_key_changes_with_every_field(field):
    section, _, name = field.partition(".")
    value = CHANGES[field]
    if section in ("threat", "training"):
        value = getattr(cell(), section).replace(**{name: value})
    changed = cell().replace(**{section: value})
    assert changed.key("data", {}) != cell().key("data", {})


def test_the_key_changes_with_the_defence_its_order_and_its_parameters():
    rules = {name: {"rule": {"name": name}} for name in ("mean", "median", "geometric_median")}
    mixing = {"before": [{"name": "nnm"}], "rule": {"name": "median"}}
    twice = {"before": [{"name": "nnm"}, {"name": "nnm"}], "rule": {"name": "median"}}
    coarse = {"rule": {"name": "geometric_median", "tolerance": 0.1}}
    defences = [parse(type(cell().defence), value, "") for value in [*rules.values(), mixing, twice, coarse]]
    assert len({cell().replace(defence=defence).key("data", {}) for defence in defences}) == len(defences)


def test_the_key_changes_with_the_data():
    assert cell().key("data", {}) != cell().key("other data", {})


def test_the_key_changes_with_what_computes():
    torch_2_15 = {"torch": "2.15.0", "numpy": "2.4.6", "device": "cpu", "gradients": "chain"}
    others = [{**torch_2_15, name: "another"} for name in torch_2_15]
    assert len({cell().key("data", arithmetic) for arithmetic in [torch_2_15, *others]}) == 5


def test_names_and_the_execution_section_do_not_enter_the_key():
    here = cell().key("data", {})
    elsewhere = {
        "execution": {
            "device": "cpu",
            "cluster": "10.0.0.1:6379",
            "processes": 2,
            "memory_gb": 0.5,
            "gradients": "loop",
        },
        "analysis.confidence": 0.9,
    }
    assert cell(changes=elsewhere).key("data", {}) == here
    named = {"defences.other": {"rule": {"name": "median"}}, "grid.defences": ["other"]}
    assert planned(parameters(named), "sign_flip", "other", "alpha_03", 0).cell.key("data", {}) == here
    assert cell(changes={"grid.seeds": [0], "search.trials": 3}).key("data", {}) == here


def test_a_number_written_as_integer_or_float_is_one_cell():
    changes = {"training.learning_rate": 1}, {"training.learning_rate": 1.0}
    assert cell(changes=changes[0]).key("data", {}) == cell(changes=changes[1]).key("data", {})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose files are hashed instead; ``package(file)`` changes or adds one of them."""
    copy = tmp_path / "pipeline"
    shutil.copytree(sources.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "PACKAGE", copy)

    def forget():
        sources.imports_of.cache_clear()
        sources.code_hash.cache_clear()
        sources._module_hash.cache_clear()

    def change(file: str, text: str = "CHANGED = 1") -> None:
        path = copy / file
        with path.open("a") as stream:
            stream.write(f"\n{text}\n")
        forget()

    forget()
    yield change
    forget()


CELLS = {
    "sign_flip against krum": ("sign_flip", "krum"),
    "sign_flip against mean": ("sign_flip", "mean"),
    "none against median": ("none", "median"),
    "alie against geometric_median": ("alie", "geometric_median"),
}


FAMILIES = [  # folders to which a component is added as a new file
    "defences/aggregators",
    "defences/preaggregators",
    "attacks",
    "data/partitions",
    "data/sources",
    "simulator/models",
    "simulator/schedules",
    "simulator/local_updates",
]


def keys() -> dict[str, str]:
    return {title: cell(*names).key("data", {}) for title, names in CELLS.items()}


@pytest.mark.parametrize(
    ("file", "affected"),
    [
        ("simulator/loop.py", set(CELLS)),
        ("core/vectors.py", set(CELLS)),
        ("simulator/gradients.py", set(CELLS)),
        ("defences/aggregators/base.py", set(CELLS)),
        ("defences/aggregators/iterative.py", {"alie against geometric_median"}),
        ("attacks/omniscient.py", set(CELLS) - {"none against median"}),
        ("attacks/poisoning.py", {"none against median"}),
        *((f"{family}/new.py", set()) for family in FAMILIES),
        ("search/stage.py", set()),
        ("runs/search_checks.py", set()),
        ("runs/execution.py", set()),
        ("runs/cluster.py", set()),
        ("runs/store.py", set()),
        ("runs/plan.py", set()),
        ("runs/params.py", set()),
        ("runs/train.py", set()),
        ("__main__.py", set()),
    ],
)
def test_the_key_changes_with_the_source_that_computes_the_cell_and_no_other(file, affected, package):
    before = keys()
    package(file)
    after = keys()
    assert {title for title in CELLS if before[title] != after[title]} == affected


def test_the_resolved_default_strength_is_in_the_content():
    default, given = cell("ipm"), cell("ipm", changes={"attacks.ipm.strength": 0.1})
    assert default.content()["attack"] == {"name": "ipm", "strength": 0.1, "start": 0, "ramp": 0}
    assert default.key("data", {}) == given.key("data", {})
    assert cell("alie").content()["attack"]["strength"] == pytest.approx(0.2533, abs=1e-4)  # Phi^-1(3 / 5)
    with pytest.raises(UserError, match="no default strength"):
        cell("alie", changes={"threat.tolerated": 0})


def test_a_cell_made_in_python_is_as_safe_as_one_of_params_yaml():
    here = cell("alie")
    again = here.replace(attack=ATTACKS.parse({"name": "alie"}, ""), seed=3)
    assert again.strength == here.strength
    with pytest.raises(ValidationError, match=r"bulyan needs n >= 4f \+ 3, got n = 7, f = 2"):
        here.replace(defence={"rule": {"name": "bulyan"}})
    with pytest.raises(ValidationError, match="alie has no default strength for n = 7, f = 0"):
        here.replace(attack={"name": "alie"}, threat=here.threat.replace(tolerated=0))
    with pytest.raises(ValidationError, match="target = 5: there are 5 honest workers"):
        here.replace(attack={"name": "mimic", "target": 5})


def test_cells_share_a_batch_unless_more_than_defence_partition_seed_and_strength_differ():
    here = cell().shared
    alike = [
        cell(defence="krum"),
        cell(partition="iid"),
        cell(seed=3),
        cell(changes={"attacks.sign_flip.strength": 2}),
    ]
    assert {other.shared for other in alike} == {here}
    apart = [
        cell("ipm"),
        cell("none"),
        cell(changes={"model.hidden": [6]}),
        cell(changes={"threat.byzantine": 1}),
        cell(changes={"threat.tolerated": 1, "attacks.alie.strength": 1}),
        cell(changes={"training.steps": 7}),
        cell(changes={"training.evaluate_every": 5}),
    ]
    assert len({here, *(other.shared for other in apart)}) == 1 + len(apart)


def test_where_workers_are_sampled_a_batch_has_one_seed():
    changes = {"threat": {"workers": 9, "byzantine": 2, "tolerated": 2, "sampled": 7}}
    here = cell(changes=changes).shared
    assert cell(defence="krum", partition="iid", changes=changes).shared == here
    assert cell(seed=3, changes=changes).shared != here


def test_the_strength_of_a_data_attack_is_one():
    assert cell("none").strength == 1.0
    assert cell("sign_flip").strength == 10.0
