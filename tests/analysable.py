"""A project that the stage ``analysis`` can read: data, made-up cells and studies on disk."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from support import blobs

from pipeline.core.files import file_hash, write_sealed, write_text
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash, write
from pipeline.report.pictures import draw_labels
from pipeline.report.search_results import COLUMNS
from pipeline.runs import store
from pipeline.runs.cell_files import read_cell, write_cell
from pipeline.runs.plan import grid_row
from pipeline.search.study import Study
from pipeline.simulator.loop import Result
from pipeline.simulator.metrics import STEP_METRICS

GRID = {
    "grid.attacks": ["none", "sign_flip", "ipm"],
    "grid.defences": ["mean", "krum", "median"],
    "grid.partitions": ["iid", "alpha_03"],
    "grid.seeds": [0, 1],
    "search.studies": ["sign_flip", "alie"],
    "search.defences": ["mean", "krum"],
    "search.trials": 3,
    "search.seeds": [100, 101],
    "search.confirmation_seeds": [200, 201],
}
ACCURACY = {"none": 0.9, "sign_flip": 0.2, "ipm": 0.6}


def fabricated(attack, defence, seed) -> Result:
    """A cell's result; krum is hurt most by ipm, every other defence by sign_flip."""
    swapped = {"sign_flip": "ipm", "ipm": "sign_flip"} if defence == "krum" else {}
    accuracy = ACCURACY[swapped.get(attack, attack)] + 0.01 * seed
    curves = {"validation_accuracy": np.array([0.1, accuracy]), "validation_loss": np.array([2.3, 0.5])}
    final = {"validation_accuracy": accuracy, "validation_loss": 0.5, "test_accuracy": accuracy, "test_loss": 0.5}
    return Result({name: np.zeros(6) for name in STEP_METRICS}, [0, 6], curves, {**final, "diverged": 0.0})


def rewrite(folder, final=(), steps=()):
    """Change what a cell holds, as if it had been measured so."""
    found = read_cell(folder)
    columns, curves = {**found.steps, **dict(steps)}, dict(found.evaluations)
    del columns["step"]
    evaluated = curves.pop("steps_done").astype(int).tolist()
    write_cell(folder, found.identity, Result(columns, evaluated, curves, {**found.final, **dict(final)}))


def write_grid(root, params):
    for attack in params.grid.attacks:
        row = store.row_folder(root, attack)
        row.mkdir(parents=True)
        for planned in grid_row(params, attack):
            identity = planned.cell.identity(data_hash(root / DATASET), {})
            store.write(row, planned, identity, fabricated(attack, planned.defence, planned.cell.seed))


def measured(seeds, degradation) -> list[dict]:
    return [
        {
            "seed": seed,
            "clean_accuracy": 0.9,
            "attacked_accuracy": 0.9 - degradation - 0.001 * seed,
            "degradation": degradation + 0.001 * seed,
            "diverged": False,
            "flagged": math.nan,
        }
        for seed in seeds
    ]


def write_study(root, params, name):
    """A study of one attack: the default costs 0.1, the found strength 7 costs 0.3, for each defence."""
    search, declared, folder = params.search, Study(params, name), root / "results" / "search" / name
    (attack,), byzantine = declared.declared.attacks, params.threat.byzantine
    default = declared.literature(attack, byzantine)[0]

    def rows(seeds, strength, degradation, **names):
        parameters = json.dumps({**default, "strength": strength}, sort_keys=True)
        what = {"byzantine": byzantine, **names, "attack": attack, "parameters": parameters}
        return [{**what, **row} for row in measured(seeds, degradation)]

    tried = [("literature", default["strength"]), ("grid", 0.5), ("sampler", 7.0)]
    candidates = [("literature", 0, default["strength"], 0.1), ("found", 2, 7.0, 0.3)]
    defences, fresh = sorted(search.defences), search.confirmation_seeds
    tables = {
        "trials": [
            row
            for d in defences
            for trial, (origin, strength) in enumerate(tried)
            for row in rows(search.seeds, strength, 0.1 * trial, defence=d, trial=trial, origin=origin)
        ],
        "confirmation": [
            row
            for d in defences
            for candidate, trial, strength, degradation in candidates
            for row in rows(fresh, strength, degradation, defence=d, candidate=candidate, trial=trial)
        ],
        "transfer": [
            row
            for found_for in defences
            for applied_to in defences
            for row in rows(
                fresh,
                7.0,
                0.3 if found_for == applied_to else 0.2,
                from_defence=found_for,
                to_defence=applied_to,
                trial=2,
            )
        ],
    }
    for title, found in tables.items():
        write_text(folder / f"{title}.csv", pd.DataFrame(found)[COLUMNS[title]].to_csv(index=False))
    files = {title: file_hash(folder / f"{title}.csv") for title in tables}
    made = {"key": "k", "made_with": declared.made_with(data_hash(root / DATASET)), "stopped_after": 3, "files": files}
    write_sealed(folder / "study.json", {**declared.description(), **made})


def results(root, params) -> Path:
    write(root / DATASET, blobs())
    write_grid(root, params)
    for name in params.search.studies:
        write_study(root, params, name)
    return root


def undrawn(params, data, findings):
    """Take the place of ``report.draw`` where only text and tables matter: drawing all takes seconds."""
    return {"labels": draw_labels(params, data)}


def outputs(root) -> dict[str, bytes]:
    found = [root / "results" / "summary.json"]
    found += [path for folder in ("results/metrics", "reports") for path in (root / folder).rglob("*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}
