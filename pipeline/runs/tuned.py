"""What the defender has tuned: read from ``results/tune`` and put into the parameters of all later stages."""

from pathlib import Path
from typing import Any

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.core.files import content_hash, read_json
from pipeline.runs.params import DefenceEntry, Params


def tune_folder(root: Path, defence: str) -> Path:
    """Return the folder of a defence's tuning."""
    return root / "results" / "tune" / defence


def tuning_key(params: Params, defence: str) -> str:
    """Return what changes with every parameter that changes what is tuned for this defence."""
    attacks = {name: params.attacks[name].content() for name in params.tuning.attacks}
    shared = [getattr(params, section).content() for section in ("model", "threat", "training")]
    tuning = {name: value for name, value in params.tuning.content().items() if name != "defences"}
    own = [params.defences[defence].content(), params.partitions[params.tuning.partition].content(), attacks]
    return content_hash([*shared, tuning, *own])


def tuned(root: Path, params: Params) -> Params:
    """Return the parameters with every tuned defence as ``results/tune`` says.

    Raises:
        UserError: A result is missing or damaged, or belongs to other parameters.
    """
    entries = {name: _tuned_entry(root, params, name) for name in params.tuning.defences}
    return params.model_copy(update={"defences": {**params.defences, **entries}})


def _tuned_entry(root: Path, params: Params, defence: str) -> DefenceEntry:
    path, again = tune_folder(root, defence) / "tuned.json", f"run `dvc repro tune@{defence}`"
    try:
        found: dict[str, Any] = read_json(path)
        key, entry = found["key"], parse(DefenceEntry, found["defence"], f"{path}: defence")
    except FileNotFoundError:
        raise UserError(f"{path}: no such result; {again}") from None
    except (OSError, KeyError, ValueError, TypeError, UserError) as error:
        raise UserError(f"{path}: not a whole result ({error}); {again}") from None
    if key != tuning_key(params, defence):
        raise UserError(f"{path}: tuned with other parameters than params.yaml states; {again}")
    parsed: DefenceEntry = entry
    return parsed
