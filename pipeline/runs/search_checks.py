"""What must hold between the studies of params.yaml and its other sections."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.attacks import Space, TunableAttack, VectorAttack
from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.core.space import holds, values_of
from pipeline.simulator.cell import Threat

Sections = Mapping[str, Any]

# Which samplers can do what a mode asks: a space whose parameters depend on the family; two objectives.
SAMPLERS = {
    "strength": ("gp", "tpe", "cmaes", "qmc", "random"),
    "breakdown": ("gp", "tpe", "cmaes", "qmc", "random"),
    "worst": ("tpe", "random"),
    "stealth": ("tpe", "nsgaii"),
}


def _used(sections: Sections) -> Iterator[tuple[str, Any]]:
    """Yield the path and the content of every study that is run."""
    for name in sections["search"].studies:
        if name in sections["studies"]:
            yield f"studies.{name}", sections["studies"][name]


def _studies_exist(sections: Sections) -> Iterator[str]:
    known = sections["studies"]
    for name in sections["search"].studies:
        if name not in known:
            yield f"search.studies: {name!r} is not in studies; {allowed(name, known)}"
    for path, study in _used(sections):
        for attack in study.attacks:
            if attack not in sections["attacks"]:
                yield f"{path}.attacks: {attack!r} is not in attacks; {allowed(attack, sections['attacks'])}"
        for attack in study.space:
            if attack not in study.attacks:
                yield f"{path}.space.{attack}: the study has no such attack; {allowed(attack, study.attacks)}"


def _modes_fit(sections: Sections) -> Iterator[str]:
    for path, study in _used(sections):
        if study.mode != "worst" and len(study.attacks) > 1:
            yield f"{path}.attacks = {list(study.attacks)}: mode {study.mode} takes one attack"
        if len(set(study.attacks)) < len(study.attacks):
            yield f"{path}.attacks = {list(study.attacks)}: an entry stands there twice"
        sampler = study.sampler or sections["search"].sampler
        if sampler not in SAMPLERS[study.mode]:
            where = f"{path}.sampler" if study.sampler else "search.sampler"
            yield f"{where} = {sampler!r}: mode {study.mode} of {path} takes {allowed(sampler, SAMPLERS[study.mode])}"


def _pruner_fits(sections: Sections) -> Iterator[str]:
    if pruner := sections["search"].pruner:
        for path, study in _used(sections):
            if study.mode == "stealth":
                yield f"search.pruner = {pruner!r}: {path} has two objectives, with which Optuna ends no trial early"


def _threat_fits(sections: Sections) -> Iterator[str]:
    threat = sections["threat"]
    for path, study in _used(sections):
        if study.mode == "breakdown" and threat.sampled is not None:
            yield f"threat.sampled = {threat.sampled}: {path} varies f up to half of all workers; it should be null"
    idle = [path for path, study in _used(sections) if study.mode != "breakdown"]
    if idle and threat.byzantine == 0:
        yield f"threat.byzantine = 0: {', '.join(idle)} would search for nothing; search.studies should leave them out"


def _spaces_fit(sections: Sections) -> Iterator[str]:
    trials = sections["search"].trials
    for path, study in _used(sections):
        published = 0
        for name in sorted(set(study.attacks) & set(sections["attacks"])):
            attack, here = sections["attacks"][name], f"{path}.space.{name}"
            try:
                space = attack.searched(study.space.get(name, {}), here) if isinstance(attack, VectorAttack) else {}
            except UserError as error:
                yield from str(error).splitlines()
                continue
            if not space:
                yield f"{here}: {attack.name!r} has nothing to search; name its parameters here"
            first = literature(attack, space, sections["threat"])
            published += len(first)
            yield from _values_fit(attack, space, first, sections["threat"], here)
        if published > trials:
            yield f"search.trials = {trials}: {path} tries {published} published values first"


def literature(attack: Any, space: Space, threat: Threat) -> list[dict[str, Any]]:
    """Return the published values of the parameters in ``space``, the default first; none where there are none."""
    base = {parameter: getattr(attack, parameter) for parameter in space if parameter != "strength"}
    if not isinstance(attack, TunableAttack):
        return [base]
    return [{**base, "strength": theta} for theta in attack.literature(threat.received, threat.tolerated)]


def _values_fit(attack: Any, space: Space, first: list[dict[str, Any]], threat: Threat, path: str) -> Iterator[str]:
    for parameter, entry in space.items():
        for value in {values[parameter] for values in first}:
            if not holds(entry, value):
                yield f"{path}.{parameter}: should hold {value}, which is tried first"
        for value in values_of(entry):
            unmet = attack.replace(**{parameter: value}).unmet(threat.honest, threat.sampled is not None)
            if unmet:
                yield f"{path}.{unmet}"


SEARCH_CHECKS: list[tuple[tuple[str, ...], Callable[[Sections], Iterator[str]]]] = [
    (("search", "studies", "attacks"), _studies_exist),
    (("search", "studies"), _modes_fit),
    (("search", "studies"), _pruner_fits),
    (("search", "studies", "threat"), _threat_fits),
    (("search", "studies", "attacks", "threat"), _spaces_fit),
]
