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
# # Train on your own classes
#
# This example trains a model on a folder of patches. The folder has one subfolder per class, with GeoTIFF, PNG or JPEG
# patches of one size. The patches of this example are cut from synthetic scenes; EuroSAT's ten classes become five.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import geocfl
from geocfl.core.legend import EUROSAT
from geocfl.demonstration.landscape import write_synthetic_patches, write_synthetic_scene

example = Path("train_your_classes")  # all files of this example
names = {
    "Forest": "Woodland",
    "HerbaceousVegetation": "Scrub",
    "AnnualCrop": "Farmland",
    "PermanentCrop": "Farmland",
    "Pasture": "Farmland",
    "Residential": "BuiltUp",
    "Industrial": "BuiltUp",
    "River": "Water",
    "SeaLake": "Water",
}
write_synthetic_patches(example / "patches", scenes=3, names=names)
for folder in sorted((example / "patches").iterdir()):
    print(f"{folder.name:9} {len(list(folder.iterdir())):4} patches")

# %% [markdown]
# ## Train
# About six hundred patches are too few to train a whole network. So the features are those of the built-in model, which
# was trained on 21,600 patches of EuroSAT, and only the last layer is trained (`freeze=True`). This takes seconds, even
# without a GPU. Half of the patches of each class are for testing.

# %%
run = geocfl.train(example / "patches", example / "run", freeze=True, split="random:0.5", overwrite=True)
run

# %% [markdown]
# The run folder is a model. Its colors are distinct, but water is not blue. You can change names and colors in
# `model.json`.

# %%
colors = {"Water": "#0f468c", "Woodland": "#04432a", "Scrub": "#cfeaac", "Farmland": "#fcdb62", "BuiltUp": "#d2332b"}
description = run.path / "model.json"
facts = json.loads(description.read_text())
for entry in facts["legend"]:
    entry["color"] = colors[entry["folder"]]
description.write_text(json.dumps(facts, indent=2))

model = geocfl.load_model(run.path)
model

# %% [markdown]
# ## Map a new scene
# The scene is another synthetic landscape. The true class of every cell of 64 x 64 px is known.

# %%
scene = write_synthetic_scene(example / "elsewhere.tif", example / "elsewhere_truth.tif", seed=7)
result = geocfl.map_scene(scene.path, example / "maps", model=run.path, overwrite=True)
result

# %% [markdown]
# The map and the truth differ mostly in cells that contain two classes. White cells have no data or are highway, which
# is not one of the five classes.

# %%
code_of = {c.folder: c.code for c in model.legend}
ours = [0, *(code_of.get(names.get(c.folder), 0) for c in EUROSAT)]  # ten codes to five; highway to none
truth = np.array(ours)[scene.truth]
known = (truth > 0) & (result.lulc > 0)
right = result.lulc == truth
print(
    f"correct: {right[known].mean():.1%} of {known.sum()} cells, {right[known & scene.clear].mean():.1%} of clear ones"
)

figure, (left, middle) = plt.subplots(1, 2, figsize=(11, 4.2), layout="compressed")
result.plot(left).set(title="Map", xticks=[], yticks=[])
middle.imshow(np.where(known, right, np.nan), cmap="RdYlGn", vmin=0, vmax=1)
middle.set(title="Correct (green) and wrong (red)", xticks=[], yticks=[])
figure.savefig(example / "train_your_classes.png", dpi=100)
