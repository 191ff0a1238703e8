"""The manifest of a folder of patches: a GeoPackage with the place, label and subset of each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from geocfl.errors import DataError, did_you_mean

MANIFEST, LAYER = "manifest.gpkg", "patches"
"""File in a folder of patches, and its layer."""
SUBSETS = ("train", "validation", "test")
"""Values of its field ``split``; patches without one are not used."""
PAGE = "how-to/patches/"


def read_subsets(folder: Path) -> dict[str, str]:
    """The subset of each patch that has one, by the patch's name ``Class/name.tif``.

    Raises:
        DataError: There is no manifest, or it cannot be used.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{path}: does not exist; write it with geocfl patches and `split='blocks:KM'`, or use another `split`",
            page=PAGE,
        )
    table = _read(path)
    patches, split = table["patch"], table["split"]
    there = split.notna() & (split.astype(str).str.strip() != "")
    if not there.any():
        raise DataError(
            f"{path}: its patches have no split; write them again with `split='blocks:KM'`, or use another `split`",
            page=PAGE,
        )
    for value in pd.unique(split[there]):
        if value not in SUBSETS:
            raise DataError(
                f"{path}: {value!r} in its field split is no subset; {did_you_mean(value, SUBSETS)}use one of "
                f"{', '.join(SUBSETS)}, or NULL for patches to leave out"
            )
    if (again := patches[there].duplicated()).any():
        raise DataError(f"{path}: names {patches[there][again].iloc[0]} twice; delete one of them")
    return dict(zip(patches[there], split[there], strict=True))


def read_blocks(folder: Path) -> dict[str, str]:
    """The block of each patch that has one, by the patch's name; empty without a manifest.

    Raises:
        DataError: The manifest cannot be used.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    table = _read(path)
    there = table["block"].notna()
    return dict(zip(table["patch"][there], table["block"][there].astype(str), strict=True))


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pyogrio.read_dataframe(path, layer=LAYER, read_geometry=False)
        return table[["patch", "block", "split"]]
    except (DataSourceError, DataLayerError, KeyError) as error:
        raise DataError(f"{path}: not a manifest of patches; write it with geocfl patches", page=PAGE) from error
