"""What a study of params.yaml searches: threats, spaces, what is tried first, and its description."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from pipeline.attacks import Choice, Range, Space, VectorAttack
from pipeline.core.files import content_hash
from pipeline.core.space import Value
from pipeline.runs import params as parameters
from pipeline.runs.params import Params
from pipeline.runs.plan import planned
from pipeline.runs.search_checks import literature
from pipeline.simulator.cell import Cell, Threat

Parameters = dict[str, Value]


@dataclass(frozen=True)
class Proposal:
    """Parameters of an attack, and where they came from: ``literature``, ``grid`` or ``sampler``."""

    origin: str
    attack: str
    parameters: Parameters


@dataclass(frozen=True)
class Target:
    """One defence against one number of Byzantine workers; each target has a search of its own."""

    defence: str
    byzantine: int


@dataclass(frozen=True)
class Candidate:
    """A proposal against a target; ``label`` is the origin of a trial, or the name of what is confirmed."""

    target: Target
    trial: int
    label: str
    attack: str
    parameters: Parameters


@dataclass(frozen=True)
class Study:
    """A study of params.yaml, with everything it refers to."""

    params: Params
    name: str

    @property
    def declared(self) -> parameters.StudyEntry:
        """The entry of params.yaml."""
        return self.params.studies[self.name]

    @property
    def mode(self) -> str:
        """``strength``, ``worst``, ``stealth`` or ``breakdown``."""
        return self.declared.mode

    @property
    def sampler(self) -> str:
        """The name of the sampler."""
        return self.declared.sampler or self.params.search.sampler

    @cached_property
    def threats(self) -> dict[int, Threat]:
        """The threat for each b: that of params.yaml; in mode breakdown, f = b = 0, ..., floor((n - 1) / 2)."""
        threat = self.params.threat
        if self.mode != "breakdown":
            return {threat.byzantine: threat}
        return {b: threat.replace(byzantine=b, tolerated=b) for b in range((threat.workers - 1) // 2 + 1)}

    @cached_property
    def unmet(self) -> dict[Target, str]:
        """Why a target cannot be trained, for each whose defence does not tolerate that many Byzantine workers."""
        reasons = {
            Target(name, b): self.params.defences[name].unmet(threat.received, threat.tolerated)
            for name in self.params.search.defences
            for b, threat in self.threats.items()
        }
        return {target: reason for target, reason in reasons.items() if reason}

    @cached_property
    def targets(self) -> list[Target]:
        """Every defence against every number of Byzantine workers that it can tolerate."""
        pairs = [Target(name, b) for name in self.params.search.defences for b in self.threats]
        return [target for target in pairs if target not in self.unmet]

    @cached_property
    def spaces(self) -> dict[str, Space]:
        """The space of each attack."""
        changes = self.declared.space
        path = f"studies.{self.name}.space"
        return {
            name: self.attack(name).searched(changes.get(name, {}), f"{path}.{name}") for name in self.declared.attacks
        }

    def attack(self, name: str) -> VectorAttack:
        """Return an attack of params.yaml."""
        found = self.params.attacks[name]
        assert isinstance(found, VectorAttack)  # search_checks.py has refused every other
        return found

    def literature(self, name: str, byzantine: int) -> list[Parameters]:
        """Return the published parameters of an attack, the default first; empty where publications give none."""
        return literature(self.attack(name), self.spaces[name], self.threats[byzantine])

    def startup(self, byzantine: int) -> list[Proposal]:
        """Return what is tried first: every attack's published parameters, then points of a grid for each in turn."""
        published = {name: self.literature(name, byzantine) for name in self.spaces}
        first = [Proposal("literature", name, found) for name, several in published.items() for found in several]
        grids = [
            [Proposal("grid", name, point) for point in self._grid(name, known)] for name, known in published.items()
        ]
        longest = max(map(len, grids))
        return first + [grid[i] for i in range(longest) for grid in grids if i < len(grid)]

    def _grid(self, name: str, published: list[Parameters]) -> Iterator[Parameters]:
        """Yield the points that fill a batch: the strength spaced evenly on its scale, the choices in turn."""
        space, count = self.spaces[name], max(0, self.params.search.batch - len(published))
        choices = {p: entry.values for p, entry in space.items() if isinstance(entry, Choice)}
        combinations = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
        strengths = evenly(space["strength"], count) if "strength" in space else []
        base = {p: getattr(self.attack(name), p) for p in space if p != "strength"}
        for position in range(count if strengths else min(count, len(combinations))):
            point = {**base, **combinations[position % len(combinations)]}
            if strengths:
                point["strength"] = strengths[position % len(strengths)]
            if not any(_alike(point, other) for other in published):
                yield point

    def cell(self, target: Target, seed: int) -> Cell:
        """Return the run of a target without an attack."""
        clean = planned(self.params, "none", target.defence, self.params.search.partition, seed).cell
        return clean.replace(threat=self.threats[target.byzantine])

    def attacked(self, candidate: Candidate, seed: int) -> Cell:
        """Return the run of a target under a candidate."""
        attack = self.attack(candidate.attack).replace(**candidate.parameters)
        return self.cell(candidate.target, seed).replace(attack=attack)

    def description(self) -> dict[str, Any]:
        """Return what the study searches, as JSON; ``settings`` is a hash of everything its cells are trained with."""
        search = self.params.search.content()
        search = {name: value for name, value in search.items() if name not in ("studies", "sampler")}
        return {
            "mode": self.mode,
            "attacks": list(self.spaces),
            "partition": search["partition"],
            "content": {**search, "sampler": self.sampler},
            "settings": content_hash([self._first(target).content() for target in self.targets]),
            "spaces": {name: {p: _described(e) for p, e in space.items()} for name, space in self.spaces.items()},
            "literature": {name: self.literature(name, self.params.threat.byzantine) for name in self.spaces},
            "absent": [{**asdict(target), "reason": reason} for target, reason in self.unmet.items()],
        }

    def _first(self, target: Target) -> Cell:
        first = self.startup(target.byzantine)[0]
        return self.attacked(Candidate(target, 0, first.origin, first.attack, first.parameters), seed=0)

    def made_with(self, data_hash: str) -> dict[str, str]:
        """Return the hashes of the prepared data and of the code of training."""
        return {"data": data_hash, "code": content_hash([self._first(target).code for target in self.targets])}

    def key(self, data_hash: str, arithmetic: Mapping[str, str]) -> str:
        """Return a hash of everything that determines the study's outcome, the code of training included."""
        cells = [self._first(target).key(data_hash, arithmetic) for target in self.targets]
        return content_hash({"description": self.description(), "cells": cells})


def _described(entry: Range | Choice) -> dict[str, Any]:
    if isinstance(entry, Choice):
        return {"choices": list(entry.values)}
    return {"low": entry.low, "high": entry.high, "log": entry.log}


def rounded(value: Value, entry: Range | Choice) -> Value:
    """Return a number rounded to four digits, within its range; anything else as it is.

    A sampler's further digits depend on the processor, because those of the libraries it computes with do.

    Example:
        >>> rounded(0.0428765, Range(0.01, 100.0, log=True))
        0.04288
    """
    if not isinstance(value, float) or isinstance(entry, Choice):
        return value
    return min(max(float(f"{value:.4g}"), entry.low), entry.high)


def evenly(entry: Range | Choice, count: int) -> list[float]:
    """Return ``count`` numbers evenly spread over a range, on its scale; all values of a choice."""
    if isinstance(entry, Choice):
        return [float(value) for value in entry.values]
    spaced = np.geomspace if entry.log else np.linspace
    return [float(rounded(float(value), entry)) for value in spaced(entry.low, entry.high, count)]


def _alike(point: Parameters, other: Parameters) -> bool:
    """Return whether two points differ in nothing but the strength, and in that by less than 1 %."""
    near = np.isclose(float(point.get("strength", 1)), float(other.get("strength", 1)), rtol=0.01)
    return bool(near) and {**point, "strength": 1} == {**other, "strength": 1}
