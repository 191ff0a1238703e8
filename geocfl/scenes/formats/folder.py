"""Scenes with one file per band, in a folder or among the files of a command line."""

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
from geocfl.scenes.formats.beside import baseline_of, metadata_of
from geocfl.scenes.formats.safe import NODATA_DN
from geocfl.scenes.source import Band, Source

ENDINGS = (".jp2", ".tif", ".tiff", ".vrt")
"""Endings of rasters, in lower case."""
RESOLUTION_FOLDERS = ("R10m", "R20m", "R60m")
"""Folders in IMG_DATA that hold the images of an L2A product."""

_SEPARATORS = " _.-"
# A band or another image of a product between separators, with its resolution and the suffix of Copernicus Browser.
_TOKEN = re.compile(
    r"(?<![A-Z0-9])"
    r"(?:B(?:AND[ _-]?)?(?P<band>8A|0?[1-9]|1[0-2])|(?P<other>SCL|TCI|AOT|WVP|CLD|SNW|DEM|PVI|MSK))"
    r"(?:[ _-]?(?P<meters>[126]0)M)?(?![A-Z0-9])(?:[ _-]?\(RAW\))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Image:
    """A file whose name says that it is one band of a scene.

    Attributes:
        path: The file.
        kind: The band, or another image, such as ``"SCL"``.
        meters: Its resolution; 0, which counts as the finest, if neither its name nor its folder gives it.
        scene: Its folder, without a folder named after the resolution, and its name without band and resolution.
    """

    path: str
    kind: str
    meters: int
    scene: tuple[str, str]


def find_folder(path: str) -> Source | None:
    """Finds the bands of a folder with one file per band, such as a product's ``IMG_DATA``.

    Args:
        path: The folder; its subfolders ``R10m``, ``R20m`` and ``R60m`` are searched too.

    Returns:
        The scene, with each band at its finest resolution; None if `path` is not a folder, or holds no raster that is
        a single band and named after it.

    Raises:
        SceneError: The files belong to several scenes, or two hold the same band.
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
        raise SceneError(f"{path}: holds bands of several scenes, such as {one} and {two}; use the files of only one")
    source = _source(path, [image for image in images if image.scene == bands[0].scene])
    return source if all(_is_single(band.path) for band in source.bands.values()) else None


def group_files(paths: Sequence[str]) -> list[Source | str]:
    """Groups files that hold one band each into scenes.

    Files belong together if their names differ only in band and resolution and if each has a single band; otherwise
    ``site_b1.tif`` and ``site_b2.tif`` are two scenes. Other images of such a scene, such as its SCL, are included.

    Args:
        paths: What the user passed as scenes: files and anything else.

    Returns:
        The grouped scenes, each in the place of its first file, and everything else unchanged.

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
    """Whether a raster has one band. A remote or broken file is assumed to; reading checks it."""
    if not os.path.isfile(path):
        return True
    try:
        with rasterio.open(path) as dataset:
            return bool(dataset.count == 1)
    except rasterio.RasterioIOError:
        return True


def _parse(path: str) -> _Image | None:
    """What a file's name says, if it names exactly one image."""
    folder, name = os.path.split(path)
    stem, ending = os.path.splitext(name)
    tokens = list(_TOKEN.finditer(stem))
    if ending.lower() not in ENDINGS or len(tokens) != 1:
        return None
    token = tokens[0]
    kind = f"B{token['band'].zfill(2)}" if token["band"] else token["other"]
    meters = int(token["meters"] or 0)
    above, last = os.path.split(folder)
    if last in RESOLUTION_FOLDERS:
        folder, meters = above, meters or int(last[1:3])
    common = (stem[: token.start()].rstrip(_SEPARATORS) + stem[token.end() :]).strip(_SEPARATORS)
    return _Image(path, kind.upper(), meters, (folder, common))


def _source(path: str, images: Sequence[_Image]) -> Source:
    """The scene that consists of these images."""
    folder, common = images[0].scene
    metadata = metadata_of(Path(folder)) if os.path.isdir(folder or ".") else None
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
        nodata=NODATA_DN if metadata else None,
        notes=(f"{path}: {metadata.note}",) if metadata and metadata.note else (),
        baseline="" if metadata else baseline_of(Path(folder), images[0].path),
    )


def _finest(images: Sequence[_Image]) -> dict[str, str]:
    """Band, or SCL, to its file with the finest resolution."""
    found: dict[str, _Image] = {}
    wanted = [image for image in images if image.kind in (*BANDS, "SCL")]
    for image in sorted(wanted, key=lambda image: image.meters):
        finest = found.setdefault(image.kind, image)
        if finest is not image and finest.meters == image.meters:
            raise SceneError(f"{finest.path} and {image.path} both hold {image.kind}; use only one of them")
    return {kind: image.path for kind, image in found.items()}
