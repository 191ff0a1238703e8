"""An assessment: the accuracy of a map and the areas of its classes, as tables, text and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geocfl._version import __version__
from geocfl.analysis.design import Design
from geocfl.analysis.estimators import Accuracy, Estimates, Z
from geocfl.core.legend import LulcClass
from geocfl.core.table import align
from geocfl.evaluation.assessment_words import methods_paragraph


@dataclass(frozen=True, eq=False, repr=False)
class Assessment:
    """The accuracy of a map and the areas of its classes.

    Attributes:
        map: Name of the class raster.
        sample: Name of the sample's file.
        classes: The map's classes.
        accuracy: Estimates, as shares of the area. Without a design, shares of the points, without errors.
        design: The sample's design; None for points without one.
        hectares: Area that the estimates are for; NaN without a design.
        missing: Points without an answer.
        reread: Whether the map's classes were read again at the points.
        strata: ``"strata"``, ``"classes"`` or ``"map"``: what the estimates are stratified by; empty without a design.
        places: (n, 2) coordinates of the answered points, in the coordinate reference system of the map.
        correct: (n,) whether the map is right there.
        notes: What a reader of the numbers has to know.
        paths: Files that were written.
    """

    map: str
    sample: str
    classes: tuple[LulcClass, ...]
    accuracy: Accuracy
    design: Design | None
    hectares: float
    missing: int
    reread: bool
    strata: str
    places: NDArray[np.float64]
    correct: NDArray[np.bool_]
    notes: tuple[str, ...]
    paths: tuple[Path, ...] = ()

    def frame(self) -> pd.DataFrame:
        """One row per class, with the index ``code``.

        The columns are ``class``; ``mapped_points`` and ``reference_points``; ``mapped_ha``, what the map says;
        ``area_ha``, the estimate; and ``users``, ``producers`` and ``f1`` (0..1). Each estimate is followed by its
        standard error (``_se``) and the ends of its 95 % interval (``_low``, ``_high``).
        """
        accuracy = self.accuracy
        columns: dict[str, Any] = {
            "code": [c.code for c in self.classes],
            "class": [c.name for c in self.classes],
            "mapped_points": accuracy.counts.sum(axis=1),
            "reference_points": accuracy.counts.sum(axis=0),
            "mapped_ha": [self.mapped(k) for k in range(len(self.classes))],
        }
        area = Estimates(*(self.hectares * part for part in _parts(accuracy.area)))
        for name, estimates in (
            ("area_ha", area),
            ("users", accuracy.users),
            ("producers", accuracy.producers),
            ("f1", accuracy.f1),
        ):
            ends = ("", "_se", "_low", "_high")
            columns |= {f"{name}{end}": part for end, part in zip(ends, _parts(estimates), strict=True)}
        return pd.DataFrame(columns).set_index("code")

    def matrix(self, *, counts: bool = False) -> pd.DataFrame:
        """The confusion matrix: map classes in rows, reference classes in columns.

        Args:
            counts: Numbers of points instead of estimated shares of the area.
        """
        names = [c.name for c in self.classes]
        return pd.DataFrame(
            self.accuracy.counts if counts else self.accuracy.matrix,
            index=pd.Index(names, name="map"),
            columns=pd.Index(names, name="reference"),
        )

    def table(self) -> str:
        """The estimates as aligned plain text: overall accuracy, areas, and accuracies by class, then notes."""
        overall = self.accuracy.overall
        lines = [f"Overall accuracy: {_percent(overall)}, {self.accuracy.counts.sum():,} points"]
        present = self.present()
        if self.design is not None:
            areas: list[Sequence[str]] = [("code", "class", "mapped ha", "area ha", "+- 1.96 SE", "95% interval")]
            for k in present:
                c, area = self.classes[k], self.accuracy.area[k]
                mapped = "-" if math.isnan(self.mapped(k)) else f"{self.mapped(k):,.1f}"
                value, half, low, high = (
                    f"{self.hectares * float(part):,.1f}" for part in (area.value, Z * area.error, area.low, area.high)
                )
                areas.append((str(c.code), c.name, mapped, value, half, f"{low} to {high}"))
            lines += ["", align(areas, text_columns=[1])]
        rows: list[Sequence[str]] = [("code", "class", "user's accuracy", "producer's accuracy", "F1")]
        for k in present:
            each = (self.accuracy.users[k], self.accuracy.producers[k], self.accuracy.f1[k])
            rows.append((str(self.classes[k].code), self.classes[k].name, *map(_percent, each)))
        lines += ["", align(rows, text_columns=[1])]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def methods(self) -> str:
        """A paragraph for the methods section of a publication."""
        return methods_paragraph(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as in ``assessment.json``; numbers that are unknown are null."""
        accuracy, design = self.accuracy, self.design
        rows = self.frame().reset_index().to_dict(orient="records")
        facts = {
            "geocfl": __version__,
            "map": self.map,
            "sample": self.sample,
            "points": int(accuracy.counts.sum()),
            "missing": self.missing,
            "design": None
            if design is None
            else {
                "kind": design.kind,
                "strata_from": design.strata_from,
                "allocation": design.allocation,
                "seed": design.seed,
                "min_distance_m": design.min_distance,
                "map": design.map,
                "digest": design.digest,
                "points": len(design.cells),
            },
            "stratified_by": self.strata,
            "classes_read_again": self.reread,
            "hectares": self.hectares,
            "overall_accuracy": {
                "value": float(accuracy.overall.value),
                "se": float(accuracy.overall.error),
                "low": float(accuracy.overall.low),
                "high": float(accuracy.overall.high),
            },
            "classes": rows,
            "counts": accuracy.counts.tolist(),
            "matrix": accuracy.matrix.tolist(),
            "notes": list(self.notes),
            "methods": self.methods(),
        }
        cleaned: dict[str, Any] = _without_nan(facts)
        return cleaned

    def __repr__(self) -> str:
        """One line: overall accuracy and points."""
        return f"<Assessment: {_percent(self.accuracy.overall)} of {self.map}; {self.accuracy.counts.sum():,} points>"

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(na_rep="", float_format="{:,.3f}".format))

    def mapped(self, k: int) -> float:
        """Hectares of class number `k`, from 0, on the map; NaN if they are not known."""
        if self.design is None or self.reread:
            return math.nan
        return self.design.mapped[k].hectares

    def present(self) -> list[int]:
        """Numbers of the classes that the map or the reference has, from 0."""
        counts = self.accuracy.counts
        return [k for k in range(len(self.classes)) if counts[k].any() or counts[:, k].any() or self.mapped(k) > 0]


def _parts(estimates: Estimates) -> tuple[NDArray[np.float64], ...]:
    return estimates.value, estimates.error, estimates.low, estimates.high


def _percent(estimates: Estimates) -> str:
    """``"87.1% (83.9-89.8)"``; without an interval where it is unknown, ``"-"`` where the estimate is."""
    if np.isnan(estimates.value):
        return "-"
    value = f"{100 * float(estimates.value):.1f}%"
    if np.isnan(estimates.low):
        return value
    return f"{value} ({100 * float(estimates.low):.1f}-{100 * float(estimates.high):.1f})"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
