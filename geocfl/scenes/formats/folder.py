"""Scenes of which each band is a file of its own, in a folder or among the files of a command line."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio

from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.bands import BANDS
from geocfl.scenes.formats.safe import NODATA, metadata_above
from geocfl.scenes.source import Band, Source

ENDINGS = (".jp2", ".tif", ".tiff", ".vrt")
"""Of the rasters that are looked for, in lower case."""
RESOLUTION_FOLDERS = ("R10m", "R20m", "R60m")
"""Where an L2A product's images lie, in its folder IMG_DATA."""

_SEPARATORS = " _.-"
# A band, or another of a product's images, between separators, with the resolution and what Copernicus Browser adds.
_TOKEN = re.compile(
    r"(?<![A-Z0-9])"
    r"(?:B(?:AND[ _-]?)?(?P<band>8A|0?[1-9]|1[0-2])|(?P<other>SCL|TCI|AOT|WVP|CLD|SNW|DEM|PVI|MSK))"
    r"(?:[ _-]?(?P<metres>[126]0)M)?(?![A-Z0-9])(?:[ _-]?\(RAW\))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Image:
    """A file that its name says to be one band of a scene.

    Attributes:
        path: The file.
        kind: The band, or another image, such as ``"SCL"``.
        metres: Its resolution; 0, the finest, where neither its name nor its folder says.
        scene: Its folder, less one named after the resolution, and its name without band and resolution.
    """

    path: str
    kind: str
    metres: int
    scene: tuple[str, str]


def find_folder(path: str) -> Source | None:
    """Finds the bands of a folder with one file a band, such as a product's ``IMG_DATA``.

    Args:
        path: The folder. Files in its folders ``R10m``, ``R20m`` and ``R60m`` count too.

    Returns:
        The scene, with each band at its finest resolution; None where `path` is no folder or no raster in it is one
        band and named after it.

    Raises:
        SceneError: The files are of several scenes, or two hold the same band.
    """
    if not os.path.isdir(path):
        return None
    folders = (path, *(os.path.join(path, name) for name in RESOLUTION_FOLDERS))
    files = [os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
    images = [image for file in sorted(files) if (image := _parse(file))]
    bands = [image for image in images if image.kind in BANDS]
    if not bands:
        return None
    if other := next((image for image in bands if image.scene != bands[0].scene), None):
        one, two = (os.path.relpath(image.path, path) for image in (bands[0], other))
        raise SceneError(f"{path}: holds bands of several scenes, as {one} and {two}; pass the files of one of them")
    source = _source(path, [image for image in images if image.scene == bands[0].scene])
    return source if all(_is_single(band.path) for band in source.bands.values()) else None


def group_files(paths: Sequence[str]) -> list[Source | str]:
    """Puts files that hold one band each together.

    Files belong together whose names differ in nothing but the band and the resolution, and which are of one band
    indeed: ``site_b1.tif`` and ``site_b2.tif`` may be two scenes. Other images of such a scene, as its SCL, go with it.

    Args:
        paths: What the user passed as scenes, files and anything else.

    Returns:
        The scenes of several bands, each where its first file was, and all else as it is.

    Raises:
        SceneError: Two files hold the same band of a scene.
    """
    parsed = [(path, _parse(path)) for path in paths]
    scenes: dict[tuple[str, str], list[_Image]] = defaultdict(list)
    for _, image in parsed:
        if image:
            scenes[image.scene].append(image)
    together = {scene: images for scene, images in scenes.items() if _is_one_scene(images)}
    result: list[Source | str] = []
    for path, image in parsed:
        images = together.get(image.scene, []) if image else []
        if not images:
            result.append(path)
        elif image is images[0]:
            result.append(_source(path, images))
    return result


def _is_one_scene(images: Sequence[_Image]) -> bool:
    files = [file for kind, file in _finest(images).items() if kind in BANDS]
    return len(files) > 1 and all(map(_is_single, files))


def _is_single(path: str) -> bool:
    """Whether a raster has one band; what is remote or broken is believed to, and looked at when it is read."""
    if not os.path.isfile(path):
        return True
    try:
        with rasterio.open(path) as dataset:
            return bool(dataset.count == 1)
    except rasterio.RasterioIOError:
        return True


def _parse(path: str) -> _Image | None:
    """What a file's name says of it, if exactly one thing."""
    folder, name = os.path.split(path)
    stem, ending = os.path.splitext(name)
    tokens = list(_TOKEN.finditer(stem))
    if ending.lower() not in ENDINGS or len(tokens) != 1:
        return None
    token = tokens[0]
    kind = f"B{token['band'].zfill(2)}" if token["band"] else token["other"]
    metres = int(token["metres"] or 0)
    above, last = os.path.split(folder)
    if last in RESOLUTION_FOLDERS:
        folder, metres = above, metres or int(last[1:3])
    common = (stem[: token.start()].rstrip(_SEPARATORS) + stem[token.end() :]).strip(_SEPARATORS)
    return _Image(path, kind.upper(), metres, (folder, common))


def _source(path: str, images: Sequence[_Image]) -> Source:
    """The scene that images of one are."""
    folder, common = images[0].scene
    metadata = metadata_above(Path(folder)) if os.path.isdir(folder or ".") else None
    finest = _finest(images)
    scl = finest.pop("SCL", None)
    stem = common or os.path.basename(os.path.abspath(folder))
    level = re.search("L1C|L2A", stem.upper())
    return Source(
        path=path,
        stem=stem,
        bands={
            band: Band(finest[band], scaling=metadata.scaling[band] if metadata else None)
            for band in BANDS
            if band in finest
        },
        scaling_source=metadata.source if metadata else "",
        level=metadata.level if metadata else level[0] if level else "L2A" if scl else "unknown",
        taken=(metadata.taken if metadata else None) or find_datetime(stem, {}),
        scl=Band(scl) if scl else None,
        nodata=NODATA if metadata else None,
        notes=(f"{path}: {metadata.note}",) if metadata and metadata.note else (),
    )


def _finest(images: Sequence[_Image]) -> dict[str, str]:
    """Band, or SCL, to its file of the finest resolution."""
    found: dict[str, _Image] = {}
    wanted = [image for image in images if image.kind in (*BANDS, "SCL")]
    for image in sorted(wanted, key=lambda image: image.metres):
        finest = found.setdefault(image.kind, image)
        if finest is not image and finest.metres == image.metres:
            raise SceneError(f"{finest.path} and {image.path} both hold {image.kind}; pass one of them")
    return {kind: image.path for kind, image in found.items()}
