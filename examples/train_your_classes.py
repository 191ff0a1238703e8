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
# A model learns the classes of a folder of patches: one sub-folder a class, GeoTIFF, PNG or JPEG patches of one size.
# Here the patches are cut from a synthetic scene, and EuroSAT's ten classes become five.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import geocfl
from geocfl.core.legend import EUROSAT
from geocfl.demonstration.landscape import write_synthetic_patches, write_synthetic_scene

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
write_synthetic_patches("patches", names=names)
for folder in sorted(Path("patches").iterdir()):
    print(f"{folder.name:9} {len(list(folder.iterdir())):4} patches")

# %% [markdown]
# ## Train
# Some two hundred patches are too few for a whole network. So the backbone stays as the bundled model's, which has seen
# 21,600 patches of EuroSAT, and only the last layer is trained (`freeze=True`): seconds, also without a GPU. Half of
# the patches of each class test it.

# %%
weights = geocfl.load_model().path / "model.safetensors"
run = geocfl.train(
    "patches",
    "runs/five-classes",
    backbone="lite0",
    weights=str(weights),
    freeze=True,
    split="random:0.5",
    overwrite=True,
)
run

# %% [markdown]
# The run folder is a model. Its colours stay apart, but water is not blue: names and colours are those in `model.json`,
# and may be changed there.

# %%
colors = {"Water": "#1d4e9e", "Woodland": "#14532d", "Scrub": "#b5c99a", "Farmland": "#f4d35e", "BuiltUp": "#d7263d"}
description = run.path / "model.json"
facts = json.loads(description.read_text())
for entry in facts["legend"]:
    entry["color"] = colors[entry["folder"]]
description.write_text(json.dumps(facts, indent=2))

model = geocfl.load_model(run.path)
model

# %% [markdown]
# ## Map a scene it has not seen
# Another synthetic landscape, of which the truth is known for every cell of 64 x 64 px.

# %%
scene = write_synthetic_scene(Path("elsewhere.tif"), Path("elsewhere_truth.tif"), seed=7)
result = geocfl.map_scene(scene.path, "maps", model=run.path, overwrite=True)
result

# %% [markdown]
# Where do map and truth differ? Mostly where a cell holds two classes. White cells have no data, or are highway, which
# is none of the five classes.

# %%
code_of = {c.folder: c.code for c in model.legend}
ours = [0, *(code_of.get(names.get(c.folder), 0) for c in EUROSAT)]  # the ten classes' codes to the five; highway: none
truth = np.array(ours)[scene.truth]
known = (truth > 0) & (result.lulc > 0)
right = result.lulc == truth
print(
    f"right in {right[known].mean():.1%} of {known.sum()} cells, {right[known & scene.clear].mean():.1%} of clear ones"
)

figure, (left, middle) = plt.subplots(1, 2, figsize=(11, 4.2), layout="compressed")
result.plot(left).set(title="Map", xticks=[], yticks=[])
middle.imshow(np.where(known, right, np.nan), cmap="RdYlGn", vmin=0, vmax=1)
middle.set(title="Right (green) and wrong (red)", xticks=[], yticks=[])
figure.savefig("train_your_classes.png", dpi=100)
