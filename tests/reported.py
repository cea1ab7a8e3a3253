"""A whole study made up, as the report receives it: two-humped accuracies, more seeds where they scatter more."""

import json

import numpy as np
import pandas as pd
from searched import study

from pipeline.report.tables import Results
from pipeline.report.tuning import Tuning
from pipeline.runs.plan import Planned, planned
from pipeline.runs.store import Record

COMMON_RATE, FACTOR = 0.5, 4


def stream(*names) -> np.random.Generator:
    return np.random.default_rng([sum(ord(letter) * (place + 1) for place, letter in enumerate(str(names)))])


def chance_of_collapse(attack, defence) -> float:
    """From 0 to 1, another for each pair; nothing collapses without attack."""
    return 0.0 if attack in ("none", "absent") else float(stream(attack, defence).beta(0.4, 0.9))


def accuracy(attack, defence, seed) -> float:
    draw = stream(attack, defence, seed)
    collapsed = draw.random() < chance_of_collapse(attack, defence)
    clean = 0.95 - 0.03 * stream(defence).random() + 0.005 * stream(seed).normal()
    return float(np.clip(0.12 + 0.05 * draw.random() if collapsed else clean - 0.05 * draw.random(), 0, 1))


def record(cell: Planned, final: float) -> Record:
    steps = cell.cell.training.steps
    done = np.linspace(0, steps, 6).round()
    draw = stream(*cell.group, cell.cell.seed, steps)
    curves = {"validation_accuracy": 0.1 + (final - 0.1) * done / steps, "validation_loss": 2.3 - done / steps}
    if cell.attack == "absent":  # where the stage measures it
        curves |= {"g_squared": 1 + draw.random(6), "b_squared": 1 + draw.random(6) + done / steps}
    measured = {"validation_accuracy": final, "validation_loss": 1.0, "test_accuracy": final, "test_loss": 1.0}
    kappa = {"empirical_kappa": np.append(draw.gamma(2, 0.2, steps - 1), np.nan)}
    return Record(cell, "key", {**measured, "diverged": 0.0}, kappa, {"steps_done": done, **curves})


def grid(params, seeds) -> list[Record]:
    """All seeds without attack; under attack the first fifth of them where none collapses."""
    records = []
    for attack in params.grid.attacks:
        for defence in params.grid.defences:
            certain = attack != "none" and chance_of_collapse(attack, defence) < 0.05
            for partition in params.grid.partitions:
                for seed in seeds[: len(seeds) // 4 if certain else None]:
                    cell = planned(params, attack, defence, partition, seed)
                    records.append(record(cell, accuracy(attack, defence, seed)))
    return records


def honest_alone(params, seeds) -> list[Record]:
    cells = [planned(params, "none", "mean", name, seed).cell for name in params.grid.partitions for seed in seeds]
    names = [name for name in params.grid.partitions for _ in seeds]
    planned_alone = [Planned("absent", "mean", name, cell) for name, cell in zip(names, cells, strict=True)]
    return [record(cell, 0.955 + 0.005 * stream(cell.cell.seed).normal()) for cell in planned_alone]


def trained_on(records, worst, gains) -> list[Record]:
    """The rows of ``worst`` (groups) trained four times as long; a gain for each, in turn."""
    gain_of = {group: gains[place % len(gains)] for place, group in enumerate(worst)}
    longer = []
    for found in records:
        if found.planned.group in gain_of:
            training = found.planned.cell.training
            cell = found.planned.cell.replace(training=training.replace(steps=FACTOR * training.steps))
            cell = Planned(*found.planned.group, cell)
            longer.append(record(cell, min(1.0, found.final["test_accuracy"] + gain_of[found.planned.group])))
    return longer


def tuned(params, trials=8) -> Tuning:
    """The first trial has the common rate; the best rate differs from defence to defence."""
    tables, chosen = {}, {}
    for defence in params.grid.defences:
        draw, best = stream(defence), 10 ** stream(defence, "rate").uniform(-2, 0.5)
        rates = [COMMON_RATE, *np.geomspace(0.01, 3, trials - 1)]
        rows = [
            {
                **{"trial": trial, "origin": "common" if trial == 0 else "grid", "learning_rate": float(rate)},
                **{"parameters": json.dumps({}), "attack": attack, "seed": seed},
                "accuracy": 0.9 - 0.2 * abs(np.log10(rate / best)) - 0.1 * place + 0.02 * draw.normal(),
            }
            for trial, rate in enumerate(rates)
            for place, attack in enumerate(params.grid.attacks[1:])
            for seed in (300, 301, 302)
        ]
        tables[defence] = pd.DataFrame(rows)
        means = tables[defence].groupby(["trial", "attack"])["accuracy"].mean().groupby("trial").min()
        chosen[defence] = int(means.idxmax())
    return Tuning(tables, chosen)


def whole(params, seeds=range(8)) -> Results:
    """Everything that the report can tell of; the longer training gains nothing, a lot or a little, in turn."""
    records = grid(params, list(seeds))
    worst: dict = {}
    for found in records:
        attack, defence, partition = found.planned.group
        if attack != "none":
            worst.setdefault((defence, partition), {}).setdefault(attack, []).append(found.final["test_accuracy"])
    groups = [
        (min(attacks, key=lambda attack: np.mean(attacks[attack])), defence, partition)
        for (defence, partition), attacks in worst.items()
    ]
    studies = [study(name, attacks=(name,), defences=params.search.defences) for name in params.search.studies]
    return Results(
        records, honest_alone(params, seeds), trained_on(records, groups, (0.0, 0.3, 0.03)), studies, tuned(params)
    )
