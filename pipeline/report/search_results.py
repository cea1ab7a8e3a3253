"""The files of a study, read back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, read_sealed
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash
from pipeline.runs.cell_files import fractions
from pipeline.runs.params import Params
from pipeline.search.pruning import COLUMNS as PRUNED
from pipeline.search.study import Study

MEASURED = ["seed", "clean_accuracy", "attacked_accuracy", "degradation", "diverged", "flagged"]
COLUMNS = {
    "trials": ["defence", "byzantine", "trial", "origin", "attack", "parameters", *MEASURED],
    "confirmation": ["defence", "byzantine", "candidate", "trial", "attack", "parameters", *MEASURED],
    "transfer": ["from_defence", "to_defence", "byzantine", "trial", "attack", "parameters", *MEASURED],
    "pruned": [*PRUNED],
}

MADE = ("key", "made_with", "stopped_after", "files")  # what study.json holds beside the study's description


@dataclass(frozen=True)
class StudyResult:
    """What a study left behind.

    Attributes:
        name: Its name in params.yaml.
        description: ``study.json``: ``key``, ``mode``, ``attacks``, ``partition``, ``content`` (the search section,
            with the study's sampler), ``spaces`` (attack -> parameter -> ``low``, ``high``, ``log`` or
            ``choices``), ``literature`` (attack -> list of parameters, the default first, at the threat of
            params.yaml), ``absent`` (``defence``, ``byzantine``, ``reason``), ``stopped_after`` (trials),
            ``files`` (table -> sha256 of its file), ``made_with`` (hashes of ``data`` and ``code``).
        trials: One row per (defence, byzantine, trial, seed), on validation data; without those that ended early.
        confirmation: One row per (defence, byzantine, candidate, seed), on test data with fresh seeds.
        transfer: One row per (from_defence, to_defence, seed), with the confirmation's seeds; None where there is none.
        pruned: One row per (defence, byzantine, trial, seed) of the trials that ended early; None without a pruner.
    """

    name: str
    description: dict[str, Any]
    trials: pd.DataFrame
    confirmation: pd.DataFrame
    transfer: pd.DataFrame | None
    pruned: pd.DataFrame | None = None


def read_study(root: Path, params: Params, name: str) -> StudyResult:
    """Read one study; ``parameters`` columns stay JSON text.

    Raises:
        UserError: The study is missing, damaged, or was made with other parameters, data or code.
    """
    folder, again = root / "results" / "search" / name, f"run `dvc repro search@{name}`"
    study = Study(params, name)
    asked = {
        "transfer": study.mode == "strength" and params.search.transfer,
        "pruned": params.search.pruner is not None,
    }
    titles = [title for title in COLUMNS if asked.get(title, True)]
    if not folder.exists():
        raise UserError(f"{folder}: no such result; {again}")
    try:
        description = read_sealed(folder / "study.json")
        tables = {title: _read(folder, title, description["files"][title]) for title in titles}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: not a whole result ({error}); run `dvc repro -f -s search@{name}`") from None
    wanted = _as_json(study.description())
    if {part: value for part, value in description.items() if part not in MADE} != wanted:
        raise UserError(f"{folder}: searched with other parameters than params.yaml states; {again}")
    if description["made_with"] != study.made_with(data_hash(root / DATASET)):
        raise UserError(f"{folder}: searched with other data than {DATASET} holds, or other code; {again}")
    return StudyResult(
        name, description, tables["trials"], tables["confirmation"], tables.get("transfer"), tables.get("pruned")
    )


def _read(folder: Path, title: str, written: str) -> pd.DataFrame:
    if file_hash(folder / f"{title}.csv") != written:
        raise ValueError(f"{title}.csv is not as it was written")
    table = pd.read_csv(folder / f"{title}.csv", dtype={"flagged": float})
    if list(table.columns) != COLUMNS[title]:
        raise ValueError(f"{title}.csv has other columns")
    shares = table.filter(regex="accuracy$")
    if not fractions(shares) or not fractions(table.filter(items=["flagged"]), or_nan=True):
        raise ValueError(f"{title}.csv has a share outside 0 to 1")
    return table


def _as_json(value: Any) -> Any:
    """Return ``value`` as it would come back from a JSON file: tuples as lists."""
    return json.loads(json.dumps(value))
