"""The sections ``step`` and ``replicas``: a Byzantine step against plain SGD, and what batching replicas gains."""

from collections.abc import Iterator

from benchmarks.document import Row
from benchmarks.timing import Action, Setting, alternating
from benchmarks.workloads import Workload, digits, mnist, mnist_models, plain_sgd, stepper

STEP_TITLE = "A step against plain SGD on the same samples"
STEP_METHOD = (
    "10 honest and 3 Byzantine workers, 25 samples each, 28 x 28 random images, ALIE against NNM and the trimmed mean, "
    "worker momentum 0.9, diagnostics included. Plain SGD: one gradient of 250 samples and the update. "
    "Both read their samples from the data set. In turns, medians; a step of R replicas divided by R."
)
REPLICAS_TITLE = "Replica-steps a second against R"
REPLICAS_METHOD = (
    "The steps of the section before, and those of a cell of params.yaml (`digits`: 17 workers, 5 Byzantine, "
    "MLP 64-32-10, 16 samples each). In turns, medians. The knee is the smallest R with at least 90 % of the best rate."
)
KNEE = 0.9


def measure_steps(setting: Setting) -> Iterator[Row]:
    """Yield a row for each model and R."""
    for name, model in mnist_models(setting.tiny).items():
        workload = mnist(model, setting.tiny)
        yield from _against_plain(name, workload, setting)


def _against_plain(name: str, workload: Workload, setting: Setting) -> Iterator[Row]:
    network = workload.program(1, setting.device).network
    plain = plain_sgd(network, workload.dataset(), workload.samples, setting.device)
    for number, ours, other in in_turns_with(plain, workload, setting):
        yield {
            "model": name,
            "R": number,
            "plain SGD ms": other,
            "ours ms a replica": ours,
            "ours / plain": ours / other,
        }


def in_turns_with(other: Action, workload: Workload, setting: Setting) -> Iterator[tuple[int, float, float]]:
    """Yield R, the milliseconds of our step divided by R, and those of ``other``, measured in turns."""
    replicas = [1, 2] if setting.tiny else [1, 16]
    ours = {str(number): stepper(workload.program(number, setting.device)) for number in replicas}
    times = alternating({"other": other, **ours}, setting)
    for number in replicas:
        yield number, times[str(number)] / number, times["other"]


def measure_replicas(setting: Setting) -> Iterator[Row]:
    """Yield a row for each workload and R."""
    models = mnist_models(setting.tiny)
    workloads = {name: mnist(models[name], setting.tiny) for name in ("mlp", "logistic")}
    for name, workload in {**workloads, "digits": digits(setting.tiny)}.items():
        yield from _rates(name, workload, [1, 2] if setting.tiny else [1, 2, 4, 8, 16, 32, 64], setting)


def _rates(name: str, workload: Workload, replicas: list[int], setting: Setting) -> Iterator[Row]:
    actions = {str(number): stepper(workload.program(number, setting.device)) for number in replicas}
    times = alternating(actions, setting)
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
