"""Changes of params.yaml: single values and overlays; comments survive, and a mistake changes nothing."""

from pathlib import Path

import pytest
from support import ROOT

from pipeline.core.errors import UserError
from pipeline.runs.edit import apply, overlaid, override
from pipeline.runs.params import load

PARAMS = ROOT / "tests" / "params.yaml"


@pytest.fixture
def copy(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    return path


def changed_lines(path: Path) -> list[str]:
    before, after = PARAMS.read_text().splitlines(), path.read_text().splitlines()
    assert len(before) == len(after)
    return [new for old, new in zip(before, after, strict=True) if old != new]


def test_override_changes_its_line_and_keeps_the_comments(copy):
    override(copy, "training.steps=50 grid.seeds=[0,1] attacks.alie.strength=1e-3")
    steps, alie, seeds = changed_lines(copy)
    assert steps.split() == ["steps:", "50", "#", "T,", "rounds", "of", "distributed", "SGD"]
    assert seeds.split("#")[0].split() == ["seeds:", "[0,", "1]"]
    assert "# of data order, partition and initial weights" in seeds
    assert "# mean(honest) - theta sd(honest)" in alie
    params = load(copy)
    assert (params.training.steps, params.grid.seeds, params.attacks["alie"].strength) == (50, (0, 1), 0.001)


def test_parameters_that_are_a_link_are_changed_where_they_lie(copy):
    path = copy.rename(copy.with_name("mine.yaml"))
    copy.symlink_to(path)
    override(copy, "training.steps=50")
    apply(copy, overlay(copy, "training: {batch_size: 9}"))
    assert copy.is_symlink()
    assert (load(path).training.steps, load(path).training.batch_size) == (50, 9)


def test_override_takes_mappings_and_the_last_of_repeated_changes(copy):
    override(copy, """  training.steps=50   data.source={"name":mnist} training.steps=60 """)
    assert load(copy).training.steps == 60
    assert load(copy).data.source.name == "mnist"


@pytest.mark.parametrize("changes", ["", "  ", "\n"])
def test_override_with_nothing_leaves_every_byte(changes, copy):
    unusual = PARAMS.read_text().replace("steps: 150", "steps:   150")
    copy.write_text(unusual)
    override(copy, changes)
    assert copy.read_text() == unusual


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("training.stpes=3", "training.stpes: no key 'stpes' in training; one of .* - did you mean 'steps'"),
        ("grd.seeds=[0]", "grd.seeds: no key 'grd' in params.yaml; one of .* - did you mean 'grid'"),
        ("defences.krum.rul.name=mean", "no key 'rul' in defences.krum; one of 'rule' - did you mean 'rule'"),
        ("training.steps.more=3", "training.steps.more: training.steps = 150 has no keys; set it as a whole"),
        ("grid.seeds.0=3", r"grid.seeds.0: grid.seeds = \[0, .* has no keys; set it as a whole"),
        ("training.steps", "training.steps: should be path=value"),
        ("training.steps=", "training.steps: should be path=value"),
        ("=3", "no key '' in params.yaml; one of"),
        ("grid.seeds=[0, 1]", r"grid.seeds=\[0,: the value is not YAML; write it without blanks"),
        ("training.steps=50 training.momentum=2", "training.momentum = 2: should be less than 1"),
        ("training.steps=!mine", "would not be YAML: could not determine a constructor for the tag '!mine'"),
        ("training.steps=abc", "training.steps = 'abc': should be a valid integer"),
        ("threat.tolerated=8", "defences.krum: krum needs"),
    ],
)
def test_override_writes_nothing_when_a_change_is_wrong(changes, message, copy):
    with pytest.raises(UserError, match=message):
        override(copy, changes)
    assert copy.read_bytes() == PARAMS.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["params.yaml"]


def test_override_of_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(UserError, match="not found"):
        override(tmp_path / "params.yaml", "training.steps=3")
    for text, told in (("a: [", "is not YAML"), ("", "should be a mapping of sections")):
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(UserError, match=told):
            override(tmp_path / "params.yaml", "training.steps=3")


def overlay(copy: Path, text: str) -> Path:
    """A file with an overlay."""
    path = copy.parent / "overlay.yaml"
    path.write_text(text)
    return path


def comments(path: Path) -> list[str]:
    return [line.partition("#")[2] for line in path.read_text().splitlines() if "#" in line]


MIXED = """
# Of the overlay.
model: {name: logistic}
training:
  steps: 20        # fewer
  schedule: {name: milestones, at: [10], factor: 0.5}
attacks:
  label_flip: {name: ipm, strength: 3.0}
  fang: {name: fang}
defences:
  nnm_trimmed_mean: {rule: {name: trimmed_mean}}
  nnm_krum: {before: [{name: nnm}], rule: {name: krum}}
  nnm_median: {before: [{name: nnm}], rule: {name: median}}
grid:
  attacks: [none, fang]
studies:
  both:
    mode: worst
    attacks: [ipm, alie]
    space:
      ipm: {start: [0, 10]}
"""


def test_an_overlay_merges_sections_and_replaces_lists_components_and_entries(copy):
    apply(copy, overlay(copy, MIXED))
    before, after = load(PARAMS), load(copy)
    assert after.model.content() == {"name": "logistic"}
    assert after.training == before.training.replace(steps=20, schedule=after.training.schedule)
    assert after.training.schedule.content() == {"name": "milestones", "at": [10], "factor": 0.5}
    assert after.grid == before.grid.replace(attacks=("none", "fang"))
    assert after.attacks["label_flip"].content()["name"] == "ipm"
    assert set(after.attacks) == {*before.attacks, "fang"}
    assert after.defences["nnm_trimmed_mean"].before == ()
    assert list(after.defences) == ["nnm_krum", "nnm_median", *before.defences]
    assert list(after.studies) == ["both", *before.studies]
    for untouched in ("data", "partitions", "threat", "search", "analysis", "execution"):
        assert getattr(after, untouched) == getattr(before, untouched)
    assert overlaid(PARAMS, overlay(copy, MIXED)) == after


def test_an_overlay_keeps_the_comments_and_the_lines_that_it_does_not_name(copy):
    apply(copy, overlay(copy, MIXED))
    assert comments(copy) == comments(PARAMS)
    before, after = PARAMS.read_text().splitlines(), copy.read_text().splitlines()
    gone = [line.split("#")[0].strip() for line in before if line not in after]
    assert [line.split(":")[0] for line in gone] == [
        *("model", "steps", "schedule", "nnm_trimmed_mean", "label_flip", "attacks")
    ]
    new = [line for line in after if line not in before]
    assert "  nnm_krum: {before: [{name: nnm}], rule: {name: krum}}" in new
    assert after[after.index("  both:") :][:5] == [*MIXED.splitlines()[-5:]]


def test_a_component_without_its_name_keeps_its_name(copy):
    apply(copy, overlay(copy, "model: {hidden: [8, 4]}"))
    assert load(copy).model.content() == {"name": "mlp", "hidden": [8, 4]}


def test_an_overlay_applied_twice_is_applied_once(copy):
    path = overlay(copy, MIXED)
    apply(copy, path)
    once = copy.read_bytes()
    apply(copy, path)
    assert copy.read_bytes() == once


def test_an_overlay_may_be_a_folder(copy):
    folder = copy.parent / "mine"
    folder.mkdir()
    (folder / "params.yaml").write_text("training: {steps: 20}")
    apply(copy, folder)
    assert load(copy).training.steps == 20
    apply(copy, PARAMS.parent)
    assert copy.read_bytes() == PARAMS.read_bytes()


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("training: {stpes: 3}", ["training.stpes = 3: unknown key; one of 'steps', ", "did you mean 'steps'?"]),
        ("trainig: {steps: 3}", ["trainig = ...: unknown section; ", "did you mean 'training'?"]),
        ("training: {schedule: {factr: 3}}", ["training.schedule.factr = 3: unknown key"]),
        ("attacks: {alie: {strength: 3.0}}", ["attacks.alie = {'strength': 3.0}: should be a mapping with a name"]),
        ("defences: {mean: {rule: {name: men}}}", ["defences.mean.rule.name = 'men': unknown name", "'mean'?"]),
        ("grid: {attacks: [none, fang]}", ["grid.attacks: 'fang' is not in attacks"]),
        ("training: 3", ["training = 3: should be"]),
        ("training:", ["training = None: should be"]),
        ("training: {steps: 3}\ngrid: {seeds: []}\nmodel: {hiden: [3]}", ["grid.seeds", "model.hiden = [3]"]),
        ("# nothing", ["overlay.yaml: should be a mapping of sections"]),
        ("- training", ["overlay.yaml: should be a mapping of sections"]),
        ("a: [", ["overlay.yaml is not YAML"]),
    ],
)
def test_a_wrong_overlay_writes_nothing(text, messages, copy):
    path = overlay(copy, text)
    with pytest.raises(UserError) as error:
        apply(copy, path)
    assert [message for message in messages if message not in str(error.value)] == []
    assert copy.read_bytes() == PARAMS.read_bytes()


def test_a_missing_file_is_told(copy):
    with pytest.raises(UserError, match=r"nowhere\.yaml: not found"):
        apply(copy, copy.parent / "nowhere.yaml")
    with pytest.raises(UserError, match=r"params\.yaml: not found"):
        apply(copy.parent / "elsewhere" / "params.yaml", overlay(copy, MIXED))
    copy.write_text("[1]")
    with pytest.raises(UserError, match=r"params\.yaml: should be a mapping of sections"):
        apply(copy, overlay(copy, MIXED))
