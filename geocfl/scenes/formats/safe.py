"""Sentinel-2 products in ESA's SAFE format, L1C and L2A, as folder or zip.

Each band's JPEG 2000 file is opened directly, also inside a zip. GDAL's SENTINEL2 driver would not help: it has one
subdataset per resolution, so bands of several resolutions are several rasters anyway, and offsets are only tags.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

from geocfl.core.radiometry import Scaling
from geocfl.errors import SceneError
from geocfl.scenes.acquisition import find_datetime
from geocfl.scenes.bands import BANDS
from geocfl.scenes.baseline import has_offset
from geocfl.scenes.formats.archive import Member, Place, is_archive, opened, path_of
from geocfl.scenes.source import Band, Source

NODATA_DN = 0
"""Digital number of pixels without data, at every level and baseline."""

GRANULE = "GRANULE"
"""The folder of the images in a product; metadata without it lie beside bands that were copied out of a product."""
_METADATA = re.compile(r"MTD_MSIL(1C|2A)\.xml", re.IGNORECASE)
_OTHER_METADATA = re.compile(r"MTD_MSI(L0|L1A|L1B|L2F|L2H|L3\w?)\.xml", re.IGNORECASE)
_OF_OTHERS = "use the L1C or L2A product of the same scene"
_OF_SEN2LIKE = "use the folder with the images of its bands, and give `scale` and `offset`"
IMAGE_ENDINGS = (".jp2", ".tif", ".tiff", ".JP2", ".TIF")
"""Endings of images: ESA's, and those of copies as GeoTIFF such as Planetary Computer's."""
_OLD_METADATA = re.compile(r"S2[A-D]_(?:OPER|USER)_MTD_SAFL(?:1C|2A).*\.xml")
_IMAGE = re.compile(r"(?:.*_)?(B0[1-9]|B1[0-2]|B8A|SCL)(?:_([126]0)m)?")
_BAND_IDS = {str(number): band for number, band in enumerate(BANDS)}
_MAX_BYTES = 2_000_000
"""Maximum size of metadata; real ones have about 60 kB, and parsing takes up to a hundred times as much memory."""


@dataclass(frozen=True)
class Metadata:
    """The content of a product's ``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``.

    Attributes:
        source: Which of the two it is, in words.
        level: ``"L1C"`` or ``"L2A"``.
        taken: When the product was taken, UTC.
        scaling: Band to the scaling of its digital numbers.
        images: Images of all resolutions, relative to the product's folder, without ``.jp2``.
        note: What was assumed, in words; empty for nothing.
    """

    source: str
    level: str
    taken: datetime | None
    scaling: Mapping[str, Scaling]
    images: tuple[PurePosixPath, ...]
    note: str


def find_safe(path: str) -> Source | None:
    """Finds the bands of a SAFE product.

    Args:
        path: The product's folder, a folder with one product in it, its ``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``, or a
            zip of any of these folders.

    Returns:
        The scene, with each band at its finest resolution; None if `path` is none of these.

    Raises:
        SceneError: The product is broken, lacks its metadata or has several tiles; or there are several products.
    """
    place = Path(path)
    if place.is_dir():
        return find_product(path, place)
    if not place.is_file():
        return None
    if _METADATA.fullmatch(place.name):
        return _describe(path, place.parent, place.name)
    if not is_archive(place):
        return None
    with opened(path) as inside:
        return find_product(path, inside)


def metadata_above(folder: Path) -> Metadata | None:
    """The metadata of the product that contains a folder of images; None if there is none.

    Raises:
        SceneError: The metadata is broken.
    """
    for granules in (parent for parent in folder.resolve().parents if parent.name == GRANULE):
        for name in _metadata_names(granules.parent):
            return read_metadata(str(granules.parent), granules.parent, name)
    return None


def find_product(path: str, place: Place) -> Source | None:
    """The one product that a folder is or holds; None if there is none."""
    folders = [place, *(inner for inner in _sorted(place) if _is_safe(inner) and inner.is_dir())]
    products = [folder for folder in folders if _is_safe(folder) or (folder / GRANULE).is_dir()]
    found = [(folder, name) for folder in products for name in _metadata_names(folder)]
    if len(found) > 1:
        one, other = (f"{_name(folder)}/{name}" for folder, name in found[:2])
        raise SceneError(f"{path}: holds several products, such as {one} and {other}; use only one of them")
    if found:
        return _describe(path, *found[0])
    for folder in folders:
        names = [file.name for file in _sorted(folder)]
        if any(_OLD_METADATA.fullmatch(name) for name in names):
            tiles = [tile.name for tile in _sorted(folder / GRANULE)]
            raise _several_tiles(path, "has the format used before December 2016", tiles)
        if unread := next(filter(None, map(_OTHER_METADATA.fullmatch, names)), None):
            level = unread[1].upper()
            remedy = _OF_SEN2LIKE if level in ("L2F", "L2H") else _OF_OTHERS
            raise SceneError(
                f"{path}: is a product of level {level}, whose metadata are not read; {remedy}", page="how-to/formats/"
            )
        if _is_safe(folder) or "manifest.safe" in names:
            raise SceneError(
                f"{path}: lacks its metadata, MTD_MSIL1C.xml or MTD_MSIL2A.xml; download the product again"
            )
    return None


def _is_safe(folder: Place) -> bool:
    return _name(folder).lower().endswith(".safe")


def _metadata_names(folder: Place) -> list[str]:
    return [file.name for file in _sorted(folder) if _METADATA.fullmatch(file.name)]


def _sorted(folder: Place) -> list[Place]:
    """The sorted content of a folder; empty if it is not a folder."""
    inner: Iterable[Place] = folder.iterdir() if folder.is_dir() else ()
    return sorted(inner, key=lambda each: each.name)


def _describe(path: str, product: Place, name: str) -> Source:
    """The scene of a product, whose metadata is called `name`."""
    metadata = read_metadata(path, product, name)
    if not metadata.images:
        raise SceneError(f"{path}: {name} is broken (it lists no IMAGE_FILE); download the product again")
    if len(tiles := sorted({image.parts[1] for image in metadata.images})) > 1:
        raise _several_tiles(path, f"holds {len(tiles)} tiles", tiles)
    bands: dict[str, Band] = {}
    missing, notes = [], [metadata.note] if metadata.note else []
    for band, images in _by_band(path, metadata.images).items():
        there = {meters: file for meters, image in images.items() if (file := _file(product, image))}
        if not there:
            missing.append(band)
            continue
        finest, wanted = min(there), min(images)
        if finest > wanted:
            notes.append(f"{band} is read at {finest} m, because its image at {wanted} m is missing")
        bands[band] = Band(path_of(there[finest]), scaling=metadata.scaling.get(band))
    if missing:
        notes.append(f"the images of {', '.join(missing)} are missing")
    scl = bands.pop("SCL", None)
    if not bands:
        raise SceneError(f"{path}: all bands that {name} lists are missing; download the product again")
    return Source(
        path=path,
        stem=re.sub(r"(\.SAFE)?(\.zip|\.tar)?$", "", _name(product), flags=re.IGNORECASE),
        bands={band: bands[band] for band in BANDS if band in bands},
        scaling_source=metadata.source,
        level=metadata.level,
        taken=metadata.taken,
        scl=scl,
        nodata=NODATA_DN,
        notes=tuple(f"{path}: {note}" for note in notes),
    )


def _by_band(path: str, images: Iterable[PurePosixPath]) -> dict[str, dict[int, PurePosixPath]]:
    """Band, or SCL, to its image at each resolution in meters; 0 for L1C, which has one image of unnamed resolution."""
    found: dict[str, dict[int, PurePosixPath]] = defaultdict(dict)
    for image in images:
        if named := _IMAGE.fullmatch(image.name):
            meters = int(named[2] or 0)
            if found[named[1]].setdefault(meters, image) != image:
                other = found[named[1]][meters].name
                raise SceneError(
                    f"{path}: lists {named[1]} twice, as {other} and {image.name}; download the product again"
                )
    return found


def read_metadata(path: str, product: Place, name: str) -> Metadata:
    """Parses a product's metadata.

    Args:
        path: What the user passed, for messages.
        product: The folder that holds the metadata.
        name: The name of its file.

    Raises:
        SceneError: It is broken.
    """
    with (product / name).open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise SceneError(
            f"{path}: {name} is broken (it is larger than {_MAX_BYTES / 1e6:.0f} MB); download the product again"
        )
    try:
        root = ET.fromstring(data, ET.XMLParser(target=_NoDoctype()))  # noqa: S314 - no entities without a doctype
        return _parse(root, name)
    except (ET.ParseError, LookupError, ValueError) as error:  # LookupError for unknown encodings
        raise SceneError(f"{path}: {name} is broken ({error}); download the product again") from error


class _NoDoctype(ET.TreeBuilder):
    """Rejects declarations of entities, which could grow without limit or name other files."""

    def doctype(self, name: str, *_: str | None) -> None:
        raise ET.ParseError(f"it declares a document type, {name}, which no product does")


def _parse(root: ET.Element, name: str) -> Metadata:
    """Reads a product's metadata.

    Element names are compared without their namespace, which contains ESA's version, and without the prefix ``L2A_`` of
    some elements in L2A products until 2017.

    Raises:
        ValueError: Something is missing or malformed.
    """
    fields: dict[str, list[ET.Element]] = defaultdict(list)
    for element in root.iter():
        fields[element.tag.rpartition("}")[2].removeprefix("L2A_")].append(element)

    def text(field: str) -> str:
        return (fields[field][0].text or "").strip() if fields[field] else ""

    product = re.fullmatch(r"S2MSI(1C|2A)p?", text("PRODUCT_TYPE"))
    if product is None:
        raise ValueError(f"its PRODUCT_TYPE is {text('PRODUCT_TYPE')!r}")
    level = f"L{product[1]}"
    quantification, offset = {
        "L1C": ("QUANTIFICATION_VALUE", "RADIO_ADD_OFFSET"),
        "L2A": ("BOA_QUANTIFICATION_VALUE", "BOA_ADD_OFFSET"),
    }[level]
    if not text(quantification):
        raise ValueError(f"it has no {quantification}")
    images = tuple(_image(each.text or "") for field in ("IMAGE_FILE", "IMAGE_FILE_2A") for each in fields[field])
    offsets = {_BAND_IDS.get(each.get("band_id", "")): float(each.text or "") for each in fields[offset]}
    listed = {named[1] for image in images if (named := _IMAGE.fullmatch(image.name))} - {"SCL"}
    if offsets and not listed <= offsets.keys():
        raise ValueError(f"it has no {offset} of {', '.join(sorted(listed - offsets.keys()))}")
    baseline = text("PROCESSING_BASELINE")
    doubtful = not offsets and has_offset(baseline)
    return Metadata(
        source=f"the product's {name}",
        level=level,
        taken=find_datetime("", {"PRODUCT_START_TIME": text("PRODUCT_START_TIME")}),
        scaling={band: Scaling(float(text(quantification)), offsets.get(band, 0.0)) for band in BANDS},
        images=images,
        note=f"{name} has no {offset} although its processing baseline is {baseline}; 0 is assumed" if doubtful else "",
    )


def _image(text: str) -> PurePosixPath:
    """An image that metadata lists; it must lie inside the product."""
    image = PurePosixPath(text.strip().removesuffix(".jp2"))
    if image.parts[:1] != (GRANULE,) or ".." in image.parts or "\\" in text or len(image.parts) < 3:
        raise ValueError(f"it lists {text.strip()!r}, which is no image in GRANULE")
    return image


def _file(product: Place, image: PurePosixPath) -> Place | None:
    """The file of an image, if there is one."""
    folder = product.joinpath(*image.parent.parts)
    files = (folder / f"{image.name}{ending}" for ending in IMAGE_ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _name(folder: Place) -> str:
    """A folder's name, also of ``"."``."""
    return folder.name if isinstance(folder, Member) else folder.resolve().name


def _several_tiles(path: str, why: str, tiles: Sequence[str]) -> SceneError:
    tile = tiles[0] if tiles else "TILE"
    return SceneError(f"{path}: {why}; use the images of one tile, the unpacked folder GRANULE/{tile}/IMG_DATA")
