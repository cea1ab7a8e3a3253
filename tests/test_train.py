"""The stage ``train``: what it shows while it trains."""

import numpy as np
from support import parameters

from pipeline.runs.plan import grid_row
from pipeline.runs.row import _advancing
from pipeline.runs.train import _Late


class Bar:
    def __init__(self):
        self.done = 0

    def advance(self, amount, note=""):
        self.done, self.note = self.done + amount, note


def test_a_step_of_a_cell_is_counted_once_even_if_its_batch_is_halved_on_the_way():
    cells, bar, logged = grid_row(parameters(), "alie")[:3], Bar(), []
    of_batch = _advancing(cells, lambda batch: lambda steps, _: logged.append((len(batch), steps)), bar, [0, 0, 0])
    metrics = {"validation_accuracy": np.array([0.5])}
    whole = of_batch([0, 1, 2])
    whole(0, metrics)
    whole(4, metrics)
    assert bar.done == 12
    for positions in ([0], [1, 2]):
        of_batch(positions)(6, metrics)
    assert bar.done == 18
    assert bar.note == "mean validation accuracy 50.0%"
    assert logged == [(3, 0), (3, 4), (1, 6), (2, 6)]


class Observed:
    def __init__(self):
        self.heard = []

    def watch(self, cells):
        self.heard.append(("watch", cells))
        return lambda steps, _: self.heard.append((cells, steps))

    def finish(self, records):
        self.heard.append(("finish", records))

    def stop(self, status):
        self.heard.append(("stop", status))


def test_what_follows_a_row_is_made_when_it_is_first_told_something():
    made = []
    late = _Late(lambda: made.append(Observed()) or made[0])
    one, other = late.watch(["a"]), late.watch(["b"])
    late.stop("KILLED")
    assert made == []
    for steps in (0, 4):
        other(steps, {})
    one(4, {})
    late.stop("FAILED")
    late.finish([])
    heard = [("watch", ["b"]), (["b"], 0), (["b"], 4), ("watch", ["a"]), (["a"], 4), ("stop", "FAILED"), ("finish", [])]
    assert [observer.heard for observer in made] == [heard]
