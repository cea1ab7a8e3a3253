"""The package from Python: what ``import pipeline`` offers. Nothing is left on disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.attacks import ATTACKS, Attack, AttackContext, TunableAttack, VectorAttack
from pipeline.core.component import Schema, allowed, parse
from pipeline.core.errors import UserError
from pipeline.core.rng import Stream
from pipeline.data.dataset import Dataset, load, write
from pipeline.data.memory import from_arrays as from_arrays
from pipeline.data.partitions import PARTITIONS, Partition
from pipeline.data.prepare import Data, prepare
from pipeline.defences.defence import Defence
from pipeline.report.analysis import cell_curves, cells_table
from pipeline.runs import params
from pipeline.runs.execution import train, trainer
from pipeline.runs.params import Execution
from pipeline.runs.plan import Planned
from pipeline.runs.store import Record, read_row
from pipeline.runs.tuned import tuned
from pipeline.simulator.cell import Cell
from pipeline.simulator.loop import Result

__all__ = ["aggregate", "attack", "from_arrays", "load_data", "load_results", "simulate"]

Spec = str | Mapping[str, Any] | Schema
Specs = Spec | Sequence[Spec] | Mapping[str, Spec]
Vectors = TypeVar("Vectors", Tensor, np.ndarray)

# What params.yaml says as it is shipped (a test compares them), by section.
DEFAULTS: dict[str, dict[str, Any]] = {
    "data": {"validation_fraction": 0.15, "test_fraction": 0.2, "split_seed": 0},
    "threat": {"workers": 17, "byzantine": 4, "tolerated": 4, "sampled": None},
    "training": {
        "steps": 150,
        "batch_size": 16,
        "local_update": {"name": "gradient"},
        "clip": None,
        "augment": "none",
        "learning_rate": 0.5,
        "schedule": {"name": "constant"},
        "momentum": 0.9,
        "damped": True,
        "server_momentum": 0.0,
        "weight_decay": 0.0,
        "evaluate_every": 10,
        "precision": "float64",
        "tf32": False,
    },
    "execution": {
        **dict.fromkeys(("device", "processes", "gradients"), "auto"),
        **{"cluster": None, "memory_gb": None, "checkpoint_minutes": 10},
    },
}
MODEL = {"name": "mlp", "hidden": [32]}


class Frames(NamedTuple):
    """Results as two tidy tables.

    Attributes:
        final: One row per cell: ``attack``, ``defence``, ``partition``, ``seed``, ``strength``, the accuracies
            (fractions) and losses (nats) after the last step, ``diverged``, and ``degradation``: test accuracy without
            attack minus that with it, NaN where the attack ``none`` was not simulated.
        curves: One row per cell and evaluation: the same names, ``steps_done``, ``validation_accuracy`` and
            ``validation_loss``.
    """

    final: pd.DataFrame
    curves: pd.DataFrame


def simulate(
    attacks: Specs,
    defences: Specs,
    partition: Spec,
    seeds: Sequence[int],
    data: Spec | Path | Dataset = "digits",
    model: Spec = MODEL,
    **changes: Any,
) -> Frames:
    """Train every defence against every attack with every seed, and return what came of it.

    The checks are those of ``params.yaml``, and so are the numbers: the same cells have the same results as in
    ``dvc repro``, in the same processes.

    Args:
        attacks: One attack or several: a name (``"alie"``, with its published strength), a mapping as in params.yaml
            (``{"name": "ipm", "strength": 0.1}``), or labels with either of them (``{"weak ipm": {...}}``).
        defences: One defence or several: a rule (``"krum"``), pre-aggregations and a rule (``"nnm + trimmed_mean"``), a
            mapping as in params.yaml, or labels with either of them.
        partition: Who holds which samples: ``"iid"``, ``{"name": "dirichlet_by_worker", "alpha": 0.3}``, ...
        seeds: Of data order, partition and initial weights.
        data: The name of a source, a mapping as in ``data.source`` of params.yaml, the path of a prepared
            data set, or a data set in memory (``pipeline.from_arrays``).
        model: A mapping as in params.yaml.
        changes: Any field of the sections ``data``, ``threat``, ``training`` and ``execution`` by its own name, as in
            ``steps=50, workers=25``; the others have the values of params.yaml as it is shipped.

    Raises:
        UserError: Lists every fault, before anything is computed.

    Example:
        >>> attacks = {"none": "none", "ipm": {"name": "ipm", "strength": 10.0}}
        >>> final, curves = simulate(attacks, ["mean", "nnm + trimmed_mean"], "iid", seeds=[0], steps=60)
        >>> final[["attack", "defence", "test_accuracy"]].round(2)
          attack             defence  test_accuracy
        0   none                mean           0.96
        1   none  nnm + trimmed_mean           0.96
        2    ipm                mean           0.09
        3    ipm  nnm + trimmed_mean           0.94
    """
    faults = _Faults()
    sections = faults.checked_sections(data, model, changes)
    by_attack = faults.parsed("attacks", attacks, Annotated[Attack, ATTACKS])
    by_defence = faults.parsed("defences", defences, Defence)
    by_partition = faults.parsed("partition", partition, Annotated[Partition, PARTITIONS])
    wanted = {"attacks": attacks, "defences": defences, "seeds": seeds}
    faults += [f"{name}: empty" for name, found in wanted.items() if not found]
    faults.raise_any()
    fixed = {name: sections[name] for name in ("model", "threat", "training")}
    planned = []
    for attack, defence, where, seed in product(by_attack, by_defence, by_partition, seeds):
        parts = {"attack": by_attack[attack], "defence": by_defence[defence], "partition": by_partition[where]}
        with faults.noted():
            planned.append(Planned(attack, defence, where, parse(Cell, {**fixed, **parts, "seed": seed}, "")))
    faults.raise_any()
    with _data_file(data, sections.get("data")) as path:
        results = _trained(path, sections["execution"], [one.cell for one in planned])
    return _frames([_record(one, result) for one, result in zip(planned, results, strict=True)])


class _Faults(list[str]):
    """The faults found so far, a line each."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the faults that the block raises, and go on after it."""
        try:
            yield
        except UserError as error:
            self.extend(line for line in str(error).splitlines() if line not in self)

    def raise_any(self) -> None:
        if self:
            raise UserError("\n".join(self))

    def parsed(self, title: str, specs: Specs, annotation: Any) -> dict[str, Any]:
        """Return the objects that ``specs`` name, by their labels."""
        found = {}
        for label, spec in labelled(specs).items():
            with self.noted():
                raw = raw_defence(spec) if annotation is Defence else raw_component(spec)
                found[label] = parse(annotation, raw, f"{title}.{label.partition('(')[0]}")
        return found

    def checked_sections(self, data: Any, model: Spec, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sections that params.yaml would hold."""
        raw, unknown = raw_sections(changes)
        self += unknown
        if isinstance(data, Path | Dataset):
            del raw["data"]
        else:
            raw["data"]["source"] = raw_component(data)
        sections, found = params.checked({**raw, "model": raw_component(model)})
        self += found
        if isinstance(data, Path | Dataset):
            with self.noted():
                held = load(data) if isinstance(data, Path) else data
                self += params.unfit(held.shape, held.classes, sections)
        return sections


def raw_sections(changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the sections of params.yaml of which ``changes`` are fields, and a line for each that is none."""
    section_of = {field: section for section, fields in DEFAULTS.items() for field in fields}
    raw: dict[str, Any] = {section: dict(fields) for section, fields in DEFAULTS.items()}
    for name in set(changes) & set(section_of):
        raw[section_of[name]][name] = changes[name]
    return raw, [f"{name}: unknown field; {allowed(name, section_of)}" for name in changes if name not in section_of]


def raw_component(spec: Spec) -> Any:
    """Return what params.yaml would say for a component."""
    return {"name": spec} if isinstance(spec, str) else spec


def raw_defence(spec: Spec) -> Any:
    """Return what params.yaml would say for a defence."""
    if not isinstance(spec, str):
        return spec
    *before, rule = [{"name": name.strip()} for name in spec.split("+")]
    return {"before": before, "rule": rule}


def labelled(specs: Specs) -> dict[str, Spec]:
    """Return what ``specs`` name, by labels: those given, or short descriptions."""
    if isinstance(specs, Mapping) and not {"name", "rule"} & set(specs):
        return dict(specs)
    several = [specs] if isinstance(specs, str | Mapping | Schema) else specs
    return {_label(spec): spec for spec in several}


def _label(spec: Spec) -> str:
    """Return a short description.

    Example:
        >>> _label({"name": "ipm", "strength": 0.1}), _label({"before": [{"name": "nnm"}], "rule": {"name": "krum"}})
        ('ipm(strength=0.1)', 'nnm + krum')
    """
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Schema):
        return _label({name: value for name, value in spec if name in spec.model_fields_set or name == "name"})
    if "rule" in spec:
        return " + ".join(map(_label, [*spec.get("before", ()), spec["rule"]]))
    fields = ", ".join(f"{field}={value}" for field, value in spec.items() if field != "name")
    return f"{spec['name']}({fields})" if fields else str(spec["name"])


@contextmanager
def _data_file(data: Any, section: Data | None) -> Iterator[Path]:
    """Yield the prepared data set as a file, which the processes share in memory."""
    if isinstance(data, Path):
        yield data
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.safetensors"
        if isinstance(data, Dataset):
            write(path, data)
        elif section is not None:
            section.source.download(Path(folder))
            prepare(section, Path(folder), path)
        yield path


def _trained(data: Path, execution: Execution, cells: list[Cell]) -> list[Result]:
    """Return the result of every cell, in order."""
    found: dict[int, Result] = {}
    with trainer(data, execution, len(cells)) as processes, tqdm(total=len(cells), unit="cell") as bar:
        for positions, results in train(cells, processes, lambda _: lambda *_: None):
            found.update(zip(positions, results, strict=True))
            bar.update(len(positions))
    return [found[position] for position in range(len(cells))]


def _record(planned: Planned, result: Result) -> Record:
    steps = {"step": np.arange(planned.cell.training.steps), **result.steps}
    return Record(planned, "", result.final, steps, {"steps_done": np.array(result.evaluated), **result.evaluations})


def _frames(records: Sequence[Record]) -> Frames:
    return Frames(cells_table(records), cell_curves(records))


def load_data(data: Spec = "digits", **changes: Any) -> Dataset:
    """Return a source's data as training sees them: split, and normalised as they are read.

    Args:
        data: The name of a source, or a mapping as in ``data.source`` of params.yaml.
        changes: Any other field of the section ``data`` by its own name, as in ``split_seed=1``.

    Raises:
        UserError: There is no such source, or a field has no such value.

    Example:
        >>> digits = load_data("digits")
        >>> digits.train.inputs.shape, digits.test.labels.shape, digits.classes
        (torch.Size([1222, 1, 8, 8]), torch.Size([359]), 10)
    """
    section: Data = parse(Data, {**DEFAULTS["data"], **changes, "source": raw_component(data)}, "data")
    with _data_file(data, section) as path:
        return load(path)


def load_results(folder: str | Path = ".") -> Frames:
    """Return the results of the grid of a project, as :func:`simulate` does.

    Args:
        folder: Of params.yaml and of the results that ``dvc repro`` wrote.

    Raises:
        UserError: A result is missing, damaged, or belongs to other parameters than params.yaml states.
    """
    root = Path(folder)
    parameters = tuned(root, params.load(root / "params.yaml"))
    return _frames([record for attack in parameters.grid.attacks for record in read_row(root, parameters, attack)])


def aggregate(vectors: Vectors, f: int, defence: Spec, seed: int = 0) -> Vectors:
    """Return the aggregate of the vectors that n workers sent, of which f may be arbitrary.

    A rule with memory starts from its initial state: for centered clipping zero.

    Args:
        vectors: ``[..., n, d]``, a tensor or an array, float32 or float64.
        f: How many Byzantine workers are tolerated.
        defence: ``"krum"``, ``"nnm + trimmed_mean"``, or a mapping as in params.yaml.
        seed: Of the random numbers of a defence that draws some.

    Returns:
        ``[..., d]``, of the kind that was given.

    Raises:
        UserError: There is no such defence, or it does not tolerate f of n.

    Example:
        >>> aggregate(np.array([[1.0], [2.0], [3.0], [1e9]]), f=1, defence="nnm + trimmed_mean")
        array([2.])
    """
    chosen: Defence = parse(Defence, raw_defence(defence), "defence")
    received = _batch(vectors)
    if unmet := chosen.unmet(received.shape[-2], f):
        raise UserError(unmet)
    state = chosen.rule.init_state(received[..., 0, :])
    vector = chosen.aggregate(received, f, state, _stream(received, seed, "defence")).vector
    return _like(vectors, vector)


def attack(
    honest: Vectors, name: Spec, byzantine: int, defence: Spec = "mean", seed: int = 0, **parameters: Any
) -> Vectors:
    """Return what b colluding Byzantine workers send in the first step.

    Args:
        honest: ``[..., h, d]``, the honest workers' vectors, a tensor or an array, float32 or float64.
        name: ``"alie"``, ``"ipm"``, ..., or a mapping as in params.yaml.
        byzantine: b, which is also how many the defence is told to tolerate.
        defence: What the server uses; only some attacks look at it.
        seed: Of the random numbers of an attack that draws some.
        parameters: Fields of the attack, such as ``strength``; without it the published default.

    Returns:
        ``[..., b, d]``, of the kind that was given.

    Raises:
        UserError: There is no such attack, it has no default strength here, or it makes no vectors.

    Example:
        >>> attack(np.array([[1.0, 0.5], [3.0, 0.5]]), "ipm", byzantine=1, strength=2.0)
        array([[-4., -1.]])
    """
    seen = _batch(honest)
    n = seen.shape[-2] + byzantine
    chosen = _vector_attack(name, parameters, seen.shape[-2], n, byzantine)
    guard: Defence = parse(Defence, raw_defence(defence), "defence")
    previous = torch.zeros_like(seen[..., 0, :])
    memory = guard.rule.init_state(previous)
    context = AttackContext(
        byzantine=byzantine,
        tolerated=byzantine,
        step=0,
        strength=torch.tensor(chosen.strength if isinstance(chosen, TunableAttack) else 1.0, dtype=seen.dtype),
        previous=previous,
        defence=lambda sent: guard.aggregate(sent, byzantine, memory, _stream(sent, seed, "defence")).vector,
        stream=_stream(seen, seed, "attack"),
    )
    return _like(honest, chosen.craft(seen, context, chosen.init_state(seen)).vectors)


def _vector_attack(name: Spec, parameters: Mapping[str, Any], honest: int, n: int, f: int) -> VectorAttack:
    spec = raw_component(name)
    chosen: Attack = parse(Annotated[Attack, ATTACKS], {**dict(spec), **parameters}, "attack")
    if not isinstance(chosen, VectorAttack):
        raise UserError(f"attack.name = {chosen.name!r}: poisons labels and makes no vectors; use simulate")
    if unmet := chosen.unmet(honest, sampled=False):
        raise UserError(f"attack.{unmet}")
    return chosen.resolved(n, f)


def _batch(vectors: Tensor | np.ndarray) -> Tensor:
    """Return ``vectors [..., n, d]`` as a tensor ``[R, n, d]`` or ``[..., R, n, d]``."""
    tensor = torch.as_tensor(vectors)
    if tensor.dim() < 2 or not tensor.is_floating_point():
        raise UserError(f"vectors: should be floats [..., n, d], got {tensor.dtype} {list(tensor.shape)}")
    return tensor if tensor.dim() > 2 else tensor[None]


def _stream(vectors: Tensor, seed: int, purpose: str) -> Stream:
    replicas = vectors.shape[-3]
    return Stream.of([seed + replica for replica in range(replicas)], purpose, vectors.device)


def _like(given: Vectors, result: Tensor) -> Vectors:
    """Return ``result`` with as many leading dimensions as ``given``, and of its kind."""
    if len(given.shape) == 2:
        result = result[0]
    return result.numpy() if isinstance(given, np.ndarray) else result
