"""Options that are written as text, such as ``--bbox 13.2,45.7,13.4,45.8``, as the values that the library takes.

An option with an empty text, for example from an unset variable of a shell, counts as not given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from geocfl.errors import UsageError


def names(text: str) -> tuple[str, ...]:
    """``"lulc, stac"`` as ``("lulc", "stac")``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def vector_formats(text: str) -> tuple[str, ...]:
    """``"gpkg,geojson"`` as a tuple; ``"none"`` is the empty one.

    Raises:
        UsageError: Both ``none`` and a format are given.
    """
    formats = names(text)
    if "none" in formats and len(formats) > 1:
        raise UsageError("`vector` has both none and formats; use one of them")
    return () if formats == ("none",) else formats


def bands(text: str | None) -> dict[str, int] | tuple[str, ...] | None:
    """``"B04=3,B03=2"`` as ``{"B04": 3, "B03": 2}``; ``"B04,B03"`` as names in the raster's order.

    Raises:
        UsageError: A number is missing or is not one.
    """
    if not text:
        return None
    parts = names(text)
    if not any("=" in part for part in parts):
        return parts
    numbers = {}
    for part in parts:
        name, _, number = part.partition("=")
        if not _is_whole(number):
            raise UsageError(f"`bands` is {text} but must look like B04=3,B03=2,B02=1")
        numbers[name.strip()] = int(number.strip())
    return numbers


def _is_whole(text: str) -> bool:
    """Whether a text is a whole number of at most 18 digits, which `int` takes when it is stripped."""
    return text.strip().isdecimal() and len(text.strip()) <= 18


def box(text: str | None) -> tuple[float, float, float, float] | None:
    """``"13.2,45.7,13.4,45.8"`` as four numbers, which spaces may separate too.

    Raises:
        UsageError: It is not four numbers.
    """
    if not text:
        return None
    try:
        west, south, east, north = map(float, text.replace(",", " ").split())
    except ValueError as error:
        raise UsageError(
            f"`bbox` is {text} but must be west,south,east,north in degrees, such as 13.2,45.7,13.4,45.8",
            page="how-to/parts/",
        ) from error
    return west, south, east, north


def joined_box(args: Sequence[str]) -> list[str]:
    """A command's arguments with the four numbers of ``--bbox 13 45 14 46``, as GDAL's programs take it, in one."""
    joined = list(args)
    for place in [number for number, arg in enumerate(args) if arg == "--bbox"][::-1]:
        numbers = joined[place + 1 : place + 5]
        if len(numbers) == 4 and all(map(_is_number, numbers)):
            joined[place + 1 : place + 5] = [" ".join(numbers)]
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def point(text: str) -> tuple[float, float]:
    """``"13.4,45.8"`` as numbers.

    Raises:
        UsageError: It is not two numbers.
    """
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(
            f"`point` is {text} but must be longitude,latitude, such as 13.4,45.8, or x,y in the map's coordinates"
        ) from error
    return x, y


def transitions(texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """``["Residential>Forest"]`` as ``(("Residential", "Forest"),)``.

    Raises:
        UsageError: A text is not two names with a > between them.
    """
    pairs = []
    for text in texts or ():
        before, arrow, after = (part.strip() for part in text.partition(">"))
        if not (before and arrow and after):
            raise UsageError(f"`forbid` is {text} but must look like 'Residential>Forest', in quotes")
        pairs.append((before, after))
    return tuple(pairs)


def mask_classes(text: str | None) -> tuple[int, ...] | None:
    """``"3,8,9,10"`` as numbers.

    Raises:
        UsageError: A part is not a number.
    """
    return _numbers("mask_classes", text, "3,8,9,10")


def mask_bits(text: str | None) -> tuple[int, ...] | None:
    """``"1,3"`` as numbers.

    Raises:
        UsageError: A part is not a number.
    """
    return _numbers("mask_bits", text, "1,3")


def _numbers(option: str, text: str | None, example: str) -> tuple[int, ...] | None:
    if not text:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"`{option}` is {text} but must be numbers, such as {example}") from error


def patch_bands(text: str | None) -> tuple[str, ...] | None:
    """``"B08,B04"`` as names; ``"rgb"`` and ``"all"`` as EuroSAT's three or thirteen bands."""
    from geocfl.data.patches import EUROSAT_BANDS, RGB

    if not text:
        return None
    return {"rgb": RGB, "all": EUROSAT_BANDS}.get(text.lower()) or names(text)


def class_order(text: str | None) -> str | tuple[int, ...] | None:
    """``"3,1,2"`` as class codes; any other text is the name of an order."""
    if not text:
        return None
    codes = names(text)
    return tuple(map(int, codes)) if codes and all(map(_is_whole, codes)) else text


def allocation(text: str) -> tuple[str, int]:
    """``"rare:30"`` as ``("proportional", 30)``; other names have at least two points in each stratum.

    Raises:
        UsageError: The number is missing or is not one.
    """
    name, colon, number = text.partition(":")
    if name != "rare":
        return text, 2
    if not (colon and _is_whole(number)):
        raise UsageError(f"`allocation` is {text} but must look like rare:30")
    return "proportional", int(number)


def accuracies(text: str | None) -> float | dict[str, float] | None:
    """``"0.8"`` as a number; ``"Forest=0.9,River=0.7"`` as numbers by name.

    Raises:
        UsageError: A part is not a number.
    """
    if not text:
        return None
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.rpartition("=") for part in names(text)]
        return {name.strip(): float(number) for name, _, number in pairs}
    except ValueError as error:
        raise UsageError(f"`expected_ua` is {text} but must look like 0.8 or Forest=0.9,River=0.7") from error


def shard(text: str | None) -> tuple[int, int] | None:
    """``"0/4"`` as numbers; ``"auto"`` and ``"auto/4"`` as what the batch system says.

    Raises:
        UsageError: It is neither, or no batch system says anything.
    """
    from geocfl.mapping.shards import shard_of_job

    if not text:
        return None
    index, slash, count = text.partition("/")
    if (index != "auto" and not (slash and _is_whole(index))) or (slash and not _is_whole(count)):
        raise UsageError(f"`shard` is {text} but must look like 0/4, auto or auto/4")
    if index == "auto":
        return shard_of_job(os.environ, int(count) if slash else None)
    return int(index), int(count)
