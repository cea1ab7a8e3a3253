"""What the defender has tuned: read from ``results/tune`` and put into the parameters of all later stages."""

from pathlib import Path
from typing import Any

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.core.files import content_hash, read_sealed
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash
from pipeline.runs.params import DefenceEntry, Params
from pipeline.runs.plan import planned


def tune_folder(root: Path, defence: str) -> Path:
    """Return the folder of a defence's tuning."""
    return root / "results" / "tune" / defence


def tuning_key(params: Params, defence: str, data: str) -> str:
    """Return a hash of everything that determines what is tuned for this defence, but for what computes it.

    Args:
        params: Of params.yaml.
        defence: A name in ``tuning.defences``.
        data: The hash of the prepared data.
    """
    attacks = {name: params.attacks[name].content() for name in params.tuning.attacks}
    shared = [getattr(params, section).content() for section in ("model", "threat", "training")]
    tuning = {name: value for name, value in params.tuning.content().items() if name != "defences"}
    own = [params.defences[defence].content(), params.partitions[params.tuning.partition].content(), attacks]
    cells = [planned(params, name, defence, params.tuning.partition, seed=0).cell for name in attacks]
    return content_hash([*shared, tuning, *own, data, [cell.code for cell in cells]])


def tuned(root: Path, params: Params) -> Params:
    """Return the parameters with every tuned defence as ``results/tune`` says.

    Raises:
        UserError: A result is missing or damaged, or belongs to other parameters, data or code.
    """
    entries = {name: _tuned_entry(root, params, name) for name in params.tuning.defences}
    return params.model_copy(update={"defences": {**params.defences, **entries}})


def _tuned_entry(root: Path, params: Params, defence: str) -> DefenceEntry:
    path = tune_folder(root, defence) / "tuned.json"
    found = read_tuned(root, defence)
    if found["key"] != tuning_key(params, defence, data_hash(root / DATASET)):
        raise UserError(
            f"{path}: tuned with other parameters, data or code than the present ones; run `dvc repro tune@{defence}`"
        )
    parsed: DefenceEntry = parse(DefenceEntry, found["defence"], f"{path}: defence")
    return parsed


def read_tuned(root: Path, defence: str) -> dict[str, Any]:
    """Return what ``tuned.json`` holds: ``key``, ``trial`` (its number), ``defence`` (the entry) and ``files``.

    Raises:
        UserError: The file is missing, or not as it was written.
    """
    path = tune_folder(root, defence) / "tuned.json"
    try:
        return read_sealed(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such result; run `dvc repro tune@{defence}`") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole result ({error}); run `dvc repro -f -s tune@{defence}`") from None
