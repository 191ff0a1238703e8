"""A user-defined function for openEO: land cover of a cube of Sentinel-2 reflectance.

The back end runs it on chunks of the cube, where geocfl must be installed:

    import openeo

    udf = openeo.UDF.from_file("openeo_udf.py", context={"stride": 16})
    bands = connection.load_collection("SENTINEL2_L2A", ..., bands=["B04", "B03", "B02"])
    classes = bands.apply_neighborhood(
        udf,
        size=[{"dimension": "x", "value": 1024, "unit": "px"}, {"dimension": "y", "value": 1024, "unit": "px"}],
        overlap=[{"dimension": "x", "value": 64, "unit": "px"}, {"dimension": "y", "value": 64, "unit": "px"}],
    )

Sizes are multiples of the stride, so that chunks share no cell; the overlap shows a window of 64 pixels what lies
beyond the chunk. The context may hold `model` (a name or a folder), `stride` (pixels of a cell), and `scale` and
`offset` of digital numbers: reflectance = (number + offset) / scale. What a back end loads is mostly already corrected
for the offset of baseline 04.00; ask its documentation.
"""

from functools import cache

import numpy as np
import xarray

import geocfl

BANDS = "bands"
"""Dimension of the bands in openEO's cubes."""
RESULTS = ["class", "confidence"]


@cache
def load(model: str) -> geocfl.Model:
    """A model, loaded once per process."""
    return geocfl.load_model(model) if model else geocfl.load_model()


def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    """Classifies every date of a cube.

    Args:
        cube: Dimensions `bands`, `y`, `x` and any others, such as `t`; 10 m pixels, at least 64 of them each way.
        context: See above.

    Returns:
        The same pixels with the bands `class` (0 no data, 1..N as in the legend, 255 unclassified) and `confidence`
        (0..1, NaN is no data); the pixels of a cell have the same values.
    """
    context = context or {}
    model, stride = load(context.get("model", "")), int(context.get("stride", 16))
    scale, offset = float(context.get("scale", 10_000)), float(context.get("offset", 0))
    chosen = cube.sel({BANDS: list(model.bands)}).transpose(..., BANDS, "y", "x")
    numbers = chosen.values.astype(np.float32)
    reflectance = (np.where(numbers == 0, np.nan, numbers) + offset) / scale
    height, width = reflectance.shape[-2:]
    results = np.empty((*reflectance.shape[:-3], len(RESULTS), height, width), np.float32)
    for index in np.ndindex(reflectance.shape[:-3]):
        found = model.predict(reflectance[index], stride=stride)
        cells = np.stack([found.codes, np.where(found.codes == 0, np.nan, found.confidence)])
        results[index] = cells.repeat(stride, axis=1).repeat(stride, axis=2)[:, :height, :width]
    coordinates = {name: values for name, values in chosen.coords.items() if BANDS not in values.dims}
    classified = xarray.DataArray(results, {**coordinates, BANDS: RESULTS}, chosen.dims)
    return classified.transpose(*cube.dims)
