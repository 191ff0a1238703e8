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
# `geocfl.export` writes the model as one file that takes reflectance and returns probabilities. The file contains
# clipping, scaling, normalization and calibration. Any program that runs ONNX can use it, without geocfl or PyTorch.
#
# ## Export the model once
# On the command line: `geocfl export eurosat-rgb-lite0 --out model.onnx`.

# %%
from pathlib import Path

import geocfl

folder = Path("onnx_without_geocfl")  # all files of this example
folder.mkdir(exist_ok=True)
geocfl.export("eurosat-rgb-lite0", folder / "model.onnx", overwrite=True)
demo = geocfl.demo(folder / "demo", model="eurosat-rgb-lite0")  # a scene to try it on, and geocfl's own map of it

# %% [markdown]
# ## Run the model
# From here on the example uses numpy, rasterio and onnxruntime, but not geocfl.

# %%
import json

import numpy as np
import onnxruntime
import rasterio

session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
facts = json.loads(session.get_modelmeta().custom_metadata_map["geocfl"])  # what model.json holds
bands, window = facts["bands"], facts["window"]
names = [entry["name"] for entry in facts["legend"]]
print(bands, window, names)
for end in (*session.get_inputs(), *session.get_outputs()):
    print(end.name, end.shape, end.type)

# %% [markdown]
# Read the bands that the model needs, convert the digital numbers to reflectance with NaN for no data, and cut windows.
# For products of processing baseline 04.00 and later, subtract 1000 before you divide.

# %%
with rasterio.open(folder / "demo/demo_scene.tif") as scene:
    numbers = scene.read([scene.descriptions.index(band) + 1 for band in bands])
reflectance = np.where(numbers == 0, np.nan, numbers / 10_000).astype(np.float32)

rows, columns = (size // window for size in reflectance.shape[1:])
tiles = reflectance[:, : rows * window, : columns * window].reshape(len(bands), rows, window, columns, window)
windows = tiles.transpose(1, 3, 0, 2, 4).reshape(-1, len(bands), window, window)
(probabilities,) = session.run(["probabilities"], {"reflectance": windows})
print(windows.shape, "->", probabilities.shape)

# %% [markdown]
# Codes are 1..N in the order of the legend. A window with more than half of its pixels without data gets no class.

# %%
empty = np.isnan(windows[:, 0]).mean(axis=(1, 2)) > 0.5
codes = np.where(empty, 0, probabilities.argmax(axis=1) + 1).reshape(rows, columns).astype(np.uint8)
for code, count in zip(*np.unique(codes[codes > 0], return_counts=True), strict=True):
    print(f"{names[code - 1]:22} {count:3} windows")

# %% [markdown]
# The result matches geocfl's map, except in windows where two classes are so close that rounding decides.

# %%
with rasterio.open(folder / "demo/demo_scene_lulc.tif") as lulc:
    same = (lulc.read(1) == codes).mean()
print(f"{same:.1%} of the cells match geocfl's map")
