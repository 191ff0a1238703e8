"""What turns the digital numbers of a scene into reflectance."""

from __future__ import annotations

import rasterio

from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling
from geocfl.errors import SceneError
from geocfl.scenes.baseline import stated_baseline
from geocfl.scenes.reading import Reading
from geocfl.scenes.source import Source
from geocfl.scenes.stack import open_dataset

EIGHT_BIT = "EuroSAT's 8-bit stretch"
DEFAULT = "Sentinel-2's default"
OPTIONS = "options"
TAGS = "the file's scale and offset"
"""Where the scaling came from, in words, as `Scene.scaling_source` has it."""
SMALLEST, LARGEST = 1e-12, 1e6
"""Reflectance per digital number that a tag or an Item may state; 32-bit numbers of full range need 2e-10."""
MOST_OFFSET = 1e6
"""Reflectance that a tag or an Item may state as an offset; beyond it, 32-bit numbers hold no digits of reflectance."""


def find_scaling(source: Source, how: Reading) -> tuple[dict[str, Scaling], str, str]:
    """The scaling of each band, where it comes from, in words, apart from the user's values, and the baseline.

    The user's values take precedence over metadata outside the rasters, and that over the rasters' own tags and type.
    The processing baseline is the first that the tags of a raster state whose scaling nothing outside it gives or,
    failing that, the source's.

    Raises:
        SceneError: The tags of a raster cannot be a scaling, and the user does not override both.
    """
    overridden = how.scale is not None and how.offset is not None
    result, said, baseline = {}, "", ""
    for path in dict.fromkeys(band.path for band in source.bands.values()):
        here = {name: band for name, band in source.bands.items() if band.path == path}
        own: dict[str, Scaling] = {}
        if any(band.scaling is None for band in here.values()):
            with open_dataset(path) as dataset:
                baseline = baseline or stated_baseline(dataset.tags())
                if not overridden:
                    indices = {name: band.index for name, band in here.items()}
                    own, found = _own_scaling(source.path, dataset, indices)
                    said = said or found
        for name, band in here.items():
            given = band.scaling or own.get(name, SENTINEL2)
            if given is EUROSAT_RGB and how.scale is not None:
                given = SENTINEL2  # the offset belongs to the stretch
            result[name] = Scaling(
                given.scale if how.scale is None else how.scale,
                given.offset if how.offset is None else float(how.offset),
            )
    return result, source.scaling_source or said or DEFAULT, baseline or source.baseline


def _own_scaling(path: str, dataset: rasterio.DatasetReader, indices: dict[str, int]) -> tuple[dict[str, Scaling], str]:
    """The scaling that a raster's tags or its data type imply; `path` is the scene's, for messages."""
    lines = {name: (dataset.scales[i - 1], dataset.offsets[i - 1]) for name, i in indices.items()}
    if any(line != (1.0, 0.0) for line in lines.values()):
        for name, (scale, offset) in lines.items():
            if not (SMALLEST <= scale <= LARGEST and abs(offset) <= MOST_OFFSET):
                raise SceneError(
                    f"{path}: its tags give {name} the scale {scale:g} and the offset {offset:g}, which cannot be; use "
                    "`scale` and `offset`, such as `scale=10000` and `offset=0`",
                    page="how-to/reflectance/",
                )
        return {name: Scaling.from_gdal(*line) for name, line in lines.items()}, TAGS
    if dataset.dtypes[0] == "uint8":
        return dict.fromkeys(indices, EUROSAT_RGB), EIGHT_BIT
    return {}, ""
