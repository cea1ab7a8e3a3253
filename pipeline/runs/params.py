"""The typed mirror of params.yaml, and what must hold for it to be valid."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from ruamel.yaml import YAML

from pipeline.attacks import ATTACKS, Attack
from pipeline.core.component import Schema, allowed, parse
from pipeline.core.errors import UserError, shown
from pipeline.core.space import Value
from pipeline.data.partitions import PARTITIONS, Partition
from pipeline.data.prepare import Data
from pipeline.defences.defence import Defence
from pipeline.runs.search_checks import SEARCH_CHECKS
from pipeline.simulator.cell import Threat, Training
from pipeline.simulator.models import MODELS, Model
from pipeline.simulator.models.base import Shape

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]  # three of them fit into a file's name
Names = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy's generators take no more
Seeds = Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=10_000)]


class DefenceEntry(Defence):
    """A defence, and the learning rate of training behind it."""

    learning_rate: float | None = Field(None, gt=0, description="null: the tuned one, else training.learning_rate")

    @property
    def defence(self) -> Defence:
        """The defence alone."""
        return Defence(before=self.before, rule=self.rule)


class Grid(Schema):
    """Which combinations are trained: every attack x defence x partition x seed."""

    attacks: Names
    defences: Names
    partitions: Names
    seeds: Seeds
    max_seeds: int = Field(ge=1, le=10_000, description="to which seeds are added until analysis.half_width is reached")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """``seeds``, and after them those that may be added: the next numbers."""
        following = range(max(self.seeds) + 1, max(self.seeds) + 1 + self.max_seeds - len(self.seeds))
        return (*self.seeds, *following)


Sampler = Literal["gp", "tpe", "cmaes", "qmc", "random", "nsgaii"]
Values = Annotated[tuple[Value, ...], Field(strict=False, min_length=1)]


class StudyEntry(Schema):
    """What is searched: attacks, and where their own spaces are not meant, the space."""

    mode: Literal["strength", "worst", "stealth", "breakdown"]
    attacks: Names
    space: dict[Name, dict[Name, Values]] = Field({}, description="attack -> parameter -> two bounds, or choices")
    sampler: Sampler | None = Field(None, description="null: search.sampler")


class Tuning(Schema):
    """How the defender chooses a learning rate, and its rule's own parameters, for every defence."""

    defences: Annotated[tuple[Name, ...], Field(strict=False)] = Field(description="which are tuned; none: []")
    attacks: Names
    objective: Literal["worst", "clean"] = Field(description="accuracy under the worst of the attacks, or under none")
    learning_rate: Annotated[tuple[float, float], Field(strict=False)] = Field(description="bounds of the search")
    partition: Name
    trials: int = Field(ge=1, le=100_000, description="tried for each defence; the first is training.learning_rate")
    batch: int = Field(ge=1, le=10_000, description="trials asked for at once; part of the result's identity")
    sampler: Literal["gp", "tpe", "cmaes", "qmc", "random"]
    sampler_seed: Seed
    seeds: Seeds


class Search(Schema):
    """How the worst case of every study is looked for, and confirmed."""

    studies: Annotated[tuple[Name, ...], Field(strict=False)]
    defences: Names
    partition: Name
    trials: int = Field(ge=1, le=100_000, description="parameters tried for each defence")
    batch: int = Field(ge=1, le=10_000, description="trials asked for at once; part of the result's identity")
    sampler: Sampler
    sampler_seed: Seed
    finalists: int = Field(ge=1, le=100_000, description="worst trials that are confirmed")
    transfer: bool = Field(description="apply what was found for one defence to all others")
    budget_minutes: float | None = Field(gt=0, description="after which no further trials are asked for; null: none")
    pruner: Literal["median"] | None = Field(None, description="ends trials early; null: none")
    seeds: Seeds
    confirmation_seeds: Seeds


class Analysis(Schema):
    """How results are summarised."""

    confidence: float = Field(gt=0, lt=1, description="of all intervals; tests have the level 1 - confidence")
    half_width: float = Field(gt=0, lt=1, description="aimed at for mean test accuracy, and the gain that counts")
    collapse: float = Field(gt=0, lt=1, description="test accuracy below which a run counts as collapsed")
    published: str | None = Field(description="CSV file of published accuracies to set beside ours; null: none")


def _number_of_processes(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError("should be 'auto' or a whole number of at least 1")


Processes = Annotated[int | Literal["auto"], BeforeValidator(_number_of_processes)]


def _address(value: Any) -> Any:
    if value is None or (isinstance(value, str) and re.fullmatch(r"auto|[^\s:/]+:\d{1,5}", value)):
        return value
    raise ValueError("should be 'auto', host:port, or null")


Address = Annotated[str | None, BeforeValidator(_address)]


class Execution(Schema):
    """Where and how to compute; of these, device and gradient backend are part of a result's identity."""

    device: Literal["auto", "cpu", "cuda"]
    cluster: Address = Field(
        description="Ray cluster that trains: auto (that of this machine), or host:port; null: processes here"
    )
    processes: Processes = Field(
        description="that train at a time, with one thread each; auto: one per core, or one per GPU"
    )
    memory_gb: float | None = Field(
        gt=0, description="memory of a batch, for each process; null: a share of what is free"
    )
    gradients: Literal["auto", "chain", "vmap", "replicas", "loop"]
    checkpoint_minutes: float = Field(
        10, gt=0, description="after which a cell under way is written, to go on from there when it was interrupted"
    )


class Params(Schema):
    """Everything in params.yaml."""

    data: Data
    model: Annotated[Model, MODELS]
    partitions: dict[Name, Annotated[Partition, PARTITIONS]]
    threat: Threat
    training: Training
    defences: dict[Name, DefenceEntry]
    attacks: dict[Name, Annotated[Attack, ATTACKS]]
    grid: Grid
    tuning: Tuning
    studies: dict[Name, StudyEntry]
    search: Search
    analysis: Analysis
    execution: Execution


Sections = Mapping[str, Any]
Check = Callable[[Sections], Iterator[str]]


MOST_FAULTS = 100  # that are told


def load(path: Path) -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: Lists every fault, a line each.
    """
    return validate(read_yaml(path, YAML(typ="safe")))


def validate(raw: Any) -> Params:
    """Return the validated parameters; every section is checked on its own, then the sections against each other.

    Raises:
        UserError: Lists every fault, a line each.
    """
    if not isinstance(raw, Mapping):
        raise UserError("params.yaml: should be a mapping of sections")
    unknown = [
        f"{str(name)[:64]} = ...: unknown section; {allowed(name, SECTIONS)}" for name in raw if name not in SECTIONS
    ]
    missing = [f"{name}: missing section" for name in SECTIONS if name not in raw]
    sections, faults = checked({name: value for name, value in raw.items() if name in SECTIONS})
    if faults := [*unknown, *missing, *faults]:
        more = [f"and {len(faults) - MOST_FAULTS} faults more"] if len(faults) > MOST_FAULTS else []
        lines = "\n".join(f"  {fault}" for fault in [*faults[:MOST_FAULTS], *more])
        raise UserError(f"params.yaml is not valid:\n{lines}")
    return Params.model_construct(**sections)


SECTIONS = list(Params.model_fields)


def checked(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the validated sections among those in ``raw``, and every fault found in and between them, a line each."""
    sections: dict[str, Any] = {}
    faults: list[str] = []
    for name in filter(raw.__contains__, SECTIONS):
        field = Params.model_fields[name]
        annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        try:
            sections[name] = parse(annotation, raw[name], name)
        except UserError as error:
            faults += str(error).splitlines()
    for needed, check in CHECKS:
        if all(name in sections for name in needed):
            faults += [line for fault in check(sections) for line in fault.splitlines()]
    return sections, faults


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
        ("tuning", "defences"),
        ("tuning", "attacks"),
        ("tuning", "seeds"),
        ("search", "studies"),
        ("search", "defences"),
        ("search", "seeds"),
        ("search", "confirmation_seeds"),
    ]:
        values = getattr(sections[section], field)
        if len(set(values)) < len(values):
            yield f"{section}.{field} = {shown(list(values))}: an entry stands there twice"


def _clean_reference(sections: Sections) -> Iterator[str]:
    if "none" not in sections["attacks"] or sections["attacks"]["none"].name != "none":
        yield "attacks.none: should be {name: none}, the clean reference of every degradation"
    if "none" not in sections["grid"].attacks:
        yield "grid.attacks: should hold 'none', the clean reference of every degradation"


def _no_defence_is_a_column(sections: Sections) -> Iterator[str]:
    if "steps_done" in sections["defences"]:
        yield "defences.steps_done: the curves have a column of that name; choose another"


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
            attack.resolved(threat.received, threat.tolerated)
        except UserError as error:
            yield f"attacks.{name}.{error}"


def _attacks_fit(sections: Sections) -> Iterator[str]:
    threat = sections["threat"]
    for name in sorted(set(sections["grid"].attacks) & set(sections["attacks"])):
        attack = sections["attacks"][name]
        if unmet := attack.unmet(threat.honest, threat.sampled is not None):
            yield f"attacks.{name}.{unmet}"


def _data_fit(sections: Sections) -> Iterator[str]:
    try:
        data = sections["data"].source.format
    except UserError as error:
        yield str(error)
    else:
        yield from unfit(data.shape, data.classes, sections)


def unfit(shape: Shape, classes: int, sections: Sections) -> Iterator[str]:
    """Yield why inputs of ``shape`` do not suit the model or the training; a section with a fault is absent."""
    training = sections.get("training")
    if training and training.augment != "none" and len(shape) != 3:
        yield f"training.augment = {training.augment!r}: needs images, but the data are vectors; use 'none'"
    try:
        if "model" in sections:
            sections["model"].network(shape, classes)
    except UserError as error:
        yield str(error)


def _fresh_seeds(sections: Sections) -> Iterator[str]:
    grid, tuning, search = sections["grid"], sections["tuning"], sections["search"]
    for seeds, chosen in (("grid.seeds", grid.all_seeds), ("search.confirmation_seeds", search.confirmation_seeds)):
        for path, used in (("tuning.seeds", tuning.seeds), ("search.seeds", search.seeds)):
            if both := sorted(set(chosen) & set(used)):
                yield f"{seeds}: {both} also stand in {path}; what was chosen there is judged on fresh seeds"


def _enough_seeds(sections: Sections) -> Iterator[str]:
    grid = sections["grid"]
    if grid.max_seeds < len(grid.seeds):
        yield f"grid.max_seeds = {grid.max_seeds}: less than the {len(grid.seeds)} of grid.seeds"


def _tuning_fits(sections: Sections) -> Iterator[str]:
    tuning, common = sections["tuning"], sections["training"].learning_rate
    low, high = tuning.learning_rate
    if not 0 < low < high:
        yield f"tuning.learning_rate = {[low, high]}: should be two bounds, 0 < low < high"
    elif tuning.defences and not low <= common <= high:
        yield f"tuning.learning_rate = {[low, high]}: should hold {common}, the common rate, which is tried first"
    if tuning.objective == "clean" and "none" not in tuning.attacks:
        yield "tuning.attacks: should hold 'none' for the objective 'clean'"


CHECKS: list[tuple[tuple[str, ...], Check]] = [
    _names_exist("grid", "attacks", "attacks"),
    _names_exist("grid", "defences", "defences"),
    _names_exist("grid", "partitions", "partitions"),
    _names_exist("search", "defences", "defences"),
    _names_exist("search", "partition", "partitions"),
    (("grid", "tuning", "search"), _no_repeats),
    _names_exist("tuning", "defences", "defences"),
    _names_exist("tuning", "attacks", "attacks"),
    _names_exist("tuning", "partition", "partitions"),
    (("tuning", "grid", "search"), _fresh_seeds),
    (("tuning", "training", "defences"), _tuning_fits),
    (("grid",), _enough_seeds),
    (("grid", "attacks"), _clean_reference),
    (("defences",), _no_defence_is_a_column),
    (("threat", "defences", "grid", "search"), _defences_fit),
    (("threat", "attacks", "grid"), _strengths_resolve),
    (("threat", "attacks", "grid"), _attacks_fit),
    (("data",), _data_fit),
    *SEARCH_CHECKS,
]


def read_yaml(path: Path, yaml: YAML) -> Any:
    """Return the content of a YAML file.

    Raises:
        UserError: The file is missing, or is not YAML.
        OSError: It is there, but the system does not let it be read.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"), yaml)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this in the project's folder") from None
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from None


def parsed(text: str, yaml: YAML) -> Any:
    """Return what YAML ``text`` says.

    Raises:
        ValueError: It is no YAML; the text says why.
    """
    try:
        return yaml.load(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except Exception as error:  # the library lets ValueError, KeyError and others through besides its own errors
        raise ValueError(str(error)) from None
