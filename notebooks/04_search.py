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
# # A small search
#
# How strong should an attack be? Too weak, and it does nothing; too strong, and a good defence throws it out. The
# strength in between that hurts most depends on the defence, and a published default rarely hits it. So the attacker
# searches.
#
# This notebook runs a small search, looks at the curve it found, and checks the result on fresh seeds. It takes about
# a minute.

# %%
import matplotlib.pyplot as plt

import pipeline

# %% [markdown]
# ## Search
#
# The attack is inner-product manipulation (`ipm`): every Byzantine worker sends the honest mean times `-strength`.
# Published values are 0.1, which slows training down unnoticed, and others up to 100.
#
# For each defence an Optuna study proposes strengths: the published ones come first, then a grid from the weakest to
# the strongest, then what the sampler makes of the results. Every trial is trained with and without the attack, with
# the same seeds; what counts is the difference in accuracy on the validation data, the *degradation*.

# %%
defences = ["mean", "krum", "trimmed_mean"]
partition = {"name": "dirichlet_by_worker", "alpha": 0.3}
trials, confirmation = pipeline.search_strength(
    "ipm", defences, partition, trials=12, batch=6, seeds=[100, 101], confirmation_seeds=range(200, 206)
)

# %% [markdown]
# The three worst trials of each defence, with where they came from:

# %%
mean = trials.groupby(["defence", "trial", "origin", "strength"], sort=False)["degradation"].mean().reset_index()
mean.sort_values("degradation", ascending=False).groupby("defence", sort=False).head(3).round(3)

# %% [markdown]
# ## The curve
#
# A dot is a trial. Look at how different the curves are: what ruins one defence leaves another one alone.

# %%
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
for defence in defences:
    curve = mean[mean["defence"] == defence].sort_values("strength")
    axes.plot(curve["strength"], 100 * curve["degradation"], "o-", label=defence)
axes.axhline(0, color="grey", linewidth=0.8)
axes.set(xscale="log", xlabel="strength of ipm", ylabel="degradation (points of validation accuracy)")
_ = axes.legend()
# %% [markdown]
# ## Fresh seeds
#
# The worst of many trials looks worse than it is: some of it was bad luck with two seeds. That is why the strength
# that was found is run again, with seeds that the search never saw and on the test data, beside the published
# strength. Only these numbers should be quoted.

# %%
columns = ["defence", "candidate", "strength"]
confirmed = confirmation.groupby(columns, sort=False)["degradation"].agg(["mean", "std", "count"])
confirmed.round(3)

# %% [markdown]
# ## More of it
#
# A study in `params.yaml` does the same for `dvc repro search@<study>`, in larger numbers, with the choice of several
# attacks at once (mode `worst`), of damage that is hard to detect (`stealth`), or at every number of attackers
# (`breakdown`). `docs/search.md` says how it works, and `pipeline.load_search(study)` reads its results.
