# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compare losses under class imbalance
#
# Which loss is best for rare classes? `geocfl.compare` trains every loss under every imbalance with several seeds, on
# the same patches, and tests the differences. This example uses a small synthetic data set. The call for EuroSAT is
# the same.

# %%
from pathlib import Path

import matplotlib.pyplot as plt

import geocfl
from geocfl.demonstration.landscape import write_synthetic_patches

folder = Path("compare_losses")  # all files of this example
groups = {
    "Vegetation": ["Forest", "HerbaceousVegetation", "Pasture"],
    "Crops": ["AnnualCrop", "PermanentCrop"],
    "Town": ["Residential", "Industrial"],
    "Water": ["River", "SeaLake"],
}
names = {name: group for group, members in groups.items() for name in members}
print(write_synthetic_patches(folder / "patches", names=names), "patches")

# %% [markdown]
# `long-tail:20` thins the training patches until the largest class has twenty times as many as the smallest. It does
# not change the test patches. `freeze=True` trains only the last layer, so each run takes a second or two. Finished
# runs are kept: if you repeat the call, or add a loss, geocfl trains only what is missing.

# %%
comparison = geocfl.compare(
    folder / "patches",
    folder / "comparison",
    losses=("ce", "class-focal", "logit-adjusted"),
    imbalances=("none", "long-tail:20"),
    seeds=(0, 1, 2),
    backbone="lite0",
    weights=str(geocfl.load_model().path / "model.safetensors"),
    freeze=True,
    split="random:0.5",
    epochs=10,
    overwrite=True,
)
comparison

# %% [markdown]
# `frame()` returns the same table as numbers. The bars are 95% intervals over the seeds. With three seeds they are
# wide, and this experiment cannot distinguish losses whose bars overlap. Without imbalance there are no minority
# classes.

# %%
frame = comparison.frame()
metrics = {"balanced_accuracy": "balanced accuracy", "minority_recall": "recall of minority classes", "ece": "ECE"}
figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained", sharey=True)
for axes, (name, title) in zip(panels, metrics.items(), strict=True):
    for shift, (imbalance, rows) in zip((-0.12, 0.12), frame.groupby(level="imbalance", sort=False), strict=True):
        losses = rows.index.get_level_values("loss")
        places = [place + shift for place in range(len(losses))]
        axes.errorbar(rows[name], places, xerr=rows[f"{name}_half_width"], fmt="o", capsize=3, label=imbalance)
    axes.set(xlabel=title, yticks=range(len(losses)), yticklabels=losses)
    axes.grid(axis="x", alpha=0.3)
panels[0].invert_yaxis()
handles, labels = panels[0].get_legend_handles_labels()
figure.legend(handles, [f"imbalance {label}" for label in labels], loc="outside upper center", ncols=2, frameon=False)
figure.savefig(folder / "compare_losses.png", dpi=100)
