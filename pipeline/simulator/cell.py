"""A cell: one training run, described completely by its validated parameters."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.attacks import ATTACKS, Attack, TunableAttack
from pipeline.attacks.base import VARYING
from pipeline.core.component import Component, Schema
from pipeline.core.errors import UserError
from pipeline.core.files import content_hash
from pipeline.core.identity import code_hash
from pipeline.data.augmentation import Augmentation
from pipeline.data.partitions import PARTITIONS, Partition
from pipeline.defences.defence import Defence
from pipeline.simulator.local_updates import LOCAL_UPDATES, LocalUpdate
from pipeline.simulator.models import MODELS, Model
from pipeline.simulator.schedules import SCHEDULES, Schedule

COMPUTING = (
    "pipeline.simulator.loop",
    "pipeline.simulator.precision",
    "pipeline.core.environment",
)  # what every cell is computed by


class Threat(Schema):
    """How many workers there are, how many of them are Byzantine, and how many the defence is told to tolerate.

    Where a part of the workers is drawn for each round, the number of Byzantine ones among them is random. It may be
    above f, which the diagnostic ``byzantine_workers`` shows, but at least two honest workers take part in every round.
    """

    workers: int = Field(ge=2, le=100_000, description="n, all workers")
    byzantine: int = Field(ge=0, description="b, Byzantine workers present")
    tolerated: int = Field(
        ge=0, description="f, Byzantine workers the defence is told to tolerate, among those of a round"
    )
    sampled: int | None = Field(ge=3, description="workers that take part in a round, drawn anew; null: all")

    @property
    def honest(self) -> int:
        """H = n - b."""
        return self.workers - self.byzantine

    @property
    def received(self) -> int:
        """How many vectors reach the server at each step."""
        return self.workers if self.sampled is None else self.sampled

    @model_validator(mode="after")
    def _leave_two_honest(self) -> Self:
        if self.received > self.workers:
            raise ValueError(f"sampled = {self.sampled} is more than the {self.workers} workers")
        if self.tolerated >= self.received:
            raise ValueError(f"tolerated = {self.tolerated} is not less than the {self.received} workers of a round")
        if self.honest < 2:
            raise ValueError(f"byzantine = {self.byzantine} leaves less than 2 of {self.workers} workers honest")
        return self


class Training(Schema):
    """Distributed SGD or local SGD, with momentum at the workers and at the server."""

    steps: int = Field(ge=1, description="T")
    batch_size: int = Field(ge=1, description="B, samples in a minibatch")
    local_update: Annotated[LocalUpdate, LOCAL_UPDATES]
    clip: float | None = Field(gt=0, description="norm at which a worker clips each minibatch gradient; null: never")
    augment: Augmentation
    learning_rate: float = Field(gt=0)
    schedule: Annotated[Schedule, SCHEDULES]
    momentum: float = Field(ge=0, lt=1, description="beta of the workers' m <- beta m + (1 - beta) g")
    damped: bool = Field(description="false: m <- beta m + g")
    server_momentum: float = Field(ge=0, lt=1, description="of the server's velocity")
    weight_decay: float = Field(ge=0, description="L2 coefficient")
    evaluate_every: int = Field(ge=1, description="steps between evaluations on validation data")
    precision: Literal["float32", "float64"] = Field(
        description="type of data, parameters and vectors; evaluated in float64"
    )
    tf32: bool = Field(description="whether a GPU may round the factors of products to 10 bits")


class Cell(Schema):
    """Everything that determines one training run, apart from the data and the code.

    The default strength is filled in, and what the threat does not allow is refused: a defence that does not tolerate
    f of the n vectors received, an attack that lacks honest workers or a default strength.
    """

    model: Annotated[Model, MODELS]
    partition: Annotated[Partition, PARTITIONS]
    threat: Threat
    training: Training
    defence: Defence
    attack: Annotated[Attack, ATTACKS]
    seed: int = Field(ge=0)

    @field_validator("defence")
    @classmethod
    def _tolerate(cls, defence: Defence, info: ValidationInfo) -> Defence:
        threat = info.data.get("threat")
        if threat and (unmet := defence.unmet(threat.received, threat.tolerated)):
            raise ValueError(unmet)
        return defence

    @field_validator("attack")
    @classmethod
    def _resolve_strength(cls, attack: Attack, info: ValidationInfo) -> Attack:
        threat = info.data.get("threat")
        if threat is None:
            return attack
        if unmet := attack.unmet(threat.honest, threat.sampled is not None):
            raise ValueError(unmet)
        try:
            return attack.resolved(threat.received, threat.tolerated)
        except UserError as error:
            raise ValueError(str(error)) from None

    @property
    def components(self) -> Iterator[Component]:
        """The named algorithms that this cell uses."""
        yield from (self.model, self.partition, self.attack, self.training.schedule, self.training.local_update)
        yield from (*self.defence.before, self.defence.rule)

    @property
    def strength(self) -> float:
        """Theta; 1 for an attack that has none."""
        strength = self.attack.strength if isinstance(self.attack, TunableAttack) else 1.0
        assert strength is not None  # it has been resolved
        return strength

    def key(self, data_hash: str, arithmetic: Mapping[str, str]) -> str:
        """Return the hash of the cell's identity; see there."""
        return content_hash(self.identity(data_hash, arithmetic))

    def identity(self, data_hash: str, arithmetic: Mapping[str, str]) -> dict[str, Any]:
        """Return what determines the bytes of the cell's result: ``cell``, ``data``, ``arithmetic``, ``code``.

        Args:
            data_hash: Of the prepared data.
            arithmetic: What computes: :func:`pipeline.runs.execution.arithmetic`.
        """
        return {"cell": self.content(), "data": data_hash, "arithmetic": dict(arithmetic), "code": self.code}

    @property
    def code(self) -> str:
        """The hash of the code that computes the cell."""
        return code_hash(frozenset({*COMPUTING, *(type(component).__module__ for component in self.components)}))

    @property
    def shared(self) -> str:
        """What must be equal in a batch: all but defence, partition, seed, learning rate and the VARYING of attacks.

        Where workers are drawn for each round, the seed as well: how many of them are Byzantine is a shape.
        """
        content = self.content()
        content["training"].pop("learning_rate")
        for varying in VARYING:
            content["attack"].pop(varying, None)
        seed = [] if self.threat.sampled is None else ["seed"]
        return content_hash({name: content[name] for name in ("model", "threat", "training", "attack", *seed)})
