# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A rule and an attack of your own
#
# Here we write an aggregation rule, test it with the checks that every rule of this project must pass, write an
# attack against it, and compare it with two rules from the literature. Nothing has to be registered elsewhere and no
# file has to be changed: change a cell, run it again, and the new version is used.

# %%
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

import pipeline
from pipeline.attacks import ATTACKS, AttackContext, Crafted, TunableAttack
from pipeline.core.errors import UserError
from pipeline.core.rng import Stream
from pipeline.defences.aggregators import AGGREGATORS, Aggregated, Aggregator

# %% [markdown]
# ## The rule
#
# The trimmed mean drops the f largest and the f smallest values of every coordinate. The *winsorised* mean drops
# none: it pulls each of them in to the nearest value that the trimmed mean would have kept. So it still averages n
# numbers, and the honest among the extremes keep some of their say.
#
# A rule is a class with a name, the condition under which it is defined, and one method. Vectors arrive as a tensor
# `[..., n, d]`: n workers, d parameters, and in front of them any number of simulations that run side by side. Always
# count dimensions from the end, and never loop over what is in front.


# %%
@AGGREGATORS.register
class WinsorisedMean(Aggregator):
    """Coordinate-wise winsorised mean."""

    name: Literal["winsorised_mean"] = "winsorised_mean"
    formula: ClassVar[str] = "per coordinate the mean, the f largest and f smallest moved to their neighbours"
    reference: ClassVar[str] = "an example"
    condition: ClassVar[str] = "n > 2f"

    def tolerates(self, n: int, f: int) -> bool:
        return 0 <= 2 * f < n

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        n = vectors.shape[-2]
        ordered = vectors.sort(dim=-2).values  # NaN comes last, so it is among the f largest
        low, high = ordered[..., f, :], ordered[..., n - f - 1, :]
        total = f * (low + high)
        for worker in range(f, n - f):  # one after the other: the same order of additions whatever the batch
            total = total + ordered[..., worker, :]
        return Aggregated(total / n, state)


# %% [markdown]
# Three honest workers say about 2, one Byzantine worker says a billion:

# %%
vectors = torch.tensor([[1.0], [2.0], [3.0], [1e9]])
for rule in ("mean", "trimmed_mean", "winsorised_mean"):
    print(f"{rule:16}", pipeline.aggregate(vectors, f=1, defence=rule).tolist())

# %% [markdown]
# ## The contract
#
# Every rule of this project passes the same checks: shapes and types, the same bits whatever else is in the batch,
# independence of the order of the workers, shifts and scales, finite results under huge values, infinity and NaN, and
# more. They stand in `tests/aggregator_contract.py`; we run them all, at every size at which the rule is defined.
#
# One of them compares the rule with its *slow twin*: the definition once more, in plain Python without a tensor in
# it.

# %%
tests = Path(pipeline.__file__).parents[1] / "tests"
sys.path.append(str(tests))
import oracles  # noqa: E402
from aggregator_contract import CHECKS, SIZES, applies  # noqa: E402


def winsorised_mean(vectors, f):
    def statistic(numbers):
        ordered = sorted(numbers)
        low, high = ordered[f], ordered[-f - 1]
        return sum(min(max(number, low), high) for number in numbers) / len(numbers)

    return [statistic(numbers) for numbers in zip(*vectors, strict=True)]


oracles.twins("aggregators")["winsorised_mean"] = winsorised_mean

# %%
rule, passed = WinsorisedMean(), 0
for title, check in CHECKS.items():
    for n, f in SIZES:
        if applies(rule, title, n, f):
            check(rule, n, f)  # an AssertionError here says what the rule does not do
            passed += 1
print(f"{passed} checks passed")

# %% [markdown]
# ## The attack
#
# Most attacks look at the honest workers' vectors. Ours makes do with what the server makes public anyway: the step
# that was just taken. It sends that step back with the opposite sign, `strength` times as large, and so tries to undo
# it.
#
# An attack returns one vector for each Byzantine worker, `[..., b, d]`. It takes its strength from `context`, because
# simulations with different strengths run side by side; what stands there besides is described in `AttackContext`.


# %%
@ATTACKS.register
class Undo(TunableAttack):
    """Send the last step back."""

    name: Literal["undo"] = "undo"
    formula: ClassVar[str] = "-theta R_(t-1), the aggregate of the step before"
    reference: ClassVar[str] = "an example"
    knowledge: ClassVar[str] = "the last step of the server"
    strengths: ClassVar[tuple[float, float]] = (0.1, 100.0)

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        return (10.0,)  # the strength that is used when none is given

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        sent = -context.strength * context.previous[..., None, :]
        return Crafted(sent.expand(*sent.shape[:-2], context.byzantine, sent.shape[-1]), state)


# %% [markdown]
# ## The comparison
#
# Our rule and our attack are used by their names, beside those that come with the project.

# %%
rules = ["mean", "trimmed_mean", "winsorised_mean"]
partition = {"name": "dirichlet_by_worker", "alpha": 1.0}
final, curves = pipeline.simulate(["none", "undo", "sign_flip"], rules, partition, seeds=range(3))
accuracy = 100 * final.pivot_table(index="defence", columns="attack", values="test_accuracy", sort=False)
accuracy.round(1)

# %%
axes = accuracy.T.plot.bar(figsize=(9, 3.5), rot=0, ylabel="test accuracy (%)", ylim=(0, 100))
_ = axes.legend(ncols=2, loc="lower left")
# %% [markdown]
# Three seeds are few: differences of a point or two mean nothing here. How large the intervals are, and which
# differences are significant, is what the report of `dvc repro` says.
#
# A mistake is told in one line, before anything is computed:

# %%
try:
    pipeline.simulate("undo", "winsorized_mean", "iid", seeds=[0])
except UserError as error:
    print(error)

# %% [markdown]
# ## To keep it
#
# Put the class into a file of its own, `pipeline/defences/aggregators/winsorised_mean.py`, and the twin into
# `tests/oracles/aggregators/winsorised_mean.py`. Then `params.yaml` knows the name, `make test` runs the contract,
# and `dvc repro` trains the cells that use it. The README's "Adding a rule" goes through it step by step.
