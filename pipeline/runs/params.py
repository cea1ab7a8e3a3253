"""The typed mirror of params.yaml, and the only reader of that file."""

import io
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline.attacks import ATTACKS, Attack, TunableAttack, VectorAttack
from pipeline.attacks.space import Value
from pipeline.core.component import Schema, allowed, parse
from pipeline.core.errors import UserError
from pipeline.core.files import write_text
from pipeline.data.partitions import PARTITIONS, Partition
from pipeline.data.prepare import Data
from pipeline.defences.defence import Defence
from pipeline.runs.search_checks import SEARCH_CHECKS
from pipeline.simulator.cell import Threat, Training
from pipeline.simulator.models import MODELS, Model

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Names = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]


class Grid(Schema):
    """Which combinations are trained: every attack x defence x partition x seed."""

    attacks: Names
    defences: Names
    partitions: Names
    seeds: Seeds


Sampler = Literal["gp", "tpe", "cmaes", "qmc", "random", "nsgaii"]
Values = Annotated[tuple[Value, ...], Field(strict=False, min_length=1)]


class Study(Schema):
    """What is searched: attacks, and where their own spaces are not meant, the space."""

    mode: Literal["strength", "worst", "stealth", "breakdown"]
    attacks: Names
    space: dict[Name, dict[Name, Values]] = Field({}, description="attack -> parameter -> two bounds, or choices")
    sampler: Sampler | None = Field(None, description="null: search.sampler")


class Search(Schema):
    """How the worst case of every study is looked for, and confirmed."""

    studies: Annotated[tuple[Name, ...], Field(strict=False)]
    defences: Names
    partition: Name
    trials: int = Field(ge=1, description="parameters tried for each defence")
    batch: int = Field(ge=1, description="trials asked for at once; part of the result's identity")
    sampler: Sampler
    sampler_seed: int = Field(ge=0)
    finalists: int = Field(ge=1, description="worst trials that are confirmed")
    transfer: bool = Field(description="apply what was found for one defence to all others")
    budget_minutes: float | None = Field(gt=0, description="after which no further trials are asked for; null: none")
    seeds: Seeds
    confirmation_seeds: Seeds


class Analysis(Schema):
    """How results are summarised."""

    confidence: float = Field(gt=0, lt=1, description="of the Student-t intervals over seeds")
    published: str | None = Field(description="CSV file of published accuracies to set beside ours; null: none")


def _number_of_processes(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError("should be 'auto' or a whole number of at least 1")


Processes = Annotated[int | Literal["auto"], BeforeValidator(_number_of_processes)]


class Execution(Schema):
    """Where and how to compute; no part of any result's identity."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Processes = Field(description="that train at a time, a thread each; auto: one a core, on GPUs one a GPU")
    memory_gb: float | None = Field(
        gt=0, description="memory of a batch, for each process; null: a share of what is free"
    )
    gradients: Literal["auto", "chain", "vmap", "replicas", "loop"]


class Params(Schema):
    """Everything in params.yaml."""

    data: Data
    model: Annotated[Model, MODELS]
    partitions: dict[Name, Annotated[Partition, PARTITIONS]]
    threat: Threat
    training: Training
    defences: dict[Name, Defence]
    attacks: dict[Name, Annotated[Attack, ATTACKS]]
    grid: Grid
    studies: dict[Name, Study]
    search: Search
    analysis: Analysis
    execution: Execution


Sections = Mapping[str, Any]
Check = Callable[[Sections], Iterator[str]]


def load(path: Path) -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: Lists every fault, a line each.
    """
    return validate(_read(path, YAML(typ="safe")))


def validate(raw: Any) -> Params:
    """Return the validated parameters; every section is checked on its own, then the sections against each other.

    Raises:
        UserError: Lists every fault, a line each.
    """
    if not isinstance(raw, Mapping):
        raise UserError("params.yaml: should be a mapping of sections")
    faults = [
        f"{name} = ...: unknown section; {allowed(name, Params.model_fields)}"
        for name in raw
        if name not in Params.model_fields
    ]
    sections: dict[str, Any] = {}
    for name, field in Params.model_fields.items():
        try:
            annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            sections[name] = _section(annotation, raw, name)
        except UserError as error:
            faults.append(str(error))
    for needed, check in CHECKS:
        if all(name in sections for name in needed):
            faults += check(sections)
    if faults:
        raise UserError(
            "params.yaml is not valid:\n" + "\n".join(f"  {line}" for fault in faults for line in fault.splitlines())
        )
    return Params.model_construct(**sections)


def _section(annotation: Any, raw: Mapping[str, Any], name: str) -> Any:
    if name not in raw:
        raise UserError(f"{name}: missing section")
    return parse(annotation, raw[name], name)


def _names_exist(section: str, field: str, known: str) -> tuple[tuple[str, ...], Check]:
    """Return a check that every name in ``section.field`` is a key of the section ``known``."""

    def check(sections: Sections) -> Iterator[str]:
        found = getattr(sections[section], field)
        for name in (found,) if isinstance(found, str) else found:
            if name not in sections[known]:
                yield f"{section}.{field}: {name!r} is not in {known}; {allowed(name, sections[known])}"

    return (section, known), check


def _no_repeats(sections: Sections) -> Iterator[str]:
    for section, field in [
        ("grid", "attacks"),
        ("grid", "defences"),
        ("grid", "partitions"),
        ("grid", "seeds"),
        ("search", "studies"),
        ("search", "defences"),
        ("search", "seeds"),
        ("search", "confirmation_seeds"),
    ]:
        values = getattr(sections[section], field)
        if len(set(values)) < len(values):
            yield f"{section}.{field} = {list(values)}: an entry stands there twice"


def _clean_reference(sections: Sections) -> Iterator[str]:
    if "none" not in sections["attacks"] or sections["attacks"]["none"].name != "none":
        yield "attacks.none: should be {name: none}, the clean reference of every degradation"
    if "none" not in sections["grid"].attacks:
        yield "grid.attacks: should hold 'none', the clean reference of every degradation"


def _defences_fit(sections: Sections) -> Iterator[str]:
    threat, used = sections["threat"], {*sections["grid"].defences, *sections["search"].defences}
    for name in sorted(used & set(sections["defences"])):
        unmet = sections["defences"][name].unmet(threat.received, threat.tolerated)
        if unmet:
            yield f"defences.{name}: {unmet} (see threat)"


def _strengths_resolve(sections: Sections) -> Iterator[str]:
    threat = sections["threat"]
    for name in sorted(set(sections["grid"].attacks) & set(sections["attacks"])):
        attack = sections["attacks"][name]
        try:
            _ = attack.resolved(threat.received, threat.tolerated) if isinstance(attack, TunableAttack) else None
        except UserError as error:
            yield f"attacks.{name}.{error}"


def _attacks_fit(sections: Sections) -> Iterator[str]:
    threat = sections["threat"]
    for name in sorted(set(sections["grid"].attacks) & set(sections["attacks"])):
        attack = sections["attacks"][name]
        unmet = attack.unmet(threat.honest, threat.sampled is not None) if isinstance(attack, VectorAttack) else None
        if unmet:
            yield f"attacks.{name}.{unmet}"


def _data_fit(sections: Sections) -> Iterator[str]:
    """Check the source, and then what takes its data; a section that is faulty by itself is absent."""
    model, training = sections.get("model"), sections.get("training")
    try:
        data = sections["data"].source.format
        if training and training.augment != "none" and len(data.shape) != 3:
            yield f"training.augment = {training.augment!r}: needs images, but the data are vectors; use 'none'"
        if model:
            model.network(data.shape, data.classes)
    except UserError as error:
        yield str(error)


def _fresh_confirmation(sections: Sections) -> Iterator[str]:
    both = set(sections["search"].seeds) & set(sections["search"].confirmation_seeds)
    if both:
        yield f"search.confirmation_seeds: {sorted(both)} were used by the search too; confirm on fresh seeds"


CHECKS: list[tuple[tuple[str, ...], Check]] = [
    _names_exist("grid", "attacks", "attacks"),
    _names_exist("grid", "defences", "defences"),
    _names_exist("grid", "partitions", "partitions"),
    _names_exist("search", "defences", "defences"),
    _names_exist("search", "partition", "partitions"),
    (("grid", "search"), _no_repeats),
    (("grid", "attacks"), _clean_reference),
    (("threat", "defences", "grid", "search"), _defences_fit),
    (("threat", "attacks", "grid"), _strengths_resolve),
    (("threat", "attacks", "grid"), _attacks_fit),
    (("search",), _fresh_confirmation),
    (("data",), _data_fit),
    *SEARCH_CHECKS,
]


def _read(path: Path, yaml: YAML) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None


class _Representer(RoundTripRepresenter):
    """Writes null as null, not as nothing."""


_Representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))


def override(path: Path, changes: str) -> None:
    """Change values in params.yaml, keeping its comments; nothing is written unless the whole file stays valid.

    Args:
        path: Of params.yaml.
        changes: ``path=value`` pairs separated by blanks, the values in YAML: ``training.steps=50 grid.seeds=[0,1]``.
            None at all leaves the file as it is.

    Raises:
        UserError: A path that does not exist, a value that is not YAML, or parameters that are not valid together.
    """
    if not changes.strip():
        return
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.Representer = _Representer
    document = _read(path, yaml)
    for change in changes.split():
        _assign(document, *change.partition("=")[::2])
    text = io.StringIO()
    yaml.dump(document, text)
    validate(YAML(typ="safe").load(text.getvalue()))
    write_text(path, text.getvalue())


def _assign(document: Any, where: str, value: str) -> None:
    *parents, last = where.split(".")
    section = document
    for key in parents:
        section = section.get(key) if isinstance(section, Mapping) else None
    if not value or not isinstance(section, MutableMapping) or last not in section:
        raise UserError(f"{where}={value}: should be path=value, with a path that stands in params.yaml")
    try:
        section[last] = YAML().load(value)
    except YAMLError:
        raise UserError(f"{where}={value}: the value is not YAML; write it without blanks, as in [0,1]") from None
