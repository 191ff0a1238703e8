"""What a map consists of: the names of its files."""

from __future__ import annotations

LULC = "_lulc"
"""The stem of a class raster's name ends in this."""
SUMMARY = "_summary.json"
FILES = {
    "lulc": f"{LULC}.tif",
    "attributes": f"{LULC}.tif.aux.xml",
    "lulc_style": f"{LULC}.qml",
    "lulc_sld": f"{LULC}.sld",
    "confidence": "_confidence.tif",
    "confidence_style": "_confidence.qml",
    "probabilities": "_probabilities.tif",
    "entropy": "_entropy.tif",
    "entropy_style": "_entropy.qml",
    "novelty": "_novelty.tif",
    "novelty_style": "_novelty.qml",
    "valid": "_valid.tif",
    "valid_style": "_valid.qml",
    "sets": "_sets.tif",
    "sets_style": "_sets.qml",
    "features": "_features.parquet",
    "zarr": "_cube.zarr.zip",
    "gpkg": f"{LULC}.gpkg",
    "geoparquet": f"{LULC}_polygons.parquet",
    "flatgeobuf": f"{LULC}_polygons.fgb",
    "geojson": f"{LULC}_polygons.geojson",
    "polygons_style": f"{LULC}_polygons.qml",
    "polygons_sld": f"{LULC}_polygons.sld",
    "truecolor": "_truecolor.tif",
    "project": "_map.qgz",
    "preview": "_preview.png",
    "report": "_report.html",
    "stac": ".stac.json",
    "summary": SUMMARY,
}
"""Files that the map of a scene with stem S may have: each is S followed by this."""
SUFFIXES = tuple(FILES.values())
"""The same in the order in which they are put into place. The summary is last: it means "done"."""
PRODUCT_SETTINGS = ("products", "vector", "simplify", "min_area", "datetime")
"""Settings of a map that decide its products but not its cells."""
CHANGE = "_change"
"""The stem of a change raster's name ends in this."""
CHANGE_FILES = {
    "change": ".tif",
    "attributes": ".tif.aux.xml",
    "change_style": ".qml",
    "probability": "_probability.tif",
    "probability_style": "_probability.qml",
    "gpkg": ".gpkg",
    "table": ".csv",
    "project": ".qgz",
    "report": ".html",
    "summary": SUMMARY,
}
"""Files of a change map ``X_change.tif``: each is ``X_change`` followed by this; the summary is last."""
