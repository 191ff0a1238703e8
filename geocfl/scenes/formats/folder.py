"""Scenes with one file per band, in a folder or among the files of a command line."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio

from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.bands import BANDS
from geocfl.scenes.formats.archive import Place, path_of
from geocfl.scenes.formats.beside import baseline_of, metadata_of
from geocfl.scenes.formats.safe import NODATA_DN
from geocfl.scenes.source import Band, Source
from geocfl.scenes.stack import open_dataset
from geocfl.scenes.urls import shown, without_query

ENDINGS = (".jp2", ".tif", ".tiff", ".vrt", ".img")
"""Endings of rasters, in lower case."""
RESOLUTION_FOLDERS = ("R10m", "R20m", "R60m")
"""Folders in IMG_DATA that hold the images of an L2A product."""
MASKS = "MASKS"
"""The folder of masks in MAJA's products."""
CLOUDS = ("SCL", "CLM", "MG2", "FMASK")
"""Images that tell clouds, the best first: of Sen2Cor, MAJA (two) and HLS."""

_SEPARATORS = " _.-"
# A band or another image of a product between separators, with its resolution and the suffix of Copernicus Browser.
_TOKEN = re.compile(
    r"(?<![A-Z0-9])"
    r"(?:B(?:AND[ _-]?)?(?P<band>8A|0?[1-9]|1[0-2])"
    r"|(?P<other>SCL|TCI|AOT|WVP|CLD|SNW|DEM|PVI|MSK|FMASK|(?:CLM|MG2)(?=_R1)))"
    r"(?:[ _-]?(?P<meters>[126]0)M)?(?![A-Z0-9])(?:[ _-]?\(RAW\))?",
    re.IGNORECASE,
)
# Sen2Cor in 2016: the bands are S2A_USER_MSI_L2A_..._B04_10m, their classification S2A_USER_SCL_L2A_..._20m.
_OLD_SCL = re.compile(r"(S2[A-D]_(?:USER|OPER))_(L2A_.*?)(?:_([126]0)m)?")
_MAJA = re.compile(r"_[FS]RE$")
MAJA_NODATA = -10_000
"""Digital number of pixels without data in MAJA's images, which do not declare it."""


@dataclass(frozen=True)
class _Image:
    """A file whose name says that it is one band of a scene.

    Attributes:
        path: The file.
        kind: The band, or another image, such as ``"SCL"``.
        meters: Its resolution; 0, which counts as the finest, if neither its name nor its folder gives it.
        scene: Its folder, without one named after the resolution or for masks, and its name without band and
            resolution.
    """

    path: str
    kind: str
    meters: int
    scene: tuple[str, str]

    def is_of(self, other: _Image) -> bool:
        """Whether it belongs to the same scene as a band. MAJA's masks serve both its kinds of images."""
        folder, common = other.scene
        masks = (folder, f"{_MAJA.sub('', common)}_R1") if self.kind in ("CLM", "MG2") else other.scene
        return self.scene == masks


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
    folders = (path, *(os.path.join(path, name) for name in (*RESOLUTION_FOLDERS, MASKS)))
    files = [os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
    return _of_files(path, files)


def find_beam(path: str) -> Source | None:
    """Finds the bands of a BEAM-DIMAP product of SNAP: ``X.dim``, whose bands lie in ``X.data``; None for others."""
    stem, ending = os.path.splitext(path)
    if ending.lower() != ".dim" or not (source := find_folder(f"{stem}.data")):
        return None
    return replace(source, path=path, stem=os.path.basename(stem))


def find_images(path: str, place: Place) -> Source | None:
    """As `find_folder`, for a folder that may lie in an archive; `path` is what the user passed."""
    folders = (place, *(place / name for name in (*RESOLUTION_FOLDERS, MASKS)))
    return _of_files(path, [path_of(file) for folder in folders if folder.is_dir() for file in folder.iterdir()])


def _of_files(path: str, files: Sequence[str]) -> Source | None:
    images = [image for file in sorted(files) if (image := _parse(file))]
    bands = _without_slope_uncorrected([image for image in images if image.kind in BANDS])
    if not bands:
        return None
    if other := next((image for image in bands if image.scene != bands[0].scene), None):
        one, two = (os.path.relpath(image.path, path) for image in (bands[0], other))
        raise SceneError(f"{path}: holds bands of several scenes, such as {one} and {two}; use the files of only one")
    source = _source(path, [image for image in images if image.is_of(bands[0])])
    return source if all(_is_single(band.path) for band in source.bands.values()) else None


def _without_slope_uncorrected(images: list[_Image]) -> list[_Image]:
    """The images without MAJA's SRE, if its FRE, which are corrected for slopes, are there too."""
    flat = {image.scene for image in images if image.scene[1].endswith("_FRE")}
    return [i for i in images if not (i.scene[1].endswith("_SRE") and (i.scene[0], i.scene[1][:-3] + "FRE") in flat)]


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
        with open_dataset(path) as dataset:
            return dataset.count == 1 or [color.name for color in dataset.colorinterp][1:] == ["alpha"]
    except rasterio.RasterioIOError:
        return True


def _parse(path: str) -> _Image | None:
    """What a file's name says, if it names exactly one image."""
    folder, name = os.path.split(without_query(path))
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
    elif last == MASKS:
        folder = above
    common = (stem[: token.start()].rstrip(_SEPARATORS) + stem[token.end() :]).strip(_SEPARATORS)
    if kind == "SCL" and (old := _OLD_SCL.fullmatch(common)):
        common, meters = f"{old[1]}_MSI_{old[2]}", meters or int(old[3] or 0)
    return _Image(path, kind.upper(), meters, (folder, common))


def _source(path: str, images: Sequence[_Image]) -> Source:
    """The scene that consists of these images."""
    folder, common = next(image.scene for image in images if image.kind in BANDS)
    metadata, note = metadata_of(Path(folder), common) if os.path.isdir(folder or ".") else (None, "")
    finest = _finest(images)
    clouds = next((finest[kind] for kind in CLOUDS if kind in finest), None)
    stem = common or re.sub(r"(\.zip|\.tar|\})+$", "", os.path.basename(os.path.abspath(folder)), flags=re.IGNORECASE)
    level = re.search("L1C|L2A", stem.upper())
    return Source(
        path=shown(path),
        stem=stem,
        bands={
            band: Band(finest[band], scaling=metadata.scaling[band] if metadata else None)
            for band in BANDS
            if band in finest
        },
        scaling_source=metadata.source if metadata else "",
        level=metadata.level if metadata else level[0] if level else "L2A" if "SCL" in finest else "unknown",
        taken=(metadata.taken if metadata else None) or find_datetime(stem, {}),
        scl=Band(clouds) if clouds else None,
        nodata=NODATA_DN if metadata else MAJA_NODATA if _MAJA.search(common) else None,
        notes=tuple(f"{path}: {each}" for each in (note, metadata.note if metadata else "") if each),
        baseline="" if metadata else baseline_of(Path(folder), [*finest.values()]),
    )


def _finest(images: Sequence[_Image]) -> dict[str, str]:
    """Band, or image that tells clouds, to its file with the finest resolution."""
    found: dict[str, _Image] = {}
    wanted = [image for image in images if image.kind in (*BANDS, *CLOUDS)]
    for image in sorted(wanted, key=lambda image: image.meters):
        finest = found.setdefault(image.kind, image)
        if finest is not image and finest.meters == image.meters:
            one, other = shown(finest.path), shown(image.path)
            raise SceneError(f"{one} and {other} both hold {image.kind}; use only one of them")
    return {kind: image.path for kind, image in found.items()}
