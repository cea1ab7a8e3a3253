"""Print the SHA-256 of the results of a few cells, in full precision, as ``{precision attack: {defence: hash}}``.

A script, because what it computes could depend on how its process was started: see test_golden.py.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import torch
from support import raw_parameters, train

from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.data.prepare import prepare
from pipeline.runs.params import Params, validate
from pipeline.runs.plan import grid_row

SIX = ["mean", "median", "trimmed_mean", "krum", "geometric_median", "nnm_trimmed_mean"]
EVERY_DEFAULT = {"grid.partitions": ["alpha_03"], "grid.seeds": [0], "grid.defences": SIX}
OTHER_DEFENCES = {
    "bulyan": {"rule": {"name": "bulyan"}},
    "caf": {"rule": {"name": "caf"}},
    "smea": {"rule": {"name": "smea"}},
    "bucketing_clipping": {"before": [{"name": "bucketing"}], "rule": {"name": "centered_clipping"}},
    "arc_phocas": {"before": [{"name": "arc"}], "rule": {"name": "phocas"}},
}
FEW_ATTACKERS = {"workers": 17, "byzantine": 3, "tolerated": 3, "sampled": None}
RUNS = {
    "float64 ipm": ("ipm", {"training.steps": 40}),
    "float64 alie": ("alie", {"training.steps": 40}),
    "float64 label_flip": ("label_flip", {"training.steps": 40}),
    "float32 ipm": ("ipm", {"training.steps": 20, "training.precision": "float32"}),
    "other defences": (
        "gaussian",
        {
            "training.steps": 8,
            "threat": FEW_ATTACKERS,
            "defences": {**OTHER_DEFENCES, "mean": {"rule": {"name": "mean"}}},
            "attacks.gaussian": {"name": "gaussian"},
            "grid.attacks": ["none", "gaussian"],
            "grid.defences": list(OTHER_DEFENCES),
            "search.defences": ["mean"],
        },
    ),
}


def digest(result) -> str:
    numbers = [*result.steps.values(), *result.evaluations.values(), torch.tensor(list(result.final.values())).numpy()]
    return hashlib.sha256(b"".join(series.tobytes() for series in numbers)).hexdigest()


def digits(params: Params) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        params.data.source.download(Path(folder))
        prepare(params.data, Path(folder), Path(folder) / "dataset.safetensors")
        return dataset.load(Path(folder) / "dataset.safetensors")


def hashes(attack: str, changes: dict) -> dict[str, str]:
    params = validate(raw_parameters({**EVERY_DEFAULT, **changes}))
    row = grid_row(params, attack)
    results = train([planned.cell for planned in row], digits(params))
    return {planned.defence: digest(result) for planned, result in zip(row, results, strict=True)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: hashes(*run) for name, run in RUNS.items()}, indent=1))
