"""Parameters that were changed at random are refused in words, or a whole tiny run comes of them."""

import random
import shutil
import signal
import sys
from contextlib import contextmanager, suppress
from copy import deepcopy
from io import StringIO
from typing import get_args

import pytest
from ruamel.yaml import YAML
from support import SMALL, raw_parameters

from pipeline import __main__ as command_line
from pipeline.core.errors import UserError
from pipeline.runs.params import load
from pipeline.search import forecast

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # in MLflow's code
TRIALS, SAMPLE = 1000, 40
OUTCOMES = ("refused", "run", "valid")  # valid: accepted, and too large to be run here
LONGEST, LARGEST = 100_000, 100_000  # steps of all cells together, and parameters of the model, of a run that is tiny
SECONDS = 300  # of the processor, in which it ends
TINY = {
    **SMALL,
    "training.steps": 4,
    "training.evaluate_every": 2,
    "grid.attacks": ["none", "ipm", "alie"],
    "grid.defences": ["mean", "krum", "nnm_trimmed_mean"],
    "grid.partitions": ["alpha_1"],
    "grid.seeds": [0, 1],
    "tuning.defences": ["mean"],
    "tuning.partition": "alpha_1",
    "tuning.trials": 2,
    "tuning.batch": 2,
    "search.studies": ["ipm"],
    "search.defences": ["mean", "krum"],
    "search.partition": "alpha_1",
    "search.trials": 3,
    "search.batch": 3,
    "search.seeds": [100],
    "search.confirmation_seeds": [200, 201],
}
WHOLE = [0, 1, 2, 3, 5, 6, 7, 9, 10, 17, 64, 100, 300, 10**4, 10**6, 10**9, 10**12, 10**18, 2**32, 2**53, 10**40, -1]
BROKEN = [0.0, -0.0, 5e-324, 1e-40, 1e-9, 0.01, 0.3, 0.5, 0.999999, 1.0, 1.5, 30.0, 1e9, 3e38, 1e39, 1e308, -0.1]
ODD = [None, True, False, float("nan"), float("inf"), "", " ", "none", "auto", "mean", "x" * 300, "a b", "é", "../x"]
ODD += ["/", "a.b", "%", "1", "1e3", "null", [], {}, [1], [0, 0], [[]], [None], {"name": "mean"}, {"name": "x"}, {1: 2}]
TEXTS = ["[" * 3000, "!!int abc", "2001-99-99", "2001-01-01", "!!float x", "!!bool x", "!!timestamp x", "&a [*a]"]
TEXTS += ["*b", "!!binary x", "!!set {a, b}", "!!python/object:os.system x", "- a", "? [a, b] : c", "<<: 3", "|"]
TEXTS += [
    "0x" + "f" * 5000,
    "9" * 5000,
    "\x00",
    "\x85",
    "\ud7ff",
    "\t",
    "'",
    '"',
    "%YAML 3.0",
    "---",
    "...",
    "{",
    ": :",
]


def places(value, path=()):
    """The paths of all values, those of mappings and lists included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def at(raw, path):
    for key in path:
        raw = raw[key]
    return raw


def another_value(raw, chance):
    """Replace a number by another, a name by another; now and then any value by something odd."""
    if chance.random() < 0.2:
        *parents, last = chance.choice(places(raw)[1:])
        at(raw, parents)[last] = deepcopy(chance.choice(chance.choice([WHOLE, BROKEN, ODD])))
        return
    leaves = [place for place in places(raw)[1:] if not isinstance(at(raw, place), dict | list)]
    *parents, last = chance.choice([place for place in leaves if place[-1] != "name"])
    section = at(raw, parents)
    names = [*raw["attacks"], *raw["defences"], *raw["partitions"]]
    alike = {int: WHOLE, float: BROKEN, bool: [True, False], str: names}.get(type(section[last]), [*WHOLE, *BROKEN])
    section[last] = chance.choice(alike)


def another_place(raw, chance):
    """Copy one value over another."""
    *parents, last = chance.choice(places(raw)[1:])
    at(raw, parents)[last] = deepcopy(at(raw, chance.choice(places(raw)[1:])))


def another_key(raw, chance):
    """Remove, rename or add a key."""
    section = at(
        raw, chance.choice([path for path in places(raw) if isinstance(at(raw, path), dict) and at(raw, path)])
    )
    key = chance.choice(list(section))
    kept = section[key] if chance.random() < 0.3 else section.pop(key)
    if chance.random() < 0.7:
        new = chance.choice([f"{key}x", "steps_done", "name", "strength", "a" * 300, "none", "", 3, None, True, 0.5])
        section[new] = deepcopy(kept)


def one_for(field, chance):
    """A value for a field of a component, as a rule one of its type."""
    kinds = {field.annotation, *get_args(field.annotation)}
    alike = [*(field.examples or []), *([] if field.is_required() else [field.default])]
    alike += [
        value
        for kind, values in ((int, WHOLE), (float, BROKEN), (bool, [True, False]))
        if kind in kinds
        for value in values
    ]
    literal = [value for value in kinds if isinstance(value, str | int)]
    return deepcopy(chance.choice([*alike, *literal, *WHOLE[:5]]))


def another_component(raw, chance):
    """Take another rule, attack, partition, model, schedule or source, with its parameters."""
    from pipeline.attacks import ATTACKS
    from pipeline.data.partitions import PARTITIONS
    from pipeline.defences.aggregators import AGGREGATORS
    from pipeline.defences.preaggregators import PREAGGREGATORS
    from pipeline.simulator.local_updates import LOCAL_UPDATES
    from pipeline.simulator.models import MODELS
    from pipeline.simulator.schedules import SCHEDULES

    def one_of(registry):
        cls = registry[chance.choice(registry.names)]
        fields = {name: field for name, field in cls.model_fields.items() if name != "name"}
        values = {name: one_for(field, chance) for name, field in fields.items()}
        chosen = {name: value for name, value in values.items() if fields[name].is_required() or chance.random() < 0.4}
        return {"name": cls.model_fields["name"].default, **chosen}

    where = chance.choice(["attack", "rule", "before", "partition", "model", "schedule", "local_update"])
    if where == "attack":
        raw["attacks"]["ipm"] = one_of(ATTACKS)
    elif where == "rule":
        raw["defences"]["krum"]["rule"] = one_of(AGGREGATORS)
    elif where == "before":
        raw["defences"]["nnm_trimmed_mean"]["before"] = [one_of(PREAGGREGATORS) for _ in range(chance.randrange(3))]
    elif where == "partition":
        raw["partitions"]["alpha_1"] = one_of(PARTITIONS)
    elif where == "model":
        raw["model"] = one_of(MODELS)
    else:
        raw["training"][where] = one_of(SCHEDULES if where == "schedule" else LOCAL_UPDATES)


CHANGES = [*[another_value] * 8, *[another_component] * 4, another_place, another_key]


def mutated(chance):
    """Return the text of a params.yaml with some changes of its values, or of its characters."""
    raw = raw_parameters(TINY)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        with suppress(LookupError, TypeError):  # an earlier change may have left nothing to be changed so
            chance.choice(CHANGES)(raw, chance)
    text = StringIO()
    YAML(typ="safe").dump(raw, text)
    lines = text.getvalue().splitlines()
    if chance.random() < 0.1:
        line = chance.randrange(len(lines))
        head = lines[line].split(":")[0]
        lines[line] = chance.choice([f"{head}: {chance.choice(TEXTS)}", chance.choice(TEXTS), lines[line][1:], ""])
    return "\n".join(lines)


class TooLong(Exception):
    pass


@contextmanager
def time_limit():
    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def stages(params):
    yield from (["download"], ["prepare"])
    yield from (["tune", name] for name in params.tuning.defences)
    yield from (["train", name] for name in params.grid.attacks)
    yield ["references"]
    yield from (["search", name] for name in params.search.studies)
    yield from (["analysis"], ["track"])


def tiny(params):
    data = params.data.source.format
    small = params.model.network(data.shape, data.classes).size <= LARGEST
    return small and sum(work.most * work.steps for work in forecast.works(params)) <= LONGEST


class Run:
    """Runs every stage as the command line does."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def outcome(self):
        """Return what comes of params.yaml: ``refused``, ``run``, ``valid``, or a fault."""
        try:
            params = load(self.folder / "params.yaml")
        except UserError:
            return "refused"
        if not tiny(params):
            return "valid"
        for stage in stages(params):
            self.monkeypatch.setattr(sys, "argv", ["pipeline", *stage])
            code = command_line.main()
            told = self.capsys.readouterr().err
            if code != 0:
                return "refused" if code == 1 and told.startswith("error: ") else f"{stage}: {told[-300:]}"
        return "run"


def files(folder, count):
    """Yield folders, each with a params.yaml that was changed at random."""
    chance = random.Random(1)
    for trial in range(count):
        here = folder / str(trial)
        here.mkdir()
        (here / "params.yaml").write_bytes(mutated(random.Random(chance.random())).encode("utf-8", "surrogatepass"))
        yield here


def test_changed_parameters_are_valid_or_refused_in_words(tmp_path):
    told = []
    for folder in files(tmp_path, SAMPLE):
        try:
            load(folder / "params.yaml")
        except UserError as error:
            told.append(str(error))
    assert 0.1 * SAMPLE < len(told) < 0.9 * SAMPLE
    assert all(0 < len(text) < 40_000 for text in told)


@pytest.mark.soak
@pytest.mark.usefixtures("no_mlflow_environment")
def test_changed_parameters_are_refused_in_words_or_run(tally, tmp_path, monkeypatch, capsys, database):
    for folder in files(tmp_path, TRIALS):
        (folder / "tracking").mkdir()
        (folder / "tracking" / "mlflow.db").write_bytes(database)
        monkeypatch.chdir(folder)
        try:
            with time_limit():
                found = Run(folder, monkeypatch, capsys).outcome()
        except TooLong:
            found = f"not over after {SECONDS} s"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"[:300]
        good = found in tally.outcomes
        tally.note("parameters", found if good else "lost", f"{folder.name}: {found}")
        if good:
            shutil.rmtree(folder)
    assert tally.lost == []
