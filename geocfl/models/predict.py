"""Arrays in memory, classified: reflectance in, class codes and calibrated probabilities out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geocfl.core.display import Line, html_table
from geocfl.core.legend import NODATA, Legend
from geocfl.core.progress import Progress
from geocfl.errors import ModelError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from geocfl.models.backends import Backend
    from geocfl.models.bundle import Model

BRIGHTEST = 2.0
"""A mean above this is none of reflectances: clouds and snow stay near 1."""
WINDOWS_AT_A_TIME = 1024
"""Windows of a stack that are copied side by side for the classifier."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a model makes of an array: of N windows, or of the cells (rows, columns) of an image.

    Attributes:
        probabilities: (N, classes) or (rows, columns, classes) float32, calibrated, in the legend's order; they sum to
            1, and are NaN where less than half of the pixels have data.
        legend: The classes.
        model: Name of the model.
    """

    probabilities: NDArray[np.float32]
    legend: Legend
    model: str

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """(N,) or (rows, columns) uint8 codes of the likeliest classes, as in the legend; 0 is no data."""
        known = ~np.isnan(self.probabilities[..., 0])
        return np.where(known, self.probabilities.argmax(axis=-1) + 1, NODATA).astype(np.uint8)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(N,) or (rows, columns) float32 probability of the likeliest class, 0..1; NaN is no data."""
        confidence: NDArray[np.float32] = self.probabilities.max(axis=-1)
        return confidence

    @property
    def names(self) -> NDArray[np.str_]:
        """(N,) or (rows, columns) names of the likeliest classes; ``"No data"`` where there are none."""
        return np.array(["No data", *self.legend.names])[self.codes]

    def frame(self) -> pd.DataFrame:
        """One row a window or cell: ``code``, ``class``, ``confidence``, then each class's probability by its name.

        Its index is the number of the window, or row and column of the cell.
        """
        import pandas as pd

        shape = self.codes.shape
        index = pd.RangeIndex(shape[0], name="window")
        if len(shape) > 1:
            index = pd.MultiIndex.from_product([range(side) for side in shape], names=["row", "column"])
        facts = pd.DataFrame(
            {"code": self.codes.ravel(), "class": self.names.ravel(), "confidence": self.confidence.ravel()}, index
        )
        rows = self.probabilities.reshape(-1, len(self.legend))
        return pd.concat([facts, pd.DataFrame(rows, index, columns=self.legend.names)], axis=1)

    def __repr__(self) -> str:
        """One line: how much of what, how sure."""
        counts = [f"{name} {count:,}" for _, name, count, _ in self._counts()[:4]]
        more = ", ..." if len(self._counts()) > 4 else ""
        found = ", ".join(counts) + more if counts else "no data"
        return f"<Prediction of {self._extent()} by {self.model}: {found}>"

    def _repr_html_(self) -> str:
        lines: list[Line] = [
            (color, [name, f"{count:,}", f"{count / self.codes.size:.1%}", f"{sure:.2f}"])
            for color, name, count, sure in self._counts()
        ]
        if missing := int((self.codes == NODATA).sum()):
            lines.append((None, ["No data", f"{missing:,}", f"{missing / self.codes.size:.1%}", ""]))
        unit = "windows" if self.codes.ndim == 1 else "cells"
        return html_table(
            ["class", unit, "share", "mean confidence"], lines, caption=f"{self._extent()} by {self.model}"
        )

    def _extent(self) -> str:
        if self.codes.ndim == 1:
            return f"{len(self.codes):,} window{'' if len(self.codes) == 1 else 's'}"
        rows, columns = self.codes.shape
        return f"{rows:,} x {columns:,} cells"

    def _counts(self) -> list[tuple[str, str, int, float]]:
        """Colour, name, number and mean confidence of the classes that there are, the most frequent first."""
        confidence = self.confidence
        found = []
        for c in self.legend:
            chosen = self.codes == c.code
            if count := int(chosen.sum()):
                found.append((c.color, c.name, count, float(confidence[chosen].mean())))
        return sorted(found, key=lambda row: -row[2])


class Classifier:
    """A model's back ends, each loaded when it is first asked for and then kept; threads take turns.

    Args:
        model: The bundle.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._backends: dict[tuple[Any, ...], Backend] = {}
        self._turn = threading.Lock()

    def predict(
        self,
        array: ArrayLike,
        stride: int | None,
        device: str,
        backend: str,
        precision: str,
        batch_size: int | None,
        progress: Progress,
    ) -> Prediction:
        """See `geocfl.models.bundle.Model.predict`."""
        model, pixels = self._model, reflectance_of(array)
        if pixels.ndim not in (3, 4) or pixels.shape[-3] != len(model.bands):
            raise UsageError(
                f"an array of shape {pixels.shape} is neither an image (bands, height, width) nor windows (N, bands, "
                f"{model.window}, {model.window}) of {model.name}'s bands {', '.join(model.bands)}"
            )
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"a batch size of {batch_size} is below 1")
        if pixels.ndim == 4:
            jobs, known = self._stack(pixels, stride)
        else:
            jobs, known = self._image(pixels, model.window if stride is None else stride)
        probabilities = np.full((known.size, len(model.legend)), np.nan, np.float32)
        wanted, done = np.flatnonzero(known), 0
        with self._turn:
            classifier = self._backend(device, backend, precision, batch_size)
            for strip, rows, columns in jobs:
                for batch in classifier.classify(classifier.place(strip), rows, columns):
                    probabilities[wanted[done : done + len(batch)]] = batch
                    done += len(batch)
                    progress("classifying", done, len(wanted), "window")
        return Prediction(probabilities.reshape(*known.shape, len(model.legend)), model.legend, model.name)

    def _backend(self, device: str, backend: str, precision: str, batch_size: int | None) -> Backend:
        from geocfl.models.backends import load_backend

        if self._model.path is None:
            raise ModelError(f"{self._model.name}: the model has no weights yet; save it first")
        key = (backend, device, precision, batch_size)
        if key not in self._backends:
            self._backends[key] = load_backend(self._model, *key)
        return self._backends[key]

    def _stack(self, windows: NDArray[np.float32], stride: int | None) -> tuple[Iterator[_Job], NDArray[np.bool_]]:
        """What to classify of (N, B, window, window), and (N,) which windows have data."""
        side = self._model.window
        if windows.shape[2:] != (side, side):
            height, width = windows.shape[2:]
            raise UsageError(
                f"{self._model.name} classifies windows of {side} x {side} px, not {height} x {width}; "
                "pass an image as (bands, height, width), which is cut into windows"
            )
        if stride is not None:
            raise UsageError(f"stride {stride} is for an image (bands, height, width); leave it out for windows")
        known = (~np.isnan(windows[:, 0])).mean(axis=(1, 2)) >= 0.5

        def jobs() -> Iterator[_Job]:
            wanted = np.flatnonzero(known)
            for start in range(0, len(wanted), WINDOWS_AT_A_TIME):
                chosen = windows[wanted[start : start + WINDOWS_AT_A_TIME]]
                strip = chosen.swapaxes(0, 1).reshape(chosen.shape[1], -1, side)
                yield strip, side * np.arange(len(chosen)), np.zeros(len(chosen), np.int64)

        return jobs(), known

    def _image(self, image: NDArray[np.float32], stride: int) -> tuple[Iterator[_Job], NDArray[np.bool_]]:
        """What to classify of (B, height, width), and (rows, columns) which cells have data."""
        from geocfl.mapping.strips import has_data, mirror

        side, (height, width) = self._model.window, image.shape[1:]
        if not 1 <= stride <= side:
            raise UsageError(f"stride {stride} is not between 1 and the model's window of {side} px")
        if min(height, width) < side:
            raise UsageError(
                f"an image of {height} x {width} px is smaller than the window of {side} px that {self._model.name} "
                "classifies; pass a larger one"
            )
        known = has_data(~np.isnan(image[0]), stride)
        margin = (side - stride + 1) // 2  # as geocfl.core.grid.CellGrid's
        down, across = (
            mirror(-margin, (cells - 1) * stride - margin + side, size)
            for cells, size in zip(known.shape, (height, width), strict=True)
        )
        rows, columns = np.nonzero(known)
        return iter([(image[:, down[:, None], across], rows * stride, columns * stride)]), known


_Job = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]
"""(B, h, w) pixels, and the rows and columns of the upper left ones of the windows to classify."""


def reflectance_of(array: ArrayLike) -> NDArray[np.float32]:
    """An array as float32 reflectance whose pixels without data are NaN in all bands, which stand third from last.

    Raises:
        UsageError: It holds digital numbers.
    """
    given = array if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
    remedy = "pass (array + offset) / 10000, where offset is -1000 of processing baseline 04.00 and later, else 0"
    if given.dtype.kind != "f":
        raise UsageError(f"an array of {given.dtype} holds digital numbers; {remedy}")
    filled = given.filled(np.nan) if isinstance(given, np.ma.MaskedArray) else given
    pixels: NDArray[np.float32] = np.ascontiguousarray(filled, np.float32)
    if pixels.ndim < 3:
        return pixels
    finite = np.isfinite(pixels).all(axis=-3, keepdims=True)
    if not finite.all():
        pixels = np.where(finite, pixels, np.float32(np.nan))
    mean = float(pixels.mean(where=finite, dtype=np.float64)) if finite.any() else 0.0
    if mean > BRIGHTEST:
        raise UsageError(f"values of {mean:,.0f} on average are digital numbers; {remedy}")
    return pixels
