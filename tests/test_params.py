"""params.yaml: what is valid, what every mistake is told, and that no parameter is dead or unexplained."""

import ast
from functools import cache
from typing import Any

import pytest
from support import REMOVED, ROOT, raw_parameters

from pipeline.core.component import Component, Schema
from pipeline.core.errors import UserError
from pipeline.runs.params import Params, load, validate

PARAMS = ROOT / "tests" / "params.yaml"


def faults(raw: Any) -> list[str]:
    """The lines of the error that ``raw`` gives, without the heading."""
    with pytest.raises(UserError) as error:
        validate(raw)
    heading, *lines = str(error.value).splitlines()
    assert heading == "params.yaml is not valid:"
    return [line.strip() for line in lines]


def test_the_projects_own_file_is_valid():
    params = load(ROOT / "params.yaml")
    assert params.tuning.defences == params.grid.defences == params.search.defences


def test_the_tests_own_file_is_valid():
    params = load(PARAMS)
    assert params.threat.honest == 12
    assert params.attacks["sign_flip"].strength == 10.0
    assert params.defences["nnm_trimmed_mean"].before[0].name == "nnm"
    assert {**params.content()} == {**validate(raw_parameters()).content()}


MISTAKES = [
    ({"trainig": {}}, "trainig = ...: unknown section; one of 'data', ", "did you mean 'training'?"),
    ({"training": REMOVED}, "training: missing section", ""),
    ({"training.stpes": 3}, "training.stpes = 3: unknown key; one of 'steps', ", "did you mean 'steps'?"),
    ({"attacks.alie.strenght": 3}, "attacks.alie.strenght = 3: unknown key; ", "did you mean 'strength'?"),
    ({"model.hiden": [3]}, "model.hiden = [3]: unknown key; one of 'name', 'hidden'", "did you mean 'hidden'?"),
    (
        {"defences.nnm_trimmed_mean.before": [{"name": "nmm"}]},
        "defences.nnm_trimmed_mean.before.0.name = 'nmm': unknown name; one of ",
        "did you mean 'nnm'?",
    ),
    ({"training.steps": "10"}, "training.steps = '10': should be a valid integer", ""),
    ({"training.steps": 10.0}, "training.steps = 10.0: should be a valid integer", ""),
    ({"training.momentum": True}, "training.momentum = True: should be a valid number", ""),
    ({"training.learning_rate": float("nan")}, "training.learning_rate = nan: should be", ""),
    ({"training.steps": REMOVED}, "training.steps: missing", ""),
    ({"training": [1]}, "training = [1]: should be a valid dictionary", ""),
    ({"grid.seeds": 3}, "grid.seeds = 3: should be a valid tuple", ""),
    ({"grid.seeds": [0, -1]}, "grid.seeds.1 = -1: should be greater than or equal to 0", ""),
    ({"grid.defences": []}, "grid.defences = []", ""),
    ({"training.momentum": 1.0}, "training.momentum = 1.0: should be less than 1", ""),
    ({"training.learning_rate": 0}, "training.learning_rate = 0: should be greater than 0", ""),
    ({"analysis.confidence": 1.0}, "analysis.confidence = 1.0: should be less than 1", ""),
    ({"execution.memory_gb": 0}, "execution.memory_gb = 0: should be greater than 0", ""),
    ({"execution.processes": 0}, "execution.processes = 0: should be 'auto' or a whole number of at least 1", ""),
    ({"execution.processes": "all"}, "execution.processes = 'all': should be 'auto' or a whole number", ""),
    ({"execution.processes": True}, "execution.processes = True: should be 'auto' or a whole number", ""),
    ({"execution.cluster": "ray://head"}, "execution.cluster = 'ray://head': should be 'auto', host:port, or null", ""),
    ({"execution.device": "gpu"}, "execution.device = 'gpu': should be 'auto', 'cpu' or 'cuda'", ""),
    (
        {"search.sampler": "gpp"},
        "search.sampler = 'gpp': should be 'gp', 'tpe', 'cmaes', 'qmc', 'random' or 'nsgaii'",
        "",
    ),
    ({"partitions.alpha_1.alpha": 0.0}, "partitions.alpha_1.alpha = 0.0: should be greater than 0", ""),
    ({"attacks.sign_flip.strength": -1}, "attacks.sign_flip.strength = -1: should be greater than 0", ""),
    ({"defences.krum.rule.name": "krumm"}, "defences.krum.rule.name = 'krumm': unknown name; one of ", "'krum'?"),
    ({"attacks.alie.name": "allie"}, "attacks.alie.name = 'allie': unknown name; one of ", "did you mean 'alie'?"),
    ({"partitions.iid.name": "idd"}, "partitions.iid.name = 'idd': unknown name; one of ", "did you mean 'iid'?"),
    ({"model.name": "mpl"}, "model.name = 'mpl': unknown name; one of ", "did you mean 'mlp'?"),
    ({"training.schedule": {"name": "constnat"}}, "training.schedule.name = 'constnat': unknown name", "'constant'?"),
    ({"training.schedule": {"name": "milestones", "factor": 0.1}}, "training.schedule.at: missing", ""),
    ({"data.source.name": "digit"}, "data.source.name = 'digit': unknown name; one of ", "did you mean 'digits'?"),
    ({"data.source": "digits"}, "data.source = 'digits': should be a mapping with a name; one of ", ""),
    ({"attacks.Big": {"name": "none"}}, "attacks.Big", "should match pattern"),
    (
        {"grid.defences": ["mean", "medain"]},
        "grid.defences: 'medain' is not in defences; one of ",
        "did you mean 'median'?",
    ),
    ({"grid.attacks": ["none", "aile"]}, "grid.attacks: 'aile' is not in attacks; one of ", "did you mean 'alie'?"),
    ({"grid.partitions": ["idd"]}, "grid.partitions: 'idd' is not in partitions; one of ", "did you mean 'iid'?"),
    ({"search.studies": ["ipn"]}, "search.studies: 'ipn' is not in studies; one of ", "did you mean 'ipm'?"),
    ({"search.defences": ["maen"]}, "search.defences: 'maen' is not in defences; one of ", "did you mean 'mean'?"),
    ({"search.partition": "alpha1"}, "search.partition: 'alpha1' is not in partitions; one of ", "'alpha_1'?"),
    ({"threat.byzantine": 16}, "threat = {", "byzantine = 16 leaves less than 2 of 17 workers honest"),
    ({"grid.seeds": [0, 1, 0]}, "grid.seeds = [0, 1, 0]: an entry stands there twice", ""),
    ({"search.defences": ["mean", "mean"]}, "search.defences = ['mean', 'mean']: an entry stands there twice", ""),
    ({"grid.attacks": ["alie"]}, "grid.attacks: should hold 'none', the clean reference", ""),
    ({"attacks.none": {"name": "label_flip"}}, "attacks.none: should be {name: none}, the clean reference", ""),
    (
        {"search.confirmation_seeds": [7, 101, 100]},
        "search.confirmation_seeds: [100, 101] also stand in search.seeds; ",
        "fresh seeds",
    ),
    (
        {"threat.tolerated": 1},
        "attacks.alie.strength = None: alie has no default strength for n = 17, f = 1; give a number",
        "",
    ),
]


TOO_MUCH = [
    ({"threat.tolerated": 17}, "threat = {", "tolerated = 17 is not less than the 17 workers of a round"),
    ({"defences.steps_done": {"rule": {"name": "mean"}}}, "defences.steps_done: the curves have a column", "another"),
    ({"search.sampler_seed": 2**32}, "search.sampler_seed = 4294967296: should be less than 4294967296", ""),
    ({"tuning.sampler_seed": 2**32}, "tuning.sampler_seed = 4294967296: should be less than 4294967296", ""),
    ({"attacks." + "a" * 65: {"name": "none"}}, "attacks.aaaa", "should have at most 64 characters"),
    ({"attacks.ipm.strength": 1e39}, "attacks.ipm.strength = 1e+39: should be at most 3.4e+38", ""),
    ({"training.learning_rate": 10**400}, "training.learning_rate = 1000000", "0000: should be"),
    ({"studies.ipm.space": {"ipm": {"strength": [1.0, 1e39]}}}, "studies.ipm.space.ipm.strength.1 = 1e+39: ", "3.4e"),
    ({"training.steps": 2**60}, "training.steps = 1152921504606846976: should be at most 9.0072e+15", ""),
    ({"training.steps": 16**1000}, "training.steps = a number of more than 1000 digits: should be", ""),
    ({"model.hidden": [10**18]}, "model.hidden.0 = 1000000000000000000: should be less than or equal to 1000000", ""),
    ({"threat.workers": 10**9}, "threat.workers = 1000000000: should be less than or equal to 100000", ""),
    ({"grid.seeds": list(range(10**5))}, "grid.seeds = [0, 1, 2, 3, 4, 5, ", "should have at most 10000 items"),
    ({"grid.max_seeds": 10**5}, "grid.max_seeds = 100000: should be less than or equal to 10000", ""),
    ({"search.batch": 10**9}, "search.batch = 1000000000: should be less than or equal to 10000", ""),
    (
        {"defences.krum.rule": {"name": "smea", "max_subsets": 10**12}},
        "defences.krum.rule.max_subsets = 1000000000000: should be less than or equal to 200000",
        "",
    ),
    ({"training": {None: 3, (1, 2): 4}}, "training.None = 3: unknown key", ""),
]
MISTAKES += TOO_MUCH


@pytest.mark.parametrize(("changes", "start", "part"), MISTAKES, ids=[start[:50] for _, start, _ in MISTAKES])
def test_a_mistake_is_told_with_its_path_value_and_what_is_allowed(changes, start, part):
    (line,) = [line for line in faults(raw_parameters(changes)) if line.startswith(start)]
    assert part in line


def test_a_single_mistake_gives_a_single_line():
    for changes in ({"training.steps": "10"}, {"defences.krum.rule.name": "krumm"}, {"grid.seeds": [0, 0]}):
        assert len(faults(raw_parameters(changes))) == 1


def test_a_section_whose_name_is_no_text_is_told():
    assert faults({**raw_parameters(), None: 3})[0].startswith("None = ...: unknown section")


def test_a_thousand_mistakes_are_not_a_thousand_lines():
    lines = faults(raw_parameters({"grid.seeds": ["a"] * 1000}))
    assert lines[0].startswith("grid.seeds.0 = 'a': should be a valid integer")
    assert lines[-1] == "and 901 faults more"  # they are too few for grid.max_seeds, too
    assert len(lines) == 101


def test_a_value_that_says_itself_many_times_over_is_not_written_out(tmp_path):
    """Each alias holds the one before ten times: 10^9 words in all."""
    lines = [f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "params.yaml").write_text("\n".join(["training:", "  - &a0 [x]", *lines, "data: &me [*me]"]))
    with pytest.raises(UserError) as error:
        load(tmp_path / "params.yaml")
    assert len(str(error.value)) < 10_000


def test_a_defence_must_tolerate_the_workers_that_reach_it():
    few = {"threat": {"workers": 8, "byzantine": 3, "tolerated": 3, "sampled": None}}
    assert faults(raw_parameters(few)) == ["defences.krum: krum needs n >= 2f + 3, got n = 8, f = 3 (see threat)"]
    without_krum = {"grid.defences": ["mean"], "search.defences": ["mean"]}
    validate(raw_parameters({**few, **without_krum}))


def test_the_tolerance_is_that_of_the_transformed_workers(monkeypatch):
    from pipeline.defences.preaggregators import PREAGGREGATORS

    monkeypatch.setattr(PREAGGREGATORS["nnm"], "transforms", lambda self, n, f: (n // 2, f))
    assert faults(raw_parameters()) == [
        "defences.nnm_trimmed_mean: trimmed_mean needs n > 2f, got n = 8, f = 5 (see threat)"
    ]


def test_faults_of_all_sections_and_between_sections_are_told_at_once():
    raw = raw_parameters(
        {
            "trainig": {},
            "training.steps": "10",
            "training.momentum": 2,
            "model.name": "mpl",
            "execution.device": "gpu",
            "grid.seeds": [0, 0],
            "grid.defences": ["maen"],
        }
    )
    told = " ".join(faults(raw))
    for path in ("trainig", "training.steps", "training.momentum", "model.name", "execution.device", "grid.seeds"):
        assert f"{path} = " in told
    assert "grid.defences: 'maen' is not in defences" in told


@pytest.mark.parametrize("content", ["", "- a\n", "text\n", "3\n"])
def test_a_file_without_sections_is_refused(content, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="should be a mapping of sections"):
        load(path)


def test_a_missing_file_and_one_that_is_not_yaml_are_told(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params.yaml: not found; run this in the project's folder"):
        load(path)
    deep = b"a: " + b"[" * 3000 + b"]" * 3000
    for content in (b"a: [1", b"a: 1\na: 2\n", b"\xff\xfe\xfa", b"a: !!int abc", b"a: 2001-99-99", deep, b"a: \x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"params.yaml is not YAML"):
            load(path)


def test_an_exponent_without_a_point_is_a_number(tmp_path):
    path = tmp_path / "params.yaml"
    text = PARAMS.read_text()
    assert "learning_rate: 0.5 " in text
    path.write_text(text.replace("learning_rate: 0.5 ", "learning_rate: 1e-1 "))
    assert load(path).training.learning_rate == 0.1


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values that are no mapping; of a list the first entry is one."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for leaf in leaves(value[0], (*path, 0))] if value else []
    return [path]


WRONG = {bool: "yes?", int: "10", float: "0.1", str: -3, type(None): [[]]}


@pytest.mark.parametrize("names", [False, True])
def test_every_value_of_the_wrong_type_is_reported_under_its_own_path(names):
    """All at once; a wrong name hides the faults beside it, so names have a turn of their own."""
    raw = raw_parameters({"tuning.seeds": [300, 301], "tuning.defences": ["krum"]})
    raw["studies"] = {"alie": raw["studies"]["alie"]}
    chosen = [leaf for leaf in leaves(raw) if (leaf[-1] == "name") == names]
    for *parents, last in chosen:
        section = raw
        for key in parents:
            section = section[key]
        section[last] = WRONG[type(section[last])]
    told = {line.split(" = ")[0] for line in faults(raw)} - {"studies.alie.attacks"}  # a list of one: now too short
    expected = {".".join(map(str, leaf)) for leaf in chosen}
    assert told == expected


def test_every_parameter_is_explained():
    """A line with values has a comment at its end, or stands in a block that a comment line opens."""
    unexplained, block_comment = [], False
    for line in (ROOT / "params.yaml").read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            block_comment = text.startswith("#")
        elif not text.endswith(":") and "#" not in text and not block_comment:
            unexplained.append(text)
    assert unexplained == []


@cache
def attributes_read() -> set[str]:
    """The name of every attribute that some module of the pipeline reads."""
    trees = [ast.parse(path.read_bytes()) for path in (ROOT / "pipeline").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def subclasses(cls: type) -> set[type]:
    return {cls, *(below for direct in cls.__subclasses__() for below in subclasses(direct))}


def test_every_parameter_is_read_somewhere():
    schemas = [cls for cls in subclasses(Schema) if cls.__module__.startswith("pipeline.")]
    assert {"Params", "Grid", "Search", "Threat", "Training", "Data", "Defence", "Cell"} <= {
        c.__name__ for c in schemas
    }
    dead = {
        f"{cls.__name__}.{field}"
        for cls in schemas
        for field in cls.model_fields
        if field not in attributes_read() and not (field == "name" and issubclass(cls, Component))
    }
    assert dead == set()


def test_parameters_cannot_be_changed_after_validation():
    params = load(PARAMS)
    assert isinstance(params, Params)
    with pytest.raises(ValueError, match="frozen"):
        params.training.steps = 3
