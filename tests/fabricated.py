"""A stand-in for training: instant results from a known formula, with a record of what was trained."""

import math

import numpy as np

from pipeline.simulator.loop import Result

CLEAN = 0.9


def hump(strength: float, peak: float) -> float:
    """The damage of a strength: largest at ``peak``, a decade to either side almost none."""
    return 0.7 * math.exp(-((math.log10(strength / peak) / 0.4) ** 2))


def visible(strength: float) -> float:
    """The share of flagged vectors: it grows with the strength."""
    return strength / (1 + strength)


class Training:
    """Replaces ``pipeline.runs.execution.train``; ``fails_after`` cells it is killed.

    Accuracies depend on the defence, the seed, the strength and the split, so that any mix-up shows.
    """

    def __init__(self, damage, fails_after: int | None = None) -> None:
        self.damage, self.fails_after = damage, fails_after
        self.trained = []

    def __call__(self, cells, trainer, watch, detect=False, until=None, **_):
        for position, cell in enumerate(cells):
            if len(self.trained) == self.fails_after:
                raise KeyboardInterrupt
            self.trained.append(cell)
            if until is not None:
                early = {"validation_accuracy": np.array([0.1, self.early(cell, until)])}
                yield [position], [Result({}, [0, until], early, {})]
                continue
            validation = self.accuracy(cell)
            diverged = float(cell.strength > 50)
            final = {"validation_accuracy": validation, "test_accuracy": validation - 0.05, "diverged": diverged}
            steps = {"flagged": np.array([0.0, 2 * visible(cell.strength)])} if detect else {}
            yield [position], [Result(steps, [], {}, final)]

    def early(self, cell, steps) -> float:
        """What a cell has learnt of its accuracy at the end."""
        return 0.1 + (self.accuracy(cell) - 0.1) * steps / cell.training.steps

    def accuracy(self, cell) -> float:
        clean = CLEAN - 0.01 * (cell.seed % 7) - 0.001 * len(cell.defence.rule.name)
        return clean if cell.attack.name == "none" else clean - self.damage(cell)
