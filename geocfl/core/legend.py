"""Class codes, names and colors: the legend that models, rasters, vectors and styles share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocfl.core.colors import distinct_colors
from geocfl.core.display import html_table

NODATA = 0
"""Raster code of cells without data."""
UNCLASSIFIED = 255
"""Raster code of cells with data but without a class, because its confidence is too low."""
MAX_NAME = 200
"""Characters of a class's name."""
MAX_CLASSES = 254
"""A uint8 raster has the codes 1..254 for classes."""


@dataclass(frozen=True)
class LulcClass:
    """One class of a legend.

    Attributes:
        code: Raster value, 1..254.
        name: Name shown to people, such as ``"Annual Crop"``.
        folder: Name of the class's folder of training patches, such as ``"AnnualCrop"``.
        color: ``"#rrggbb"``.
    """

    code: int
    name: str
    folder: str
    color: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0..255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


@dataclass(frozen=True, repr=False)
class Legend:
    """The classes of a model in the order of its outputs: output ``k`` has code ``k + 1``.

    Raises:
        ValueError: The codes are not 1..N, there are too many classes, or a name is empty, longer than
            `MAX_NAME` or has control characters.
    """

    classes: tuple[LulcClass, ...]

    def __post_init__(self) -> None:
        for c in self.classes:  # the legend of a finished map knows no folders
            for name in (c.name, c.folder or c.name):
                if not (name and name.isprintable() and len(name) <= MAX_NAME):
                    raise ValueError(f"a class cannot be named {name[:MAX_NAME]!r}")
        if [c.code for c in self.classes] != list(range(1, len(self.classes) + 1)):
            raise ValueError("legend codes must be 1..N in order")
        if len(self.classes) > MAX_CLASSES:
            raise ValueError(f"a uint8 raster holds at most {MAX_CLASSES} classes")

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[LulcClass]:
        return iter(self.classes)

    def __getitem__(self, code: int) -> LulcClass:
        """The class with this raster code."""
        if not 1 <= code <= len(self.classes):
            raise KeyError(code)
        return self.classes[code - 1]

    def __repr__(self) -> str:
        """One line: codes and names."""
        return f"<Legend: {', '.join(f'{c.code} {c.name}' for c in self.classes)}>"

    def _repr_html_(self) -> str:
        return html_table(["class", "code"], [(c.color, [c.name, str(c.code)]) for c in self.classes])

    @property
    def names(self) -> list[str]:
        """Class names in the order of their codes."""
        return [c.name for c in self.classes]

    def to_json(self) -> list[dict[str, object]]:
        """The legend as in ``model.json``."""
        return [{"code": c.code, "name": c.name, "folder": c.folder, "color": c.color} for c in self.classes]

    @classmethod
    def from_json(cls, entries: Sequence[dict[str, object]]) -> Legend:
        """Reads what `to_json` wrote."""
        classes = []
        for entry in entries:
            color = str(entry["color"])
            if not re.fullmatch("#[0-9a-fA-F]{6}", color):
                raise ValueError(f"not a color: {color}")
            classes.append(LulcClass(int(str(entry["code"])), str(entry["name"]), str(entry["folder"]), color))
        return cls(tuple(classes))

    @classmethod
    def from_folders(cls, folders: Sequence[str]) -> Legend:
        """The legend of folders named by class: EuroSAT's legend for its folders, else the names in sorted order.

        Args:
            folders: Folder names, such as ``["Forest", "SeaLake"]``; any order.

        Raises:
            ValueError: Two folders name the same class, or a name cannot be that of a class.
        """
        _refuse_same(folders)
        if set(folders) == {c.folder for c in EUROSAT}:
            return EUROSAT
        known = {c.folder: c.color for c in EUROSAT if c.folder in folders}
        own = sorted(set(folders) - set(known))
        new = distinct_colors(len(own), [PAPER, WITHHELD.color, *known.values()])
        colors = known | dict(zip(own, new, strict=True))
        ordered = enumerate(sorted(folders), 1)
        return cls(tuple(LulcClass(code, _spaced(folder), folder, colors[folder]) for code, folder in ordered))

    def extended(self, folders: Iterable[str]) -> Legend:
        """The legend with more classes after its own, in sorted order and in colors far from all others.

        Args:
            folders: Folder names; those of classes that the legend has are ignored.

        Raises:
            ValueError: Two folders name the same class, or a name cannot be that of a class.
        """
        known = [c.folder for c in self.classes]
        new = sorted(set(folders) - set(known))
        _refuse_same([*known, *new])
        colors = distinct_colors(len(new), [PAPER, WITHHELD.color, *(c.color for c in self.classes)])
        named = enumerate(zip(new, colors, strict=True), len(self) + 1)
        return Legend((*self.classes, *(LulcClass(code, _spaced(f), f, color) for code, (f, color) in named)))


WITHHELD = LulcClass(UNCLASSIFIED, "Unclassified", "", "#d9d9d9")
"""How unclassified cells are shown everywhere."""
PAPER = "#ffffff"
"""What maps are drawn on."""


def shown_classes(legend: Iterable[LulcClass], *, unclassified: bool) -> list[LulcClass]:
    """The classes of a legend, followed by `WITHHELD` if the map has unclassified cells."""
    return [*legend, WITHHELD] if unclassified else list(legend)


def palette(legend: Legend) -> NDArray[np.uint8]:
    """(256, 4) uint8 red, green, blue and opacity of each raster code; codes without a class are transparent."""
    colors = np.zeros((256, 4), np.uint8)
    for c in shown_classes(legend, unclassified=True):
        colors[c.code] = (*c.rgb, 255)
    return colors


def _refuse_same(folders: Iterable[str]) -> None:
    """Raises ValueError if two folders name the same class, such as ``"BareRock"`` and ``"bare_rock"``."""
    seen: dict[str, str] = {}
    for folder in folders:
        other = seen.setdefault(_spaced(folder).casefold(), folder)
        if other != folder:
            raise ValueError(f"the folders {other!r} and {folder!r} name the same class, {_spaced(other)}")


def _spaced(folder: str) -> str:
    """``"AnnualCrop"`` and ``"annual_crop"`` as ``"Annual Crop"``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", folder).split()
    return " ".join(word[0].upper() + word[1:] for word in words) or folder


# Hues follow those of common maps (yellow crops, green woods, blue water, red towns). Lightness differs where
# color-blind readers see the same hue: any two colors are at least 20 apart in CIELAB for them too.
EUROSAT = Legend(
    (
        LulcClass(1, "Annual Crop", "AnnualCrop", "#fcdb62"),
        LulcClass(2, "Forest", "Forest", "#04432a"),
        LulcClass(3, "Herbaceous Vegetation", "HerbaceousVegetation", "#cfeaac"),
        LulcClass(4, "Highway", "Highway", "#636363"),
        LulcClass(5, "Industrial", "Industrial", "#9d5cd0"),
        LulcClass(6, "Pasture", "Pasture", "#6fbf64"),
        LulcClass(7, "Permanent Crop", "PermanentCrop", "#dd8e1b"),
        LulcClass(8, "Residential", "Residential", "#d2332b"),
        LulcClass(9, "River", "River", "#5fc0e8"),
        LulcClass(10, "Sea Lake", "SeaLake", "#0f468c"),
    )
)
"""EuroSAT's ten classes, numbered as in Table 1 of the class focal loss paper (and as its folders sort)."""
