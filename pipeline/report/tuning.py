"""What tuning a defence changed: its worst-case accuracy with the common learning rate beside that with its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.errors import UserError
from pipeline.core.files import file_hash
from pipeline.report.intervals import over_seeds
from pipeline.runs.cell_files import fractions
from pipeline.runs.tuned import read_tuned, tune_folder

COMMON = "common"
TRIAL = ["trial", "origin", "learning_rate", "parameters"]


@dataclass(frozen=True)
class Tuning:
    """How the defences were tuned, on validation data.

    Attributes:
        trials: Defence -> one row per (trial, attack, seed): ``TRIAL``, ``attack``, ``seed``, ``accuracy``. The first
            trial is that with the common learning rate.
        chosen: Defence -> the number of the trial that was chosen.
    """

    trials: Mapping[str, pd.DataFrame]
    chosen: Mapping[str, int]


def read_tuning(root: Path, defences: Sequence[str]) -> Tuning | None:
    """Return how the defences were tuned; None where none is.

    Raises:
        UserError: A result is missing or damaged.
    """
    if not defences:
        return None
    read = {defence: _read(root, defence) for defence in defences}
    return Tuning(
        {name: trials for name, (trials, _) in read.items()}, {name: best for name, (_, best) in read.items()}
    )


def _read(root: Path, defence: str) -> tuple[pd.DataFrame, int]:
    file, found = tune_folder(root, defence) / "trials.csv", read_tuned(root, defence)
    try:
        if file_hash(file) != found["files"]["trials"]:
            raise ValueError("not as it was written")
        trials = pd.read_csv(file)
        if not fractions(trials["accuracy"]):
            raise ValueError("an accuracy is outside 0 to 1")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not a whole result ({error}); run `dvc repro -f -s tune@{defence}`") from None
    return trials, int(found["trial"])


def tuning_trials(tuning: Tuning, confidence: float) -> pd.DataFrame:
    """Return one row per (defence, trial): the attack under which its mean accuracy is lowest, and that accuracy.

    ``chosen`` marks the trial that was chosen.
    """
    tables = [_worst(rows, confidence).assign(defence=defence) for defence, rows in tuning.trials.items()]
    table = pd.concat(tables, ignore_index=True)
    table["chosen"] = table["trial"] == table["defence"].map(dict(tuning.chosen))
    return table[["defence", *TRIAL, "attack", "seeds", "accuracy", "accuracy_half_width", "chosen"]]


def _worst(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    means: pd.DataFrame = rows.groupby([*TRIAL, "attack"], sort=False, dropna=False).agg(
        seeds=("seed", "count"), **over_seeds("accuracy", "accuracy", confidence)
    )
    means = means.reset_index()
    return means.loc[means.groupby("trial", sort=False)["accuracy"].idxmin()].reset_index(drop=True)


def tuned_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row per defence: worst-case accuracy with the common learning rate, and with what was chosen.

    ``gain`` is the chosen accuracy minus the common one. Both are the best of several noisy trials at most, on
    validation data, so the gain is a little too large; where the common rate was chosen, it is 0.

    Args:
        trials: Of :func:`tuning_trials`.
    """
    return pd.DataFrame([_tuned(str(name), rows) for name, rows in trials.groupby("defence", sort=False)])


def _tuned(defence: str, trials: pd.DataFrame) -> dict[str, Any]:
    common, chosen = trials[trials["origin"] == COMMON].iloc[0], trials[trials["chosen"]].iloc[0]
    sides = {f"{name}_": row for name, row in ((COMMON, common), ("tuned", chosen))}
    told = ("learning_rate", "attack", "accuracy", "accuracy_half_width")
    return {
        "defence": defence,
        "trials": len(trials),
        "seeds": chosen["seeds"],
        **{f"{prefix}{name}": row[name] for prefix, row in sides.items() for name in told},
        "tuned_parameters": chosen["parameters"],
        "gain": chosen["accuracy"] - common["accuracy"],
    }
