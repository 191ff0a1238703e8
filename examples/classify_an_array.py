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
# # Classify an array in memory
#
# If pixels are already in memory, from xarray, a STAC loader or a simulation, you need no file: `model.predict` takes
# reflectance and returns classes with calibrated probabilities.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from matplotlib.colors import ListedColormap

import geocfl

folder = Path("classify_an_array")  # all files of this example
model = geocfl.load_model()
model

# %% [markdown]
# ## An image
# An image has the shape (bands, height, width), with the bands in the order of `model.bands`, 10 m pixels, reflectance
# from 0 to 1, and NaN for no data. This cell reads one from a file and converts its digital numbers:

# %%
with rasterio.open(geocfl.demo(folder / "demo").scene) as dataset:
    numbers = dataset.read([dataset.descriptions.index(band) + 1 for band in model.bands])
image = np.where(numbers == 0, np.nan, numbers / 10_000)  # baseline 04.00 and later: (numbers - 1000) / 10_000
found = model.predict(image, stride=32)
found

# %% [markdown]
# The result has one value per cell of `stride` pixels. The cells are those that `geocfl.map_scene` would write.

# %%
print(found.codes.shape, found.codes.dtype, found.confidence.shape, found.probabilities.shape)
print(found.names[10, 12], f"{found.confidence[10, 12]:.2f}")
found.frame().sample(5, random_state=0).round(3)

# %% [markdown]
# ## Windows
# An array (N, bands, 64, 64) of windows gives N classes, for example for labeled patches or points of interest.

# %%
corners = [(100, 200), (300, 900), (420, 640), (800, 450)]
windows = np.stack([image[:, y : y + model.window, x : x + model.window] for y, x in corners])
patches = model.predict(windows)

# Land is dark, so stretch the contrast.
darkest, brightest = np.nanpercentile(image, [1, 98], axis=(1, 2))[..., None, None]
figure, panels = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for axes, window, name, confidence in zip(panels, windows, patches.names, patches.confidence, strict=True):
    axes.imshow(((window - darkest) / (brightest - darkest)).clip(0, 1).transpose(1, 2, 0))
    axes.set(title=f"{name}\n{confidence:.0%}", xticks=[], yticks=[])
figure.savefig(folder / "windows.png", dpi=100)

# %% [markdown]
# ## Probabilities
# The result has the probabilities of all classes, not only of the most likely one. They show, for example, how likely
# each cell is built-up, and in which cells two classes are nearly tied.

# %%
built_up = found.probabilities[..., [name in ("Residential", "Industrial") for name in model.legend.names]].sum(axis=-1)
first, second = np.sort(found.probabilities, axis=-1)[..., ::-1][..., :2].transpose(2, 0, 1)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 3.6), layout="compressed")
colors = ListedColormap(["white", *(c.color for c in model.legend)])
left.imshow(found.codes, cmap=colors, vmin=-0.5, vmax=len(model.legend) + 0.5, interpolation="nearest")
left.set(title="Classes")
shown = middle.imshow(built_up, cmap="magma_r", vmin=0, vmax=1)
middle.set(title="Probability of built-up land")
figure.colorbar(shown, ax=middle, shrink=0.8)
shown = right.imshow(first - second, cmap="viridis", vmin=0, vmax=1)
right.set(title="Margin of the most likely class")
figure.colorbar(shown, ax=right, shrink=0.8)
for axes in (left, middle, right):
    axes.set(xticks=[], yticks=[])
figure.savefig(folder / "probabilities.png", dpi=100)
