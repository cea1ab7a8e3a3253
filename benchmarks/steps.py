"""The sections ``step`` and ``replicas``: a Byzantine step beside plain SGD, and what batching replicas gains."""

from collections.abc import Iterator

from benchmarks.document import Row
from benchmarks.timing import Action, Conditions, alternating
from benchmarks.workloads import Precision, Workload, digits, mnist, mnist_models, our_step, plain_sgd

STEP_TITLE = "A step against plain SGD on the same samples"
STEP_METHOD = (
    "10 honest and 3 Byzantine workers, 25 samples each, 28 x 28 random images, ALIE against NNM and the trimmed mean, "
    "worker momentum 0.9, diagnostics included. Plain SGD: one gradient of 250 samples and the update. "
    "Both read their samples from the data set. In turns, medians; a step of R replicas divided by R."
)
REPLICAS_TITLE = "Replica-steps a second against R"
REPLICAS_METHOD = (
    "The steps of the previous section, and those of a cell of params.yaml (`digits`: 17 workers, 4 Byzantine, "
    "MLP 64-32-10, 16 samples each). In turns, medians. The knee is the smallest R with at least 90 % of the best rate."
)
KNEE = 0.9
PRECISIONS: tuple[Precision, ...] = ("float32", "float64")


def measure_steps(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per model and R."""
    for name, model in mnist_models(conditions.tiny).items():
        workload = mnist(model, conditions.tiny)
        yield from _against_plain(name, workload, conditions)


def _against_plain(name: str, workload: Workload, conditions: Conditions) -> Iterator[Row]:
    network = workload.program(1, conditions.device).network
    plain = plain_sgd(network, workload.dataset(), workload.samples, conditions.device)
    for number, ours, other in in_turns_with(plain, workload, conditions):
        yield {
            "model": name,
            "R": number,
            "plain SGD ms": other,
            "ours ms a replica": ours,
            "ours / plain": ours / other,
        }


def in_turns_with(other: Action, workload: Workload, conditions: Conditions) -> Iterator[tuple[int, float, float]]:
    """Yield R, the milliseconds of our step divided by R, and the milliseconds of ``other``, measured in turns."""
    replicas = [1, 2] if conditions.tiny else [1, 16]
    ours = {str(number): our_step(workload.program(number, conditions.device)) for number in replicas}
    times = alternating({"other": other, **ours}, conditions)
    for number in replicas:
        yield number, times[str(number)] / number, times["other"]


def measure_replicas(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per workload and R."""
    models = mnist_models(conditions.tiny)
    workloads = {name: mnist(models[name], conditions.tiny) for name in ("mlp", "logistic")}
    workloads |= {f"digits {precision}": digits(conditions.tiny, precision) for precision in PRECISIONS}
    for name, workload in workloads.items():
        yield from _rates(name, workload, [1, 2] if conditions.tiny else [1, 2, 4, 8, 16, 32, 64], conditions)


def _rates(name: str, workload: Workload, replicas: list[int], conditions: Conditions) -> Iterator[Row]:
    actions = {str(number): our_step(workload.program(number, conditions.device)) for number in replicas}
    times = alternating(actions, conditions)
    rates = {number: 1e3 * number / times[str(number)] for number in replicas}
    best = max(rates.values())
    knee = min(number for number in replicas if rates[number] >= KNEE * best)
    for number in replicas:
        yield {
            "workload": name,
            "R": number,
            "replica-steps / s": rates[number],
            "of the best": rates[number] / best,
            "knee": number == knee,
        }
