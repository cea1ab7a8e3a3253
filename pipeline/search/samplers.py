"""Optuna's samplers, which propose what to try next, asked and told in batches."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from pipeline.attacks import Choice, Range, Space
from pipeline.core.space import Value
from pipeline.search.study import Proposal, rounded

Direction = Literal["maximize", "minimize"]


def sampler(name: str, seed: int, startup: int, batch: int) -> BaseSampler:
    """Return a sampler for a study with ``startup`` fixed first trials, asked for ``batch`` trials at once."""
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=startup)
        if name == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
        if name == "cmaes":
            return samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, popsize=batch)
        if name == "qmc":
            return samplers.QMCSampler(seed=seed, scramble=True, warn_asynchronous_seeding=False)
        if name == "nsgaii":
            return samplers.NSGAIISampler(seed=seed, population_size=batch)
        return samplers.RandomSampler(seed=seed)


def pruner(name: str | None, startup: int) -> BasePruner:
    """Return what tells whether a trial is worth its later steps, once ``startup`` are whole; None: all are."""
    return MedianPruner(n_startup_trials=startup) if name == "median" else NopPruner()


class Asker:
    """An Optuna study in memory, which proposes ``first`` and then what its sampler draws.

    Args:
        spaces: The space of every attack; where there are several, the attack is a parameter, too.
        first: What is tried first.
        sampler: Of :func:`sampler`.
        directions: ``maximize`` or ``minimize`` for each objective.
        pruner: Of :func:`pruner`.
    """

    def __init__(
        self,
        spaces: Mapping[str, Space],
        first: Sequence[Proposal],
        sampler: BaseSampler,
        directions: Sequence[Direction],
        pruner: BasePruner | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.spaces = spaces
        self.study = optuna.create_study(sampler=sampler, directions=[*directions], pruner=pruner or NopPruner())
        self._trials: dict[int, optuna.Trial] = {}
        for proposal in first:
            self.study.enqueue_trial(self._flat(proposal), user_attrs={"origin": proposal.origin})

    def ask(self, count: int) -> dict[int, Proposal]:
        """Return ``count`` proposals by their trial numbers."""
        asked = [self.study.ask() for _ in range(count)]
        self._trials |= {trial.number: trial for trial in asked}
        return {trial.number: self._proposal(trial) for trial in asked}

    def tell(self, trial: int, values: Sequence[float]) -> None:
        """Report the objectives of a trial."""
        self.study.tell(trial, list(values))

    def report(self, trial: int, value: float, step: int) -> None:
        """Report the objective of a trial that is under way; ``step`` says how far it is."""
        self._trials[trial].report(value, step)

    def prune(self, trial: int) -> bool:
        """Return whether a trial that is under way should end; it then has."""
        if not self._trials[trial].should_prune():
            return False
        self.study.tell(trial, state=TrialState.PRUNED)
        return True

    def _proposal(self, trial: optuna.Trial) -> Proposal:
        names = list(self.spaces)
        attack = names[0] if len(names) == 1 else trial.suggest_categorical("attack", names)
        space = self.spaces[attack]
        parameters = {name: _suggested(trial, self._key(attack, name), entry) for name, entry in space.items()}
        if "origin" in trial.user_attrs:
            return Proposal(trial.user_attrs["origin"], attack, parameters)
        return Proposal("sampler", attack, {name: rounded(value, space[name]) for name, value in parameters.items()})

    def _flat(self, proposal: Proposal) -> dict[str, Value]:
        space = self.spaces[proposal.attack]
        varied = {name: value for name, value in proposal.parameters.items() if fixed(space[name]) is None}
        flat = {self._key(proposal.attack, name): value for name, value in varied.items()}
        return flat if len(self.spaces) == 1 else {"attack": proposal.attack, **flat}

    def _key(self, attack: str, parameter: str) -> str:
        return parameter if len(self.spaces) == 1 else f"{attack}.{parameter}"


def fixed(entry: Range | Choice) -> Value | None:
    """Return the only value of an entry that leaves no choice, None for any other entry."""
    return entry.values[0] if isinstance(entry, Choice) and len(entry.values) == 1 else None


def _suggested(trial: optuna.Trial, name: str, entry: Range | Choice) -> Value:
    only = fixed(entry)
    if only is not None:
        return only
    if isinstance(entry, Choice):
        return cast(Value, trial.suggest_categorical(name, entry.values))
    if entry.whole:
        return int(trial.suggest_int(name, int(entry.low), int(entry.high), log=entry.log))
    return float(trial.suggest_float(name, entry.low, entry.high, log=entry.log))
