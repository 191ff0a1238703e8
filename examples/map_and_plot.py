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
# From a Sentinel-2 scene to a land-cover map in Python: arrays, polygons, a figure of your own. The scene is the
# demonstration, a synthetic one that `geocfl.demo` writes; with one of yours, begin at `geocfl.map_scene`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import rasterio
from rasterio.plot import plotting_extent

import geocfl

scene = geocfl.demo("demo").scene

# %% [markdown]
# One call maps it. `stride=32` makes cells of 32 x 32 pixels, 320 m: each takes the class of the 64 x 64 px window
# around it. The files in `maps/` open styled in QGIS; a notebook shows the result itself.

# %%
result = geocfl.map_scene(scene, "maps", stride=32, overwrite=True)
result

# %% [markdown]
# ## Arrays
# Class codes and confidences are plain numpy arrays, one value a cell.

# %%
print(result.lulc.shape, result.lulc.dtype, result.confidence.dtype)
print("cells of low confidence:", (result.confidence < 0.5).sum())
result.frame()

# %% [markdown]
# ## Polygons
# The polygons are a GeoDataFrame. The five largest woods:

# %%
polygons = result.polygons
polygons[polygons.class_name == "Forest"].nlargest(5, "area_ha")[["class_name", "area_ha", "confidence"]]

# %% [markdown]
# ## A figure
# Scene, map and confidence side by side. `result.plot` draws in the legend's colours, on any axes; everything is in the
# scene's own coordinates, so what geopandas draws lies where it belongs.

# %%
with rasterio.open(scene) as dataset:
    rgb = dataset.read([1, 2, 3]).transpose(1, 2, 0) / 10_000  # digital numbers to reflectance
    extent = plotting_extent(dataset)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.5), layout="compressed", sharex=True, sharey=True)
darkest, brightest = np.percentile(rgb[rgb.any(axis=-1)], [1, 98], axis=0)  # land is dark: stretched for the eye
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
figure.savefig("map_and_plot.png", dpi=100)
