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
# # The results of `dvc repro`
#
# `make repro` (or `dvc repro`) trains every defence against every attack of `params.yaml`, searches for the worst
# strengths, and leaves its results in the project's folder. This notebook reads them. Every table is an ordinary
# pandas table, so whatever you want to know beyond this is a line or two away.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

import pipeline
from pipeline.core.errors import UserError

folder = next((here for here in [Path.cwd(), *Path.cwd().parents] if (here / "params.yaml").exists()), Path.cwd())

# %% [markdown]
# `load_results` refuses results that are missing, damaged, or that belong to other parameters than `params.yaml`
# states.

# %%
try:
    final, curves = pipeline.load_results(folder)
except UserError as reason:
    final = curves = None
    print(f"No results to show: run `make repro` in {folder} and come back in some ten minutes. ({reason})")

# %% [markdown]
# One row of `final` is a *cell*: one attack, defence, partition and seed. The rest of this notebook looks at one
# partition, which is to say at one way of sharing the training data out among the workers.

# %%
if final is not None:
    partition = final["partition"].iloc[0]
    final = final[final["partition"] == partition]
    attacks, defences = final["attack"].unique(), final["defence"].unique()
    print(f"partition {partition}: {len(attacks)} attacks, {len(defences)} defences, {len(final)} cells")
    mean = final.pivot_table(index="defence", columns="attack", values="test_accuracy").loc[defences, attacks]

# %% [markdown]
# ## Heatmap
#
# The mean test accuracy of each defence under each attack, at the strength that the literature gives. The column
# `none` is what a defence costs when nobody attacks.

# %%
if final is not None:
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.45 * len(defences)), layout="constrained")
    image = axes.imshow(100 * mean, vmin=0, vmax=100, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(attacks)), attacks)
    axes.set_yticks(range(len(defences)), defences)
    for row, values in enumerate(100 * mean.to_numpy()):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="black" if value > 55 else "white")
    figure.colorbar(image, label="mean test accuracy (%)")

# %% [markdown]
# ## The worst attack of each defence
#
# A defence is as good as it is under the attack that it stands worst, so this is the table to choose by. It speaks of
# these attacks at these strengths only: an attacker who chooses the strength does more damage, as the curves below
# show.

# %%
worst = None
if final is not None:
    under_attack = mean.drop(columns="none")
    worst = under_attack.min(axis=1).rename("accuracy under it").to_frame()
    worst.insert(0, "worst attack", under_attack.idxmin(axis=1))
    worst.insert(0, "accuracy without attack", mean["none"])
    worst = worst.sort_values("accuracy under it", ascending=False).round(3)
worst

# %% [markdown]
# ## Distributions
#
# A mean hides what single runs do. Some attacks leave most seeds alone and ruin a few; then the dots fall into two
# groups. Each dot is a seed.

# %%
if final is not None:
    figure, panels = plt.subplots(1, len(defences), figsize=(1.6 * len(defences), 3.4), sharey=True, squeeze=False)
    for panel, defence in zip(panels[0], defences, strict=True):
        for place, attack in enumerate(attacks):
            seeds = final[(final["defence"] == defence) & (final["attack"] == attack)]["test_accuracy"]
            panel.plot([place] * len(seeds), 100 * seeds, "o", markersize=3, alpha=0.4)
        panel.set_title(defence.replace("_", "\n"), fontsize=8)
        panel.set_xticks(range(len(attacks)), attacks, rotation=90)
    panels[0, 0].set(ylabel="test accuracy (%)", ylim=(0, 102))
    figure.tight_layout()

# %% [markdown]
# ## Strength curves
#
# A *study* searched the strength of one attack against each defence, on validation data. `load_search` returns every
# trial, and what was then confirmed on test data with seeds that the search never saw. Lines and dots are trials; a
# diamond is the confirmed strength that did most damage, a square the literature's.

# %%
searched = {}
if final is not None:
    for study in sorted(path.name for path in (folder / "results" / "search").glob("*") if path.is_dir()):
        try:
            searched[study] = pipeline.load_search(study, folder)
        except UserError as reason:
            print(reason)


# %%
def strength_curves(title, trials, confirmation):
    defences = trials["defence"].unique()
    _, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for number, defence in enumerate(defences):
        of_defence = trials[trials["defence"] == defence]
        curve = 100 * of_defence.groupby("strength")["degradation"].mean()
        axes.plot(curve, "o-", markersize=3, linewidth=1, color=f"C{number}", label=defence)
        for mark, candidate in (("s", "literature"), ("D", "found")):
            rows = confirmation[(confirmation["defence"] == defence) & (confirmation["candidate"] == candidate)]
            point = rows["strength"].mean(), 100 * rows["degradation"].mean()
            axes.plot(*point, mark, color=f"C{number}", markeredgecolor="black")
    axes.set(title=title, xscale="log", xlabel="strength", ylabel="degradation (points)")
    axes.legend(fontsize=8, ncols=2)


for study, (trials, confirmation) in searched.items():
    if trials["strength"].notna().all():
        strength_curves(f"study {study}", trials, confirmation)

# %% [markdown]
# `reports/report.md` has all of this with intervals and tests of significance, and a paragraph on how to read each
# figure.
