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
# # Use the model in other programs, through ONNX
#
# `geocfl.export` writes the model as one file that takes reflectance and gives probabilities: clipping, scaling,
# normalisation and calibration are inside. Whatever runs ONNX can use it; it needs neither geocfl nor PyTorch.
#
# ## Export it, once
# On the command line: `geocfl export eurosat-rgb-lite0 --out model.onnx`.

# %%
import geocfl

geocfl.export("eurosat-rgb-lite0", "model.onnx", overwrite=True)
demo = geocfl.demo("demo")  # a scene to try it on, and geocfl's own map of it

# %% [markdown]
# ## Use it
# From here on nothing is geocfl's: numpy, rasterio and onnxruntime do.

# %%
import json

import numpy as np
import onnxruntime
import rasterio

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
facts = json.loads(session.get_modelmeta().custom_metadata_map["geocfl"])  # what model.json holds
bands, window = facts["bands"], facts["window"]
names = [entry["name"] for entry in facts["legend"]]
print(bands, window, names)
for end in (*session.get_inputs(), *session.get_outputs()):
    print(end.name, end.shape, end.type)

# %% [markdown]
# Read the bands that the model wants, make reflectance of the digital numbers, NaN where there is no data, and cut
# windows. Of products of processing baseline 04.00 and later, subtract 1000 before dividing.

# %%
with rasterio.open("demo/demo_scene.tif") as scene:
    numbers = scene.read([scene.descriptions.index(band) + 1 for band in bands])
reflectance = np.where(numbers == 0, np.nan, numbers / 10_000).astype(np.float32)

rows, columns = (size // window for size in reflectance.shape[1:])
tiles = reflectance[:, : rows * window, : columns * window].reshape(len(bands), rows, window, columns, window)
windows = tiles.transpose(1, 3, 0, 2, 4).reshape(-1, len(bands), window, window)
(probabilities,) = session.run(None, {"reflectance": windows})
print(windows.shape, "->", probabilities.shape)

# %% [markdown]
# Codes are 1..N in the legend's order; a window that is mostly without data has none.

# %%
empty = np.isnan(windows[:, 0]).mean(axis=(1, 2)) > 0.5
codes = np.where(empty, 0, probabilities.argmax(axis=1) + 1).reshape(rows, columns).astype(np.uint8)
for code, count in zip(*np.unique(codes[codes > 0], return_counts=True), strict=True):
    print(f"{names[code - 1]:22} {count:3} windows")

# %% [markdown]
# It is the map that geocfl makes, but for windows between two classes that rounding may tip.

# %%
with rasterio.open("demo/demo_scene_lulc.tif") as lulc:
    same = (lulc.read(1) == codes).mean()
print(f"{same:.1%} of the cells are as in geocfl's map")
