"""Made-up results in the shape of real ones, where a test is not about training."""

import json
import math
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from searched import study

from pipeline.runs import params as parameters
from pipeline.runs.plan import grid_row
from pipeline.runs.store import Record
from pipeline.simulator.metrics import EVALUATION_METRICS, FINAL_METRICS, STEP_METRICS
from pipeline.tracking.live import LiveRow
from pipeline.tracking.runs import analysis_run
from pipeline.tracking.searches import study_runs

PROJECT = Path(__file__).parents[1]
DATA_HASH = "0123456789abcdef" * 4
STEPS, EVERY = 7, 3
EVALUATED = [0, 3, 6, 7]


def params(**grid):
    """The project's parameters with a small grid."""
    raw = YAML(typ="safe").load((PROJECT / "tests" / "params.yaml").read_text(encoding="utf-8"))
    raw["training"] |= {"steps": STEPS, "evaluate_every": EVERY}
    raw["grid"] |= {"attacks": ["none", "ipm"], "defences": ["mean", "krum"], "seeds": [0, 1, 2]}
    raw["grid"] |= {"partitions": ["alpha_03"], **grid}
    raw["grid"]["max_seeds"] = len(raw["grid"]["seeds"])
    raw["search"]["studies"] = ["ipm"]
    return parameters.validate(raw)


def record(planned, data_hash=DATA_HASH):
    """A made-up result: numbers that float32 holds, as the simulator gives them; one metric is never defined."""
    stream = np.random.default_rng([ord(letter) for letter in planned.attack + planned.folder])

    def series(size):
        return stream.uniform(size=size).astype(np.float32).astype(float)

    steps = {"step": np.arange(STEPS, dtype=float), **{name: series(STEPS) for name in STEP_METRICS}}
    steps["byzantine_weight"][:] = math.nan
    evaluations = {"steps_done": np.array(EVALUATED, dtype=float)}
    evaluations |= {name: series(len(EVALUATED)) for name in EVALUATION_METRICS}
    final = {**dict(zip(FINAL_METRICS, series(len(FINAL_METRICS)), strict=True)), "diverged": 1.0}
    return Record(planned, planned.cell.key(data_hash, {}), final, steps, evaluations)


def row(of, attack="ipm", **how):
    return [record(planned, **how) for planned in grid_row(of, attack)]


def train(live, records):
    """Call what the simulator calls, with the float32 values of a batch that holds all cells of ``records``."""
    watch = live.watch([found.planned for found in records])
    for position, done in enumerate(EVALUATED):
        values = {name: [found.evaluations[name][position] for found in records] for name in EVALUATION_METRICS}
        if done:
            values |= {name: [found.steps[name][done - 1] for found in records] for name in STEP_METRICS}
        watch(done, {name: np.array(column, dtype=np.float32) for name, column in values.items()})


def live_row(tracker, records, attack="ipm"):
    keys = {found.planned.folder: found.key for found in records}
    return LiveRow(tracker, attack, [found.planned for found in records], keys)


def search(root, name="ipm", mode="strength", key="a" * 16, picture=b"\x89PNG"):
    """What MLflow is to show of a study of three trials against two defences."""
    folder = root / "results" / "search" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trials.csv").write_text("defence")
    (folder / "study.json").write_text("{}")
    (root / f"strength.{name}.png").write_bytes(picture)
    found = study(name, mode, defences=("mean", "krum"), trials=3, key=key)
    return study_runs(found, folder, [root / f"strength.{name}.png"], 0.95)


def analysis(root, accuracy, **pictures):
    """What MLflow is to show of a summary and reports."""
    (root / "reports" / "figures").mkdir(parents=True, exist_ok=True)
    (root / "reports" / "report.md").write_text("# Report")
    (root / "reports" / "figures" / "heatmap.png").write_bytes(b"\x89PNG")
    summary = root / "results" / "summary.json"
    summary.parent.mkdir(exist_ok=True)
    summary.write_text(json.dumps({"krum": {"worst": accuracy, "attack": "ipm", "found": None, "sure": True}}))
    return analysis_run(summary, root / "reports", pictures)
