"""The stage ``references``: what the grid's tables are read against.

``alone``: the honest workers alone, without defence. ``prolonged``: what hurts each defence most in the grid, trained
on to four times the steps, which tells a broken defence from a slow one.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pipeline.attacks import ATTACKS
from pipeline.core.component import parse
from pipeline.core.paths import DATASET
from pipeline.defences.defence import Defence
from pipeline.runs.execution import trainer
from pipeline.runs.params import DefenceEntry, Params
from pipeline.runs.plan import Planned, planned
from pipeline.runs.row import Row
from pipeline.runs.seeds import CLEAN
from pipeline.runs.store import Record, read_row

LONGER = 4  # times the steps
ABSENT = "absent"
MEAN = parse(Defence, {"rule": {"name": "mean"}}, "defences.mean")


class References(NamedTuple):
    """Records of the stage ``references``."""

    alone: list[Record]
    prolonged: list[Record]


def train_references(root: Path, params: Params) -> None:
    """Train what is missing, and keep the rest."""
    cells = {"alone": alone(params), "prolonged": prolonged(root, params)}
    rows = {title: _row(root, params, title) for title in cells}
    missing = {title: row.settle(cells[title]) for title, row in rows.items()}
    with trainer(root / DATASET, params.execution, sum(map(len, missing.values()))) as processes:
        for title, row in rows.items():
            todo = [one for one in cells[title] if one.folder in missing[title]]
            print(f"references {title}: {len(cells[title])} cells, {len(todo)} to train", flush=True)
            row.train(f"references {title}", todo, processes, heterogeneity=title == "alone")


def read_references(root: Path, params: Params) -> References:
    """Read the records of this stage.

    Raises:
        UserError: A cell is missing, damaged, or was trained with other parameters, data or code.
    """
    cells = {"alone": alone(params), "prolonged": prolonged(root, params)}
    rows = {title: _row(root, params, title) for title in cells}
    return References(*([row.read(one) for one in cells[title]] for title, row in rows.items()))


def _row(root: Path, params: Params, title: str) -> Row:
    """Return the row ``alone`` or ``prolonged``."""
    return Row(root, params, root / "results" / "references" / title, "references")


def alone(params: Params) -> list[Planned]:
    """Return the runs with the honest workers alone: the mean, with Byzantine workers that send the honest mean.

    Their seeds are those of the grid, and of the search's confirmation.

    The learning rate is that of the defence ``mean`` where params.yaml has it, else the common one.
    """
    entry = params.defences.get("mean")
    if entry is None or entry.defence != MEAN:
        entry = DefenceEntry(rule=MEAN.rule)
    changes = {"attacks": {ABSENT: ATTACKS.parse({"name": ABSENT}, "attacks")}, "defences": {"mean": entry}}
    changed, search = params.model_copy(update=changes), params.search
    seeds = {partition: params.grid.all_seeds for partition in params.grid.partitions}
    if search.studies and search.partition in seeds:
        seeds[search.partition] = tuple(dict.fromkeys((*seeds[search.partition], *search.confirmation_seeds)))
    return [planned(changed, ABSENT, "mean", partition, seed) for partition in seeds for seed in seeds[partition]]


def prolonged(root: Path, params: Params) -> list[Planned]:
    """Return each defence's worst attack on each partition with more steps, for the seeds of ``grid.seeds``.

    The worst attack is that of least mean test accuracy over all seeds that its row has, as in the tables.

    Raises:
        UserError: The grid is not trained.
    """
    longer = params.model_copy(update={"training": params.training.replace(steps=LONGER * params.training.steps)})
    records = [record for attack in params.grid.attacks if attack != CLEAN for record in read_row(root, params, attack)]
    worst = _worst_attacks(records)
    return [
        planned(longer, worst[defence, partition], defence, partition, seed)
        for defence, partition in worst
        for seed in params.grid.seeds
    ]


def _worst_attacks(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """Return the attack of least mean test accuracy by defence and partition; of equal ones the first."""
    accuracies: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in records:
        attack, *where = record.planned.group
        accuracies.setdefault((where[0], where[1]), {}).setdefault(attack, []).append(record.final["test_accuracy"])
    return {where: min(known, key=lambda attack: fmean(known[attack])) for where, known in accuracies.items()}
