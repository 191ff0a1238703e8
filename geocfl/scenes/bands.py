"""Names of Sentinel-2 bands, as files spell them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral

from geocfl.errors import SceneError, UsageError, unknown_name

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
BandNumbers = Mapping[str, int] | Sequence[str]
"""Which band of a raster is which: name to number from 1, or the names in the raster's order."""
Orders = Sequence[tuple[str | None, ...]]
"""Orders that the bands of a raster may have; None is a mask."""
FINE_BANDS = ("B02", "B03", "B04", "B08")
"""Those that Sentinel-2 takes in pixels of 10 m."""
COLORS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}
_PLAIN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08")
_INFRARED = ("B11", "B12")
ORDERS: dict[int, tuple[tuple[str | None, ...], ...]] = {
    3: (("B04", "B03", "B02"), ("B02", "B03", "B04"), ("B08", "B04", "B03")),
    4: (
        ("B02", "B03", "B04", "B08"),
        ("B04", "B03", "B02", "B08"),
        ("B04", "B03", "B02", None),
        ("B02", "B03", "B04", None),
        ("B08", "B04", "B03", "B02"),
    ),
    10: (
        (*_PLAIN, "B8A", *_INFRARED),
        ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", *_INFRARED),
    ),
    11: (("B01", *_PLAIN, "B09", *_INFRARED),),
    12: (("B01", *_PLAIN, "B8A", "B09", *_INFRARED),),
    13: (("B01", *_PLAIN, "B8A", "B09", "B10", *_INFRARED), ("B01", *_PLAIN, "B09", "B10", *_INFRARED, "B8A")),
}
"""What a raster without names may hold, by its number of bands, the most usual order first; None is a mask.

Three: true and false color. Ten: in the order of wavelength, or the bands of 10 m first. Eleven: sen2r's L2A. Twelve:
L2A. Thirteen: L1C in ESA's order or EuroSAT's."""
WAVELENGTHS = {
    "B01": 443, "B02": 491, "B03": 560, "B04": 665, "B05": 705, "B06": 740, "B07": 782, "B08": 837, "B8A": 865,
    "B09": 944, "B10": 1375, "B11": 1612, "B12": 2196,
}  # fmt: skip
"""Central wavelength in nanometers, between those of Sentinel-2A and 2B."""
MOST_COUNTED = 4
"""``B1, B2, ...`` of more bands are names: few files hold ``B1`` to ``B4`` of Sentinel-2, and many count so."""
NEAR_NM = 13
"""Maximum distance of a stated wavelength from that of its band, nanometers."""

_NUMBER = r"\bB(AND)?[ -]?(8A|0?[1-9]|1[0-2])(?=\b)"
_NAME = re.compile(_NUMBER)
_COUNT = re.compile(r"\b(?:B(?:AND)?|LAYER|CHANNEL)[ -]?(\d+)\b")
_OTHER_FILE = re.compile(r"\(BAND \d+ ?:.*\)")
"""The band's number in the file that it was cut from, as ENVI writes it: ``Resize (Band 1:scene.dat)``."""
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(NM|NANOM|UM|\u00b5M|\u039cM|MICROM)|\bR(?:HO\w*|RS) (\d{3,4})\b")
_WORDS = {
    "COASTAL": "B01", "BLUE": "B02", "GREEN": "B03", "RED": "B04", "REDEDGE1": "B05", "REDEDGE2": "B06",
    "REDEDGE3": "B07", "REDEDGE071": "B05", "REDEDGE075": "B06", "REDEDGE078": "B07", "NIR": "B08", "BROADNIR": "B08",
    "WIDENIR": "B08", "NARROWNIR": "B8A", "NIRNARROW": "B8A", "NIR08": "B8A", "NIR09": "B09", "CIRRUS": "B10",
    "SWIR1": "B11", "SWIR16": "B11", "SWIR2": "B12", "SWIR22": "B12",
}  # fmt: skip
_PAIRS = re.compile(r"\b(RED|REDEDGE|BROAD|WIDE|NARROW|NIR|SWIR) (EDGE|NIR|NARROW|\d+)\b")
_DERIVED = {"MASK", "RATIO", "INDEX", "QA", "STD", "COUNT", "REDEDGE"}
"""Words of labels that name no band, whatever else they say."""


def band_name(description: str | None) -> str | None:
    """The band that a description names, such as ``"B4"``, ``"B04 (665 nm)"``, ``"Band 4"`` or ``"red"``; else None."""
    text = _spelled(description)
    if found := _NAME.search(text):
        return f"B{found[2].zfill(2)}"
    return _described(text)


def _spelled(label: str | None) -> str:
    return re.sub(r"[_\s]+", " ", (label or "").upper()).strip()


def _described(text: str) -> str | None:
    """The band of a label by its wavelength or its color."""
    if found := _WAVELENGTH.search(text):
        nanometers = float(found[1] or found[3]) * (1000 if found[2] and "N" not in found[2][:1] else 1)
        nearest = min(WAVELENGTHS, key=lambda band: abs(WAVELENGTHS[band] - nanometers))
        return nearest if abs(WAVELENGTHS[nearest] - nanometers) <= NEAR_NM else None
    joined = _PAIRS.sub(r"\1\2", _PAIRS.sub(r"\1\2", text.replace("NEAR INFRARED", "NIR")))
    words = set(re.findall(r"[A-Z]+\d*", joined))
    named = {_WORDS[word] for word in words & _WORDS.keys()}
    return named.pop() if len(named) == 1 and not words & _DERIVED else None


def _names(labels: Sequence[str | None]) -> list[str | None]:
    """The band that each label names.

    Numbers that merely count, such as ``Band 1, Band 2, Band 3``, name nothing. ``NIR`` beside ``BROADNIR`` is B8A, as
    FORCE writes it.
    """
    texts = [_OTHER_FILE.sub("", _spelled(label)) for label in labels]
    if _only_count(texts):
        return [_described(_COUNT.sub("", text)) for text in texts]
    names = [band_name(text) for text in texts]
    if names.count("B08") == 2:
        names = [
            "B8A" if name == "B08" and "NIR" in text and not re.search("BROAD|WIDE", text) else name
            for name, text in zip(names, texts, strict=True)
        ]
    return names


def _only_count(texts: Sequence[str]) -> bool:
    """Whether labels are numbered by their positions. ``B01`` with its zero is a name, and so are ``B1`` to ``B9``."""
    numbers = [(position, found) for position, text in enumerate(texts, start=1) if (found := _COUNT.search(text))]
    positions = [*range(1, len(numbers) + 1)]
    if not numbers or [at for at, _ in numbers] != positions or [int(found[1]) for _, found in numbers] != positions:
        return False
    names = all(re.match(r"B0\d|B1[0-2]", found[0]) for _, found in numbers)
    short = all(re.match(r"B\d", found[0]) for _, found in numbers)
    return not names and not (short and MOST_COUNTED < len(texts) < max(ORDERS))


def find_bands(
    path: str,
    descriptions: Sequence[str | None],
    colors: Sequence[str],
    chosen: BandNumbers | None = None,
    *,
    others: Iterable[Sequence[str | None]] = (),
    likely: Callable[[Orders, Sequence[str]], Orders] = lambda orders, _: orders[:1],
) -> tuple[dict[str, int], str]:
    """Which band of a file holds which Sentinel-2 band.

    The user's choice comes first, then the bands' descriptions, then other labels, then their color interpretation,
    then the order that their pixels suggest.

    Args:
        path: The file, for messages.
        descriptions: GDAL's description of each band.
        colors: GDAL's color interpretation of each band, such as ``"red"``.
        chosen: The user's choice.
        others: Further labels of each band, such as those of its metadata, the most trustworthy first.
        likely: Chooses the orders that the pixels allow, from possible ones and the color interpretation.

    Returns:
        Band name to number in the file, from 1, and a sentence about what was assumed, which may be empty. No band is
        found if nothing names one.

    Raises:
        UsageError: `chosen` is invalid.
        SceneError: `chosen` names a number that the file does not have, or two bands have the same name.
    """
    if chosen:
        return _chosen(path, chosen, len(descriptions)), ""
    count = len(descriptions)
    shown = tuple(COLORS.get(color) for color in colors)
    picture = shown[:3] == ("B04", "B03", "B02") and count <= 4  # which GDAL says of any three or four bytes
    for labels in (descriptions, *others, *([] if picture else [colors])):
        names = _names(labels)
        found = {name: index for index, name in enumerate(names, start=1) if name}
        if len(found) < sum(name is not None for name in names):
            if labels is not descriptions:
                continue
            twice = next(name for name in found if names.count(name) > 1)
            raise SceneError(f"{path}: two of its bands are named {twice}; choose one of them with `bands`")
        if found:
            return found, ""
    return _assumed(path, likely(ORDERS.get(count, ()), colors), count, stated=picture)


def _assumed(path: str, orders: Orders, count: int, *, stated: bool) -> tuple[dict[str, int], str]:
    """The bands on which all possible orders agree, and a sentence about the assumption.

    Args:
        path: The file.
        orders: The orders that are possible.
        count: Number of bands.
        stated: Whether the color interpretation states true color.
    """
    unnamed = f"{path}: its {count} band{'s have no names' if count > 1 else ' has no name'}"
    if not orders:
        return {}, f"{unnamed}, and their pixels look like no usual order" if count in ORDERS else ""
    agreed = {
        each[0]: index for index, each in enumerate(zip(*orders, strict=True), start=1) if each[0] and len({*each}) == 1
    }
    if len(orders) > 1 and not {"B02", "B04"} <= agreed.keys():
        return {}, f"{unnamed}, and they may be {' or '.join(_said(order) for order in orders)}"
    if stated and tuple(orders) == ORDERS[3][:1]:
        return agreed, ""
    said = [name if name is None or name in agreed else "unknown" for name in orders[0]]
    return (
        agreed,
        f"{path}: its {count} bands have no names and are assumed to be {_said(said)}; `bands` overrides it",
    )


def _said(order: Sequence[str | None]) -> str:
    return ", ".join(name or "a mask" for name in order)


def check_bands(chosen: BandNumbers) -> BandNumbers:
    """The user's choice with plain numbers, as JSON takes it.

    Raises:
        UsageError: It is neither names in order nor a mapping of names to numbers.
    """
    names = list(chosen) if isinstance(chosen, Sequence | Mapping) and not isinstance(chosen, str) else [None]
    numbers = list(chosen.values()) if isinstance(chosen, Mapping) else []
    if not all(isinstance(name, str) for name in names) or not all(isinstance(n, Integral) for n in numbers):
        raise UsageError(
            f"`bands` is {chosen!r} but must be names in the raster's order, such as ('B04', 'B03', 'B02'), or map "
            "names to numbers, such as {'B04': 3}"
        )
    return dict(zip(chosen, map(int, numbers), strict=True)) if isinstance(chosen, Mapping) else tuple(chosen)


def _chosen(path: str, chosen: BandNumbers, count: int) -> dict[str, int]:
    chosen = check_bands(chosen)
    numbers = chosen if isinstance(chosen, Mapping) else {name: index for index, name in enumerate(chosen, start=1)}
    found = {}
    for name, number in numbers.items():
        band = band_name(name)
        if band is None:
            raise UsageError(f"`bands`: {unknown_name('band', name, BANDS)}")
        if not 1 <= number <= count:
            raise SceneError(f"{path}: has no band {number} for {band}, only {count}; correct `bands`")
        if band in found:
            raise UsageError(f"`bands` names {band} twice; leave one of them out")
        found[band] = number
    return found
