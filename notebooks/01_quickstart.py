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
# # Quickstart: one attack against one defence
#
# Seventeen workers train a small neural network together. In every step each worker computes a gradient on its own
# data and sends it to a server; the server combines the seventeen vectors into one and takes a step with it. Four of
# the workers are *Byzantine*: they may send anything at all, and they work together.
#
# This notebook shows what they can do with that, and what a *defence*, a more careful way to combine the vectors,
# saves. It runs in less than a minute and leaves nothing on disk.

# %%
import matplotlib.pyplot as plt

import pipeline
from pipeline.core.errors import UserError

# %% [markdown]
# ## The data
#
# Scikit-learn's handwritten digits: images of 8 x 8 pixels, in ten classes. They come with scikit-learn, so no
# network is needed. `load_data` returns the three splits as training sees them.

# %%
digits = pipeline.load_data("digits")
print(
    f"training {len(digits.train.labels)}, validation {len(digits.validation.labels)}, test {len(digits.test.labels)}"
)

figure, panels = plt.subplots(1, 10, figsize=(9, 1.2))
for panel, image, label in zip(panels, digits.train.inputs.numpy(), digits.train.labels, strict=False):
    panel.imshow(image[0], cmap="gray_r")
    panel.set_title(int(label))
    panel.axis("off")

# %% [markdown]
# ## Three lines
#
# - The attack is ALIE ("a little is enough"). The Byzantine workers look at what the honest ones are about to send,
#   and all send the same vector: the honest mean, shifted in every coordinate by a multiple of the honest standard
#   deviation. That multiple is the *strength* of the attack. At its published value the vectors are hard to notice;
#   we turn it up to 10. The attack `none` is the reference: the same workers, but all of them behave.
# - The plain mean is what distributed training uses when nobody is suspicious. Against it stands the trimmed mean,
#   which drops the four largest and the four smallest values of every coordinate. Before that, nearest-neighbour
#   mixing (`nnm`) replaces each vector by the average of its nearest neighbours.
# - Workers seldom have the same kind of data. Here each worker's mix of classes is drawn from a Dirichlet
#   distribution; the smaller `alpha` is, the more the workers differ.

# %%
attacks = {"none": "none", "alie": {"name": "alie", "strength": 10.0}}
defences = ["mean", "nnm + trimmed_mean"]
final, curves = pipeline.simulate(attacks, defences, {"name": "dirichlet_by_worker", "alpha": 1.0}, seeds=range(3))

# %% [markdown]
# ## What came of it
#
# `final` has one row for each attack, defence and seed. Accuracies are fractions; here are their means over three
# seeds.

# %%
final.pivot_table(index="defence", columns="attack", values="test_accuracy", sort=False).round(3)

# %% [markdown]
# `degradation` is what the attack costs: the accuracy without it, minus the accuracy under it, for the same defence
# and the same seed.

# %%
final.groupby(["attack", "defence"], sort=False)["degradation"].agg(["mean", "min", "max"]).round(3)

# %% [markdown]
# ## Learning curves
#
# `curves` has a row for every evaluation on the validation data. A thin line is a seed, the thick one their mean.

# %%
figure, panels = plt.subplots(1, len(defences), figsize=(9, 3), sharey=True, layout="constrained")
for panel, defence in zip(panels, defences, strict=True):
    for colour, attack in zip(["tab:blue", "tab:red"], attacks, strict=True):
        rows = curves[(curves["defence"] == defence) & (curves["attack"] == attack)]
        table = 100 * rows.pivot_table(index="steps_done", columns="seed", values="validation_accuracy")
        panel.plot(table, color=colour, linewidth=0.6, alpha=0.5)
        panel.plot(table.mean(axis=1), color=colour, linewidth=2, label=attack)
    panel.set(title=defence, xlabel="steps done", ylim=(0, 100))
panels[0].set_ylabel("validation accuracy (%)")
_ = panels[0].legend(title="attack")
# %% [markdown]
# ## The model
#
# What all of them train is a multilayer perceptron with 32 hidden units. The first picture shows its layers, with the
# shapes that they take and give. The pictures need Graphviz; where it is missing, the next cell says what to install.

# %%
try:
    pictures = pipeline.draw_model(digits, {"name": "mlp", "hidden": [32]})
except UserError as missing:
    pictures = None
    print(missing)
pictures and pictures.layers

# %% [markdown]
# The second one shows how a gradient comes about: from the loss at the bottom up to the weights, each with its name.
# These weights, written one after the other, are the vector that a worker's gradient has the length of: its `d`
# numbers are what an attacker changes, and what a defence sees.

# %%
pictures and pictures.gradients

# %% [markdown]
# ## Where to go from here
#
# - `help(pipeline.simulate)` lists everything that can be changed: `steps=50, workers=25, byzantine=6`, ...
# - `python -m pipeline list` prints all attacks and defences with their formulas; `docs/catalogue.md` says more.
# - `02_results` looks at a whole grid of attacks and defences, `03_new_rule` adds a defence and an attack of your
#   own, and `04_search` lets the attacker choose the strength.
