"""Made-up studies of every mode, as the search leaves them: a known damage, and noise that the seeds share."""

import json

import numpy as np
import pandas as pd

from pipeline.report.search_results import StudyResult
from pipeline.runs.params import Analysis
from pipeline.search.pareto import non_dominated

SETTINGS = Analysis(confidence=0.95, half_width=0.03, collapse=0.5, published=None)
DEFENCES = ("mean", "median", "trimmed_mean", "krum", "geometric_median", "nnm_trimmed_mean")
PEAKS = dict(zip(DEFENCES, (3.2, 30.0, 2.7, 0.05, 0.08, 1.1), strict=True))
HEIGHTS = dict(zip(DEFENCES, (0.86, 0.6, 0.4, 0.75, 0.7, 0.5), strict=True))
LITERATURE = {"sign_flip": (10.0,), "ipm": (0.1, 0.5), "alie": (0.69, 1.5)}
LOW, HIGH = 0.01, 100.0
CLEAN = 0.95
TRIAL_SEEDS, FRESH_SEEDS = (100, 101, 102), tuple(range(200, 212))


def damage(defence, strength, byzantine=5):
    """The mean degradation: largest at the peak of the defence, more with more attackers."""
    distance = np.log10(strength / PEAKS[defence])
    width = 0.9 if strength > PEAKS[defence] else 0.5
    return HEIGHTS[defence] * np.exp(-((distance / width) ** 2)) * np.tanh(byzantine / 3)


def flagged(strength, byzantine=5):
    return byzantine and 1 / (1 + (4 / strength) ** 2)


def measured(defence, byzantine, attack, parameters, seeds, stealth=False):
    """A row a seed; the larger part of a seed's luck is shared by all parameters."""
    strength = parameters["strength"]
    rows = []
    for seed in seeds:
        shared = np.random.default_rng([seed, DEFENCES.index(defence)]).normal(scale=0.03)
        own = np.random.default_rng([seed, DEFENCES.index(defence), int(1e6 * strength), byzantine]).normal(scale=0.02)
        luck = shared + own
        attacked = float(np.clip(CLEAN - damage(defence, strength, byzantine) + luck * (byzantine > 0), 0.1, 0.97))
        share = flagged(strength, byzantine) if stealth else np.nan
        rows.append(
            {
                "defence": defence,
                "byzantine": byzantine,
                "attack": attack,
                "parameters": json.dumps(parameters, sort_keys=True),
                "seed": seed,
                "clean_accuracy": CLEAN,
                "attacked_accuracy": attacked,
                "degradation": CLEAN - attacked,
                "diverged": False,
                "flagged": share,
            }
        )
    return rows


def tried(attack, trials):
    """Origin and strength of every trial: literature, grid, and then around the middle."""
    known = [("literature", strength) for strength in LITERATURE[attack]]
    grid = [("grid", float(strength)) for strength in np.geomspace(LOW, HIGH, 8 - len(known))]
    sampled = 10 ** np.random.default_rng(trials).uniform(-1.6, 1.6, max(0, trials - 8))
    return [*known, *grid, *(("sampler", round(float(strength), 4)) for strength in sampled)][:trials]


def _trials(defence, byzantine, attacks, trials, stealth=False):
    asked = [(attack, *how) for attack in attacks for how in tried(attack, trials // len(attacks))]
    return [
        {"trial": trial, "origin": origin, **row}
        for trial, (attack, origin, strength) in enumerate(asked)
        for row in measured(defence, byzantine, attack, {"strength": strength}, TRIAL_SEEDS, stealth)
    ]


def _candidates(mode, trials):
    """Candidate -> trial of one defence, chosen on validation data."""
    means = trials.groupby(["trial", "origin"])[["degradation", "flagged"]].mean().reset_index("origin")
    ranked = means["degradation"].sort_values(ascending=False, kind="stable").index.to_list()
    if mode == "stealth":
        front = sorted(means.index[non_dominated(means)], key=lambda trial: means.loc[trial, "flagged"])[::3]
        return {"literature": 0, **{f"front_{place}": trial for place, trial in enumerate(front, start=1)}}
    return {"literature": 0, "found": ranked[0], "found_2": ranked[1], "found_3": ranked[2]}


def _confirmation(mode, trials, defence, byzantine):
    rows = []
    for candidate, trial in _candidates(mode, trials).items():
        attack, parameters = trials[trials["trial"] == trial][["attack", "parameters"]].iloc[0]
        again = measured(defence, byzantine, attack, json.loads(parameters), FRESH_SEEDS, mode == "stealth")
        rows += [{"candidate": candidate, "trial": trial, **row} for row in again]
    return rows


def _transfer(confirmation):
    found = confirmation[confirmation["candidate"] == "found"].drop_duplicates("defence")
    rows = []
    for of in found.to_dict("records"):
        for target in found["defence"]:
            moved = measured(target, 5, of["attack"], json.loads(of["parameters"]), FRESH_SEEDS)
            rows += [{**row, "from_defence": of["defence"], "to_defence": target} for row in moved]
    return pd.DataFrame(rows).drop(columns="defence")


def study(name, mode="strength", attacks=("ipm",), defences=DEFENCES, trials=24, key="a" * 16):
    """A whole study; a breakdown goes from b = 0 to 8, and krum ends at 7; the others have b = 5."""
    every = range(9) if mode == "breakdown" else (5,)
    cells = [(defence, b) for defence in sorted(defences) for b in every if defence != "krum" or b < 8]
    tried_ = [pd.DataFrame(_trials(*cell, attacks, trials, mode == "stealth")) for cell in cells]
    confirmed = [pd.DataFrame(_confirmation(mode, rows, *cell)) for rows, cell in zip(tried_, cells, strict=True)]
    confirmation = pd.concat(confirmed, ignore_index=True)
    description = {
        "key": key,
        "mode": mode,
        "attacks": list(attacks),
        "partition": "alpha_03",
        "content": {"trials": trials, "seeds": list(TRIAL_SEEDS)},
        "spaces": {attack: {"strength": {"low": LOW, "high": HIGH, "log": True}} for attack in attacks},
        "literature": {attack: [{"strength": strength} for strength in LITERATURE[attack]] for attack in attacks},
    }
    transfer = _transfer(confirmation) if mode == "strength" else None
    return StudyResult(name, description, pd.concat(tried_, ignore_index=True), confirmation, transfer)


def studies():
    """A study of every mode, two of mode strength."""
    return [
        study("sign_flip", attacks=("sign_flip",)),
        study("ipm"),
        study("worst", "worst", ("sign_flip", "ipm", "alie")),
        study("stealth", "stealth", ("alie",)),
        study("breakdown", "breakdown"),
    ]
