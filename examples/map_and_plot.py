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
# # Map a scene and plot it
#
# This example makes a land-cover map of a Sentinel-2 scene and shows its arrays, its polygons and a custom figure. The
# scene is the synthetic one that `geocfl.demo` writes. If you have your own scene, start at `geocfl.map_scene`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from rasterio.plot import plotting_extent

import geocfl

folder = Path("map_and_plot")  # all files of this example
scene = geocfl.demo(folder / "demo").scene

# %% [markdown]
# One call maps it. `stride=32` makes cells of 32 x 32 pixels, or 320 m. Each cell gets the class of the 64 x 64 px
# window around it. The files in `maps/` open in QGIS with names and colors. A notebook displays the result.

# %%
result = geocfl.map_scene(scene, folder / "maps", stride=32, overwrite=True)
result

# %% [markdown]
# ## Arrays
# Class codes and confidences are plain numpy arrays with one value per cell.

# %%
print(result.lulc.shape, result.lulc.dtype, result.confidence.dtype)
print("cells with low confidence:", (result.confidence < 0.5).sum())
result.frame()

# %% [markdown]
# ## Polygons
# The polygons are a GeoDataFrame. These are the five largest forests:

# %%
polygons = result.polygons
polygons[polygons.class_name == "Forest"].nlargest(5, "area_ha")[["class_name", "area_ha", "confidence"]]

# %% [markdown]
# ## A figure
# This figure shows scene, map and confidence side by side. `result.plot` uses the legend's colors and draws on any
# axes. All panels use the scene's coordinates, so geopandas can draw on top.

# %%
with rasterio.open(scene) as dataset:
    rgb = dataset.read([1, 2, 3]).transpose(1, 2, 0) / 10_000  # digital numbers to reflectance
    extent = plotting_extent(dataset)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.5), layout="compressed", sharex=True, sharey=True)
darkest, brightest = np.percentile(rgb[rgb.any(axis=-1)], [1, 98], axis=0)  # land is dark, so stretch the contrast
left.imshow(((rgb - darkest) / (brightest - darkest)).clip(0, 1), extent=extent)
left.set(title="Scene")

towns = polygons[polygons.class_name.isin(["Residential", "Industrial"])]
result.plot(middle, legend=False).set(title="Map, towns outlined")
towns.boundary.plot(ax=middle, color="black", linewidth=0.8)

drawn = right.imshow(result.confidence, extent=extent, cmap="viridis", vmin=0, vmax=1)
right.set(title="Confidence")
figure.colorbar(drawn, ax=right, shrink=0.8)
for axes in (left, middle, right):
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
figure.savefig(folder / "map_and_plot.png", dpi=100)
