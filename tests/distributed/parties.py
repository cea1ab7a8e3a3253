"""Cells for distributed runs, and a wire between threads, which costs no processes."""

import queue
from threading import Thread

from inputs import examples
from support import CPU, blobs, parameters

from pipeline.attacks import ATTACKS, TunableAttack
from pipeline.core.component import parse
from pipeline.runs.gloo import group, play
from pipeline.simulator import distributed
from pipeline.simulator.cell import Cell
from pipeline.simulator.gradients import chain_gradients
from pipeline.simulator.loop import step
from pipeline.simulator.program import build

DATASET = blobs(sizes=(90, 30, 20))
STEPS, SECONDS = 4, 20
LOCAL = {"local_update": {"name": "local_sgd", "steps": 2, "learning_rate": 0.2}}
SAMPLED = "9, 6 of them in a round"
THREATS = {
    5: {"workers": 5, "byzantine": 1, "tolerated": 1, "sampled": None},
    9: {"workers": 9, "byzantine": 3, "tolerated": 2, "sampled": None},
    SAMPLED: {"workers": 9, "byzantine": 3, "tolerated": 1, "sampled": 6},
}
CLIPPING = {"name": "centered_clipping", "tau": 0.1}  # the rule with a memory, so small that it counts
ATTACKED = {
    **{name: attack.replace(strength=2.0) if isinstance(attack, TunableAttack) else attack
       for name, attack in examples(ATTACKS).items()},
    "mimic long": {"name": "mimic", "warmup": 3},
    "mimic target": {"name": "mimic", "warmup": 0, "target": 1},
    "bit_flip plain": {"name": "bit_flip", "momentum": False},
    "ipm scheduled": {"name": "ipm", "strength": 2.0, "start": 1, "ramp": 1},
}  # fmt: skip
DEFENDED = {
    "mean": {"rule": {"name": "mean"}},
    "krum": {"rule": {"name": "krum"}},
    "clipping": {"rule": CLIPPING},
    "bucketing clipping": {"before": [{"name": "bucketing", "s": 2}], "rule": CLIPPING},
}


def cell(attack, defence="mean", threat=5, seed=0, **training) -> Cell:
    """A cell of a few steps; ``attack``, ``defence`` and ``threat`` by name."""
    params = parameters()
    raw = {
        "model": params.model,
        "partition": params.partitions["alpha_03"],
        "threat": THREATS[threat],
        "training": {**params.training.content(), "steps": STEPS, "server_momentum": 0.5, **training},
        "defence": DEFENDED[defence],
        "attack": ATTACKED[attack],
        "seed": seed,
    }
    return parse(Cell, raw, "")


class Threads:
    """The wires of one run: what is sent is copied, as no process shares memory with another."""

    def __init__(self):
        self.queues = {}

    def of(self, rank):
        return Threaded(self, rank)

    def between(self, sender, receiver):
        return self.queues.setdefault((sender, receiver), queue.Queue())


class Threaded:
    def __init__(self, wires, rank):
        self.wires, self.rank = wires, rank

    def send(self, tensor, to):
        self.wires.between(self.rank, to).put(tensor.clone())

    def receive(self, into, sender):
        return into.copy_(self.wires.between(sender, self.rank).get(timeout=SECONDS))


def in_threads(one, dataset=DATASET):
    """Yield the parameters after every step of the cell ``one``, with a thread for each worker."""

    def program():
        return build([one], dataset, chain_gradients, CPU)

    wires, taps = Threads(), Threads()
    threads = [
        Thread(
            target=distributed.take_part,
            args=(distributed.owned(program(), number), number, wires.of(number + 1), taps.of(number + 1)),
            daemon=True,
        )
        for number in range(one.threat.workers)
    ]
    for thread in threads:
        thread.start()
    yield from distributed.server(program(), wires.of(0), taps.of(0))
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert all(queue.empty() for wire in (wires, taps) for queue in wire.queues.values())


def simulated(one, dataset=DATASET):
    """Yield the parameters after every step of the cell ``one``, as the simulator computes them."""
    program = build([one], dataset, chain_gradients, CPU)
    state = program.start()
    for t in range(one.training.steps):
        state, _ = step(program, state, t)
        yield state.params


def one_after_the_other(rank, world, address, data, execution, cells):
    """Be one of the processes of several distributed cells."""
    with group(rank, world, address):
        return [play(rank, world, data, execution, one) for one in cells]
