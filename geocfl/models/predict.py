"""Predictions for arrays in memory: reflectance in, class codes and calibrated probabilities out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geocfl.core.display import Line, html_table
from geocfl.core.keywords import declared
from geocfl.core.legend import NODATA, Legend
from geocfl.core.progress import Progress, silent
from geocfl.core.windows import has_data, mirror
from geocfl.errors import UsageError
from geocfl.models.bundle import DEFAULT_MODEL, Bundle

if TYPE_CHECKING:
    import pandas as pd

    from geocfl.models.backends.base import Backend
    from geocfl.models.reflectance import Reflectance

BRIGHTEST = 2.0
"""A mean above this cannot be reflectance: even clouds and snow are near 1."""
WINDOWS_AT_A_TIME = 1024
"""Windows of a stack that are copied side by side for the back end."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The classes that a model predicts for N windows, or for the cells (rows, columns) of an image.

    Attributes:
        probabilities: (N, classes) or (rows, columns, classes) float32, calibrated, in the order of the legend. They
            sum to 1, and are NaN if less than half of the pixels have data.
        legend: The classes.
        model: Name of the model.
    """

    probabilities: NDArray[np.float32]
    legend: Legend
    model: str

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """(N,) or (rows, columns) uint8 codes of the most probable classes, as in the legend; 0 is no data."""
        known = ~np.isnan(self.probabilities[..., 0])
        return np.where(known, self.probabilities.argmax(axis=-1) + 1, NODATA).astype(np.uint8)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(N,) or (rows, columns) float32 probability of the most probable class, 0..1; NaN is no data."""
        confidence: NDArray[np.float32] = self.probabilities.max(axis=-1)
        return confidence

    @property
    def names(self) -> NDArray[np.str_]:
        """(N,) or (rows, columns) names of the most probable classes; ``"No data"`` for code 0."""
        return np.array(["No data", *self.legend.names])[self.codes]

    def frame(self) -> pd.DataFrame:
        """One row per window or cell: ``code``, ``class``, ``confidence``, and the probability of each class.

        The index is the number of the window, or the row and column of the cell.
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
        """One line: the number of windows or cells of the most frequent classes."""
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
        """Color, name, number and mean confidence of the classes that occur, the most frequent first."""
        confidence = self.confidence
        found = []
        for c in self.legend:
            chosen = self.codes == c.code
            if count := int(chosen.sum()):
                found.append((c.color, c.name, count, float(confidence[chosen].mean())))
        return sorted(found, key=lambda row: -row[2])


class Model(Bundle):
    """A trained model: its facts, its network, and predictions for arrays.

    `geocfl.load_model` opens one. Its attributes are those of `geocfl.Bundle`, such as ``bands`` and
    ``legend``. The weights are read when `predict` or `network` first needs them.
    """

    @declared
    def predict(
        self,
        array: ArrayLike,
        *,
        stride: int | None = None,
        device: str = "auto",
        backend: Literal["auto", "openvino", "onnx", "torch"] = "auto",
        precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        batch_size: int | None = None,
        progress: Progress = silent,
    ) -> Prediction:
        """Classifies an array in memory.

        A stack of windows (N, B, window, window) gives N classes. An image (B, height, width) of at least one window
        gives one class per cell of `stride` x `stride` pixels, in ceil(height / stride) rows and ceil(width / stride)
        columns. The result is the same as that of `geocfl.map_scene`, which mirrors pixels at the edge of the image.

        The back end is loaded by the first call and kept. Calls from several threads run one after the other.

        Args:
            array: Float reflectance, 0..1 nominal, of `bands` in their order, on a grid of `gsd` meters. A pixel that
                is NaN, infinite or masked in any band is no data.
            stride: Side of an image's cells in pixels, 1 to the window; the window by default.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
            backend: ``"openvino"``, ``"onnx"`` or ``"torch"``. ``"auto"`` is torch if there is a GPU, else the fastest
                one that is installed.
            precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``. ``"auto"`` is half precision if it is faster on
                the device, else float32.
            batch_size: Windows per batch; by default what is fast on the device.
            progress: Called with the number of classified windows.

        Returns:
            Codes, names, confidences and probabilities.

        Raises:
            UsageError: The array has another shape or holds digital numbers, or a parameter is not valid.
            ModelError: The weights cannot be read.
        """
        pixels = reflectance_of(array)
        if pixels.ndim not in (3, 4) or pixels.shape[-3] != len(self.bands):
            raise UsageError(
                f"an array of shape {pixels.shape} is neither an image (bands, height, width) nor windows (N, bands, "
                f"{self.window}, {self.window}) of {self.name}'s bands {', '.join(self.bands)}"
            )
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"`batch_size` is {batch_size} but must be at least 1")
        stack = pixels.ndim == 4
        known = _known_windows(self, pixels, stride) if stack else _known_cells(self, pixels, stride or self.window)
        probabilities = np.full((known.size, len(self.legend)), np.nan, np.float32)
        wanted, done = np.flatnonzero(known), 0
        with self._backends.lock:
            classifier = self._backends.load(self, backend, device, precision, batch_size)
            found = (
                _classify_windows(classifier, pixels, wanted)
                if stack
                else _classify_cells(self, classifier, pixels, known, stride or self.window)
            )
            for cells, batch in found:
                probabilities[wanted[cells]] = batch
                done += len(batch)
                progress("classifying", done, len(wanted), "window")
        return Prediction(probabilities.reshape(*known.shape, len(self.legend)), self.legend, self.name)

    def network(self) -> Reflectance:
        """The network in float32 on the CPU, in evaluation mode.

        Returns:
            A `torch.nn.Module` from (N, B, H, W) float32 reflectance to (N, classes) logits.

        Raises:
            ModelError: The weights are missing, corrupt or not of this backbone, or the backbone is unknown.
        """
        from geocfl.models.network import load_network

        return load_network(self)

    @cached_property
    def _backends(self) -> _Backends:
        return _Backends()

    def __getstate__(self) -> dict[str, Any]:
        """The facts only: loaded back ends are not copied to other processes."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@declared
def load_model(model: str | Path = DEFAULT_MODEL) -> Model:
    """Opens a model. No code from it runs, and its weights are not read yet.

    Args:
        model: A bundle's folder, a run folder of `geocfl.train`, or the name of a built-in model.

    Raises:
        ModelError: There is no such model, a file is missing, or the facts are corrupt or in a newer format.
    """
    return Model.load(model)


_Found = tuple[slice | NDArray[np.int64], NDArray[np.float32]]
"""Which of the wanted windows were classified, and their (m, classes) probabilities."""


class _Backends:
    """The loaded back ends of a model; `lock` is held while one is used."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._loaded: dict[tuple[Any, ...], Backend] = {}

    def load(self, model: Model, *how: Any) -> Backend:
        """The back end of these arguments of `load_backend`."""
        from geocfl.models.backends import load_backend

        if how not in self._loaded:
            self._loaded[how] = load_backend(model, *how)
        return self._loaded[how]


def _known_windows(model: Bundle, windows: NDArray[np.float32], stride: int | None) -> NDArray[np.bool_]:
    """(N,) which of the windows (N, B, window, window) have data."""
    side = model.window
    if windows.shape[2:] != (side, side):
        height, width = windows.shape[2:]
        raise UsageError(
            f"{model.name} classifies windows of {side} x {side} px, not {height} x {width}; "
            "pass an image as (bands, height, width), which is cut into windows"
        )
    if stride is not None:
        raise UsageError(f"`stride={stride}` is for an image (bands, height, width); leave it out for windows")
    known: NDArray[np.bool_] = (~np.isnan(windows[:, 0])).mean(axis=(1, 2)) >= 0.5
    return known


def _classify_windows(classifier: Backend, windows: NDArray[np.float32], wanted: NDArray[np.int64]) -> Iterator[_Found]:
    """Classifies some of the windows (N, B, window, window)."""
    for start in range(0, len(wanted), WINDOWS_AT_A_TIME):
        for found in classifier.classify_windows(windows[wanted[start : start + WINDOWS_AT_A_TIME]]):
            yield np.arange(start, start + WINDOWS_AT_A_TIME)[found.windows], found.probabilities


def _known_cells(model: Bundle, image: NDArray[np.float32], stride: int) -> NDArray[np.bool_]:
    """(rows, columns) which of the cells of an image (B, height, width) have data."""
    side, (height, width) = model.window, image.shape[1:]
    model.check_stride(stride)
    if min(height, width) < side:
        raise UsageError(
            f"an image of {height} x {width} px is smaller than the window of {side} px that {model.name} "
            "classifies; pass a larger one"
        )
    return has_data(~np.isnan(image[0]), stride)


def _classify_cells(
    model: Bundle, classifier: Backend, image: NDArray[np.float32], known: NDArray[np.bool_], stride: int
) -> Iterator[_Found]:
    """Classifies some of the cells of an image (B, height, width)."""
    margin = model.context - (stride - model.window) // 2  # as in geocfl.core.grid.CellGrid
    down, across = (
        mirror(-margin, (cells - 1) * stride - margin + model.footprint, size)
        for cells, size in zip(known.shape, image.shape[1:], strict=True)
    )
    rows, columns = np.nonzero(known)
    placed = classifier.place(image[:, down[:, None], across])
    for found in classifier.classify(placed, rows, columns, stride):
        yield found.windows, found.probabilities


def reflectance_of(array: ArrayLike) -> NDArray[np.float32]:
    """An array as float32 reflectance, where pixels without data are NaN in all bands (the third axis from the end).

    Raises:
        UsageError: It holds digital numbers, or something else than numbers.
    """
    given = array if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
    remedy = "pass (array + offset) / 10000, where offset is -1000 for processing baseline 04.00 and later, else 0"
    if given.dtype.kind not in "fiu":
        raise UsageError(f"`array` holds {given.dtype} but must hold reflectance; to map a file, use geocfl.map_scene")
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
