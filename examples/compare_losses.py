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
# Which loss should a rare class be trained with? `geocfl.compare` trains every loss under every imbalance with several
# seeds, on the same patches, and tests the differences. Here on the small patches of the demonstration; on EuroSAT it
# is the same call.

# %%
import matplotlib.pyplot as plt

import geocfl
from geocfl.demonstration.landscape import write_synthetic_patches

groups = {
    "Vegetation": ["Forest", "HerbaceousVegetation", "Pasture"],
    "Crops": ["AnnualCrop", "PermanentCrop"],
    "Town": ["Residential", "Industrial"],
    "Water": ["River", "SeaLake"],
}
names = {folder: group for group, folders in groups.items() for folder in folders}
print(write_synthetic_patches("patches", names=names), "patches")

# %% [markdown]
# `long-tail:20` thins the training patches until the largest class has twenty times as many as the smallest; the test
# patches stay as they are. With `freeze=True` the backbone is fixed, so that a training takes a second or two. Finished
# trainings are kept: the same call again, or with one more loss, trains only what is missing.

# %%
comparison = geocfl.compare(
    "patches",
    "comparison",
    losses=("ce", "class-focal", "logit-adjusted"),
    imbalance=("none", "long-tail:20"),
    seeds=3,
    backbone="lite0",
    weights=str(geocfl.load_model().path / "model.safetensors"),
    freeze=True,
    split="random:0.5",
    epochs=10,
    overwrite=True,
)
comparison

# %% [markdown]
# `frame()` has the same as numbers. The bars are 95 % intervals over seeds: of three seeds they are wide, and losses
# whose bars overlap cannot be told apart by this experiment. Without imbalance there are no minority classes.

# %%
frame = comparison.frame()
figures = {"balanced_accuracy": "balanced accuracy", "minority_recall": "recall of minority classes", "ece": "ECE"}
figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained", sharey=True)
for axes, (name, title) in zip(panels, figures.items(), strict=True):
    for shift, (imbalance, rows) in zip((-0.12, 0.12), frame.groupby(level="imbalance", sort=False), strict=True):
        losses = rows.index.get_level_values("loss")
        places = [place + shift for place in range(len(losses))]
        axes.errorbar(rows[name], places, xerr=rows[f"{name}_half_width"], fmt="o", capsize=3, label=imbalance)
    axes.set(xlabel=title, yticks=range(len(losses)), yticklabels=losses)
    axes.grid(axis="x", alpha=0.3)
panels[0].invert_yaxis()
handles, labels = panels[0].get_legend_handles_labels()
figure.legend(handles, [f"imbalance {label}" for label in labels], loc="outside upper center", ncols=2, frameon=False)
figure.savefig("compare_losses.png", dpi=100)
