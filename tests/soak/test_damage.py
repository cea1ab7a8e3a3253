"""Files that were edited, cut, emptied, removed or replaced are restored or refused, and never believed."""

import os
import random
import re
import shutil

import pytest
from analysable import undrawn
from support import Unwatched, blobs, parameters
from tally import SOAK

from pipeline.core.errors import UserError
from pipeline.core.files import remove
from pipeline.data.dataset import write
from pipeline.report import report, written
from pipeline.runs import store
from pipeline.runs.references import train_references
from pipeline.runs.train import train_row
from pipeline.runs.tuned import tuned
from pipeline.search.stage import search_study
from pipeline.search.tuning import tune_defence

PARAMS = parameters(
    {
        "grid.attacks": ["none", "sign_flip", "ipm"],
        "grid.defences": ["mean", "median"],
        "grid.partitions": ["alpha_03"],
        "grid.seeds": [0, 1],
        "tuning.defences": ["median"],
        "search.studies": ["ipm"],
        "search.defences": ["mean", "median"],
        "search.trials": 3,
        "search.batch": 3,
        "search.seeds": [100],
        "search.confirmation_seeds": [200, 201],
    }
)
OUTCOMES = ("restored", "refused, then restored")
REPEATS = 6 if SOAK else 1
pytestmark = [pytest.mark.soak] if SOAK else []  # in CI a sample


def edit(path, chance):
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def replace_by_folder(path, chance):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "a bit flipped": edit,
    "cut": lambda path, chance: os.truncate(path, chance.randrange(1, path.stat().st_size)),
    "empty": lambda path, chance: os.truncate(path, 0),
    "removed": lambda path, chance: path.unlink(),
    "a folder in its place": replace_by_folder,
    "unreadable": lambda path, chance: path.chmod(0),
}
if os.geteuid() == 0:
    del DAMAGE["unreadable"]  # nothing is, for root


def tune(root):
    tune_defence(root, PARAMS, "median")


def train(root):
    for attack in PARAMS.grid.attacks:
        train_row(root, tuned(root, PARAMS), attack, lambda *_: Unwatched())


def references(root):
    train_references(root, tuned(root, PARAMS))


def search(root):
    search_study(root, tuned(root, PARAMS), "ipm")


def analysis(root):
    report.analyse(root, tuned(root, PARAMS))


def quoted(root):
    written.check(root)


def prepare(root):
    write(root / "data" / "dataset.safetensors", blobs())


def trained_elsewhere(root):
    """All cells lie in the cache."""
    store.retire_rows(root, (), ["ipm"], ["median"])


def nothing(root):
    pass


def again(root):
    tune(root)
    search(root)


# Files -> what happens before the damage, and which stage writes them.
KINDS = {
    "results/train/*/*/cell.json": (nothing, train),
    "results/train/*/*/steps.csv": (nothing, train),
    "results/train/*/*/evaluations.csv": (nothing, train),
    "results/references/*/*/*.*": (nothing, references),
    "results/tune/*/tuned.json": (nothing, tune),
    "results/tune/*/trials.csv": (nothing, tune),
    "results/search/*/study.json": (nothing, search),
    "results/search/*/*.csv": (nothing, search),
    "results/metrics/*.json": (nothing, analysis),
    "results/summary.json": (nothing, analysis),
    "reports/*.*": (nothing, analysis),
    ".cellcache/evaluations/*.json": (nothing, again),
    ".cellcache/*/cell.json": (trained_elsewhere, train),
    ".cellcache/*/*.csv": (trained_elsewhere, train),
    "data/dataset.safetensors": (nothing, prepare),
}


def content(root):
    files = (path for folder in ("data", "results", "reports") for path in (root / folder).rglob("*"))
    return {path.relative_to(root): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.report.report.draw", undrawn)
        for stage in (prepare, tune, train, references, search, analysis):
            stage(root)
        yield root


def outcome(root, kind, damage, chance):
    """What readers make of the damage, and then the stage that owns the file, as `dvc repro` starts it."""
    before, owner = KINDS[kind]
    whole = content(root)
    before(root)
    DAMAGE[damage](chance.choice(sorted(root.glob(kind))), chance)
    stages = (quoted, analysis, owner) if before is nothing else (owner,)
    told = "restored"
    for stage in (*stages, analysis):
        try:
            stage(root)
        except UserError as error:
            told = "refused, then restored"
            if not helped(error, root, stage):
                return f"a useless error: {error}"
    return told if content(root) == whole else "believed"


def helped(error, root, stage):
    """Whether an error is one line with advice that leads on."""
    if "a folder stands where a file is to be written" in str(error):
        remove(root / str(error).partition(":")[0])
        stage(root)
        return True
    return stage in (quoted, analysis) and re.search(r": .*run `dvc repro .*`$", str(error)) is not None


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_damage_is_believed(damage, original, tmp_path, tally):
    chance = random.Random(damage)
    for kind in KINDS if SOAK else chance.sample(sorted(KINDS), 1):
        for number in range(REPEATS):
            root = tmp_path / "project"
            shutil.copytree(original, root)
            tally.note(damage, outcome(root, kind, damage, chance), f"{kind}, trial {number}")
            remove(root)
    assert tally.lost == []
