"""Training patches from labels: cuts windows around points and in polygons from scenes, with a manifest."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geocfl.core.grid import CellGrid
from geocfl.core.keywords import declared
from geocfl.core.progress import Progress, silent
from geocfl.core.table import align
from geocfl.data.manifest import LAYER, MANIFEST, SUBSETS
from geocfl.errors import DataError, SceneError, UsageError, unknown_name
from geocfl.labeling.blocks import check_subsets, name_blocks, overlapping, parse_blocks, split_blocks
from geocfl.labeling.cut import cut_windows
from geocfl.labeling.folder import claim, new_folder
from geocfl.labeling.labels import Labels, read_labels
from geocfl.labeling.windows import OVERLAPS, find_windows
from geocfl.models.bundle import DEFAULT_MODEL, Bundle
from geocfl.products.formats.vector import fixed_date, write_layer
from geocfl.products.formats.vector_formats import GEOMETRY
from geocfl.scenes import Reading, Source, open_scene
from geocfl.scenes.checks import reflectance_warnings
from geocfl.scenes.collect import Listed, list_scenes, told_apart
from geocfl.scenes.placing import LOCAL

log = logging.getLogger("geocfl")

STRADDLING = "overlapping a patch of another subset"
"""Why a patch is left out of a split."""
WGS84 = "EPSG:4326"
"""The system of a manifest whose scenes have several."""


@dataclass(frozen=True, repr=False, eq=False)
class PatchFolder:
    """A folder of training patches.

    Attributes:
        path: The folder: one folder per class, and ``manifest.gpkg``.
        manifest: One row per patch: ``patch`` (class folder and file), ``label``, ``scene``, ``date``, ``row`` and
            ``column`` (its first pixel in the scene), ``share`` (of it that polygons of its class cover), ``block``,
            ``split``, and its square.
        left_out: Number of labels and windows that gave no patch, by reason.
    """

    path: Path
    manifest: gpd.GeoDataFrame
    left_out: dict[str, int]

    def frame(self) -> pd.DataFrame:
        """One row per class: ``label``, ``patches`` and, if they are split, ``train``, ``validation`` and ``test``."""
        labels = self.manifest["label"]
        counts = {"patches": labels.value_counts(sort=False)}
        if self.manifest["split"].notna().any():
            counts |= {subset: labels[self.manifest["split"] == subset].value_counts() for subset in SUBSETS}
        table = pd.DataFrame(counts).fillna(0).astype(int).sort_index()
        return table.rename_axis("label").reset_index()

    def table(self) -> str:
        """The patches of each class as aligned plain text, and what was left out."""
        frame = self.frame()
        numbers = list(frame.columns[1:])
        rows = [[str(row["label"]), *(f"{row[name]:,}" for name in numbers)] for _, row in frame.iterrows()]
        total = ["Total", *(f"{frame[name].sum():,}" for name in numbers)]
        text = align([["class", *numbers], *rows, total], text_columns=[0])
        reasons = "\n".join(f"  {count:,} {reason}" for reason, count in self.left_out.items())
        return f"{text}\n\nLeft out:\n{reasons}" if reasons else text

    def __repr__(self) -> str:
        """One line: patches, classes and folder."""
        return f"<PatchFolder: {len(self.manifest):,} patches of {len(self.frame())} classes; {self.path}>"

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))


@declared
def patches(
    scenes: Iterable[str | Path | Source] | Path | Source,
    labels: str | Path,
    out: str | Path,
    *,
    by: str,
    layer: str | None = None,
    model: str | Path = DEFAULT_MODEL,
    patch_bands: Sequence[str] | None = None,
    min_share: float = 0.7,
    spacing: float | None = None,
    overlap: str = "refuse",
    split: str | None = None,
    seed: int = 0,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    mask: str | Path | None = None,
    mask_classes: Collection[int] | None = None,
    mask_bits: Collection[int] | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PatchFolder:
    """Cuts training patches from scenes where labels say what is there, for `geocfl.train`.

    A point gives the window around it. In polygons, windows lie on a grid; one counts if polygons of its class cover
    enough of it. Windows with masked pixels or pixels without data are left out.

    Args:
        scenes: One or several scenes, as for `geocfl.map_scenes`. Every label counts in each scene that it lies in.
        labels: Points and polygons, in any CRS and format that GDAL reads, or GeoParquet.
        out: Folder to write: one folder of 16-bit GeoTIFFs per class, and ``manifest.gpkg``.
        by: Field of `labels` with the classes, texts or whole numbers. Names of classes of the model get its folders.
        layer: Layer of `labels`; needed if the file has several.
        model: A model folder or the name of a built-in model; it states the size of the windows, and their bands.
        patch_bands: Bands to write, such as ``("B04", "B03", "B02", "B08")``; None takes the model's.
        min_share: Smallest share of a window that polygons of its class cover, above 0 and at most 1. Around a point,
            polygons of another class may cover the rest.
        spacing: Distance between windows of a class in polygons, meters; None takes the side of a window, so that they
            do not overlap.
        overlap: What to do where labels of different classes overlap: ``"refuse"`` raises an error, ``"share"`` gives a
            window to the class that covers more of it.
        split: ``"blocks:KM"`` splits the patches by place: whole blocks of this side in kilometers go to training (60%
            of the patches), validation (20%) or test (20%), and patches that overlap one of another subset are left
            out. `geocfl.train` uses it with ``split="manifest"``. None does not split them.
        seed: Random seed of the split; the same seed gives the same split.
        bands: Which band of a raster is which: name to number, or the names in the raster's order. None takes what the
            scene states.
        scale: Digital numbers per unit of reflectance; None takes what the scene states.
        offset: Added to digital numbers first: reflectance = (DN + offset) / scale. None takes what the scene states.
        nodata: Digital number of pixels without data; None takes what the scene states.
        mask: ``"scl"`` for the scene's own classification or cloud mask, or the path of a raster of masked pixels.
        mask_classes: Values of the mask that count, as for `geocfl.map_scene`.
        mask_bits: Bits of the mask's values, any of which masks a pixel, as for `geocfl.map_scene`.
        overwrite: Replace the patches in `out`.
        progress: Called with the windows of each scene that are cut.

    Returns:
        The patches and what was left out.

    Raises:
        DataError: The labels cannot be used, lie outside the scenes, or give no patches.
        SceneError: A scene cannot be read, or lacks a band or a place on the ground.
        UsageError: A parameter is not allowed, or there are too few blocks.
        OutputError: `out` has other files, or patches already, or cannot be written.
    """
    target, blocks = Path(out), parse_blocks(split) if split else None
    if not 0 < min_share <= 1:
        raise UsageError(f"`min_share` is {min_share:g} but must be above 0 and at most 1")
    if spacing is not None and not 0 < spacing < np.inf:
        raise UsageError(f"`spacing` is {spacing:g} but must be meters above 0")
    if overlap not in OVERLAPS:
        raise UsageError(unknown_name("`overlap`", overlap, OVERLAPS))
    reading = Reading(
        bands=bands, scale=scale, offset=offset, nodata=nodata, allow_no_crs=True,
        mask=mask, mask_classes=mask_classes, mask_bits=mask_bits,
    )  # fmt: skip
    claim(target, overwrite=overwrite)
    bundle = Bundle.load(model)
    found = read_labels(Path(labels), by, layer, bundle.legend)
    listed = told_apart(list_scenes(scenes, bands=reading.bands))
    with new_folder(target) as folder:
        written = tuple(patch_bands) if patch_bands else bundle.bands
        cutting = _Cutting(found, bundle, written, min_share, spacing, overlap, folder, progress)
        frames = [_cut(each, reading, cutting) for each in listed]
        manifest = _manifest(frames, cutting)
        if blocks:
            manifest = _split(manifest, blocks, seed, cutting)
        _check_classes(found, manifest)
        with fixed_date():
            write_layer(manifest.rename_geometry(GEOMETRY), folder / MANIFEST, LAYER, "Polygon")
    left_out = {reason: count for reason, count in cutting.left_out.most_common() if count}
    return PatchFolder(target, manifest, left_out)


class _Cutting:
    """What is the same for all scenes, and what has been left out so far."""

    def __init__(
        self,
        labels: Labels,
        bundle: Bundle,
        bands: tuple[str, ...],
        min_share: float,
        spacing: float | None,
        overlap: str,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.labels, self.bundle, self.bands, self.folder, self.progress = labels, bundle, bands, folder, progress
        self.min_share, self.overlap = min_share, overlap
        self.spacing = bundle.window if spacing is None else max(1, round(spacing / bundle.gsd))
        self.left_out: Counter[str] = Counter()
        self.inside = np.zeros(len(labels.shapes), bool)


def _cut(listed: Listed, reading: Reading, cutting: _Cutting) -> gpd.GeoDataFrame:
    """Cuts the patches of a scene: its rows of the manifest."""
    if listed.source is None:
        raise listed.error or SceneError(f"{listed.path}: cannot be read; pass another scene")
    side, labels = cutting.bundle.window, cutting.labels
    with open_scene(listed.source, reading, needed=cutting.bands, gsd=cutting.bundle.gsd, window=side) as scene:
        if scene.crs is None or scene.crs == LOCAL:
            raise SceneError(
                f"{scene.path}: has no coordinate reference system, so that labels cannot be placed in it; assign it "
                "with gdal_edit.py -a_srs",
                page="how-to/grids/",
            )
        for warning in reflectance_warnings(scene):
            log.warning("%s", warning)
        grid = CellGrid(scene.height, scene.width, side, side, scene.transform, scene.crs)
        found = find_windows(
            labels, grid, min_share=cutting.min_share, spacing=cutting.spacing, overlap=cutting.overlap
        )
        windows = found.windows[np.lexsort((found.windows.columns, found.windows.rows))]
        cutting.inside |= found.inside
        stem = listed.source.stem
        names, kept, left_out = cut_windows(
            scene, windows, labels.legend, cutting.bands, side, cutting.folder, stem, cutting.progress
        )
        cutting.left_out += found.left_out + left_out
        windows = windows[kept]
        squares = shapely.transform(windows.squares(side), lambda x, y: scene.transform @ (x, y), interleaved=False)
        columns = {
            "patch": np.array(names, object),
            "label": np.array([labels.legend[int(code)].folder for code in windows.classes], object),
            "scene": np.full(len(windows), scene.name, object),
            "date": np.full(len(windows), scene.taken.strftime("%Y-%m-%d") if scene.taken else None, object),
            "row": windows.rows.astype(np.int32),
            "column": windows.columns.astype(np.int32),
            "share": windows.shares.round(4),
            "block": np.full(len(windows), None, object),
            "split": np.full(len(windows), None, object),
        }
        return gpd.GeoDataFrame(columns, geometry=squares, crs=scene.crs.to_wkt())


def _manifest(frames: list[gpd.GeoDataFrame], cutting: _Cutting) -> gpd.GeoDataFrame:
    """The rows of all scenes in one coordinate reference system.

    Raises:
        DataError: There are none.
    """
    labels = cutting.labels
    outside = len(set(labels.features)) - len(set(labels.features[cutting.inside]))
    where = f"the {len(frames)} scenes" if len(frames) > 1 else "the scene"
    if not cutting.inside.any():
        raise DataError(
            f"{labels.path}: none of its labels lies in {where}, according to its coordinate reference system "
            f"({labels.crs.name}); correct that, or pass other scenes"
        )
    if outside:
        log.warning("%s: %d label%s outside %s", labels.path, outside, " lies" if outside == 1 else "s lie", where)
    if not any(map(len, frames)):
        reasons = ", ".join(f"{count} {reason}" for reason, count in cutting.left_out.most_common() if count)
        raise DataError(
            f"{labels.path}: gives no patch ({reasons}); draw larger polygons or points, or use a smaller `min_share`"
        )
    crs = frames[0].crs if all(frame.crs == frames[0].crs for frame in frames) else WGS84
    joined = pd.concat([frame.to_crs(crs) for frame in frames if len(frame)], ignore_index=True)
    return gpd.GeoDataFrame(joined, crs=crs)


def _split(manifest: gpd.GeoDataFrame, side: float, seed: int, cutting: _Cutting) -> gpd.GeoDataFrame:
    """The manifest with blocks and subsets, without patches that overlap one of another subset; deletes these."""
    places = manifest.geometry.centroid.to_crs(WGS84)
    manifest["block"] = name_blocks(places.x.to_numpy(), places.y.to_numpy(), side)
    _, codes = np.unique(manifest["label"].to_numpy(str), return_inverse=True)
    split = split_blocks(manifest["block"].to_numpy(object), codes, seed, side)
    gone = overlapping(manifest.geometry.to_numpy(), split)
    manifest["split"] = split
    for name in manifest["patch"][gone]:
        (cutting.folder / name).unlink()
    cutting.left_out[STRADDLING] += int(gone.sum())
    kept = manifest[~gone].reset_index(drop=True)
    check_subsets(kept["split"].to_numpy(object), kept["label"].to_numpy(object), side)
    return kept


def _check_classes(labels: Labels, manifest: gpd.GeoDataFrame) -> None:
    """Warns of classes without patches or with one, and of a class alone."""
    counts = manifest["label"].value_counts()
    absent = [lulc.folder for lulc in labels.legend if lulc.folder not in counts]
    remedy = "draw more or larger labels of it, or use a smaller `min_share` or `spacing`"
    if len(counts) == 1:
        log.warning(
            "%s: gives patches of only one class, %s: label another one, or add this one to those of a model "
            "(geocfl train --add-classes)",
            labels.path,
            counts.index[0],
        )
    for folder in absent:
        log.warning("%s gets no patch; %s", folder, remedy)
    for folder in counts.index[counts == 1]:
        log.warning("%s gets only one patch, too few to train and test; %s", folder, remedy)
