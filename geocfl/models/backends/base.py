"""The interface of the back ends, and what they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from geocfl.core.numbers import Pixels
from geocfl.core.windows import cut, fill
from geocfl.errors import ModelError
from geocfl.models.backends.jobs import batches, tile_rows, tiles
from geocfl.models.bundle import Bundle

BACKENDS = ("auto", "openvino", "onnx", "torch")
"""Those after ``auto`` in order of their speed on a CPU; ``auto`` takes the first one that is installed."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CPU_BATCH_SIZE = 32
"""Windows per batch on a CPU; see `geocfl.models.devices.fast_batch_size`, which imports torch."""


class Scores(NamedTuple):
    """What a network gives for a batch.

    Attributes:
        probabilities: (n, classes) or, for a dense model's tile, (1, rows, columns, classes), calibrated.
        residuals: The same shape without the last axis; None for a model without novelty.
        features: (n, D) or (1, rows, columns, D) pooled features; None unless they are asked for.
    """

    probabilities: NDArray[np.float32]
    residuals: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None


Run = Callable[[Iterator[NDArray[np.float32]]], Iterator[Scores]]
"""Runs a network on one input after the other: (n, B, window, window) windows, or a tile (1, B, height, width)."""


class Classified(NamedTuple):
    """The results of some windows.

    Attributes:
        probabilities: (m, classes) float32, calibrated.
        novelty: (m,) float32, how unlike the training patches each window is: its percentile among validation patches,
            0..100. None for a model without novelty.
        windows: Which of the windows they are: a slice, or (m,) indices.
        features: (m, D) float32 pooled features, the input of the network's last layer; None unless they are asked for.
    """

    probabilities: NDArray[np.float32]
    novelty: NDArray[np.float32] | None
    windows: slice | NDArray[np.int64]
    features: NDArray[np.float32] | None = None


class Backend(Protocol):
    """A model that is ready to classify windows.

    Attributes:
        batch_size: Windows per batch; a dense model has a tile per batch.
        precision: Precision that it computes in, one of `PRECISIONS` except ``auto``.
        takes_numbers: Whether its device computes reflectance from digital numbers. Others need reflectance.
    """

    batch_size: int
    precision: str
    takes_numbers: bool

    def place(self, pixels: Pixels) -> Any:
        """Moves pixels to the device; called in the reading thread."""
        ...

    def classify(
        self, placed: Any, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
    ) -> Iterator[Classified]:
        """Classifies the windows of cells, batch after batch.

        Args:
            placed: From `place`. The footprint of cell (k, j) starts at pixel (k * stride, j * stride).
            rows: (n,) rows of the cells.
            columns: (n,) columns of the cells.
            stride: Side of a cell in pixels.

        Yields:
            The results of some windows; each window occurs once, in any order.
        """
        ...

    def classify_windows(self, windows: NDArray[np.float32]) -> Iterator[Classified]:
        """Classifies separate windows (n, B, window, window), batch after batch, in their order.

        A dense model sees each of them mirrored about its edges.
        """
        ...


def classify_windows(run: Run, bundle: Bundle, windows: NDArray[np.float32], batch_size: int) -> Iterator[Classified]:
    """Classifies separate windows; the arguments are those of `Backend.classify_windows` and `classify`."""
    chosen, margin = list(batches(len(windows), batch_size)), bundle.context
    around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    inputs = (np.pad(fill(windows[part].copy()), around, mode="reflect") for part in chosen)
    for part, scores in zip(chosen, run(inputs), strict=True):
        if bundle.feature_stride:
            here = np.full(part.stop - part.start, margin // bundle.feature_stride)
            yield of_tile(scores, part, np.arange(len(here)), here, here, bundle)
        else:
            yield classified(scores, bundle, part)


def classify(
    run: Run,
    bundle: Bundle,
    pixels: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    stride: int,
    batch_size: int,
) -> Iterator[Classified]:
    """Classifies windows of pixels in the host's memory; the arguments are those of `Backend.classify`.

    Args:
        run: The network.
        bundle: Its model.
        pixels: (B, h, w) float32 reflectance, NaN is no data.
        rows: (n,) rows of the cells.
        columns: (n,) columns of the cells.
        stride: Side of a cell in pixels.
        batch_size: Windows per batch.
    """
    if bundle.feature_stride:
        parts = list(tiles(rows, columns, stride, bundle, pixels.shape[1:]))
        inputs = (fill(pixels[None, :, tile.rows, tile.columns].copy()) for tile in parts)
        for tile, scores in zip(parts, run(inputs), strict=True):
            yield of_tile(scores, tile.windows, 0, tile.row, tile.column, bundle)
    else:
        chosen = list(batches(len(rows), batch_size))
        inputs = (fill(cut(pixels, bundle.window, rows[part] * stride, columns[part] * stride)) for part in chosen)
        for part, scores in zip(chosen, run(inputs), strict=True):
            yield classified(scores, bundle, part)


def of_tile(
    scores: Scores,
    windows: slice | NDArray[np.int64],
    tile: int | NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    bundle: Bundle,
) -> Classified:
    """Some windows, read from a dense model's output by their tile in the batch, row and column."""
    read = (None if values is None else values[tile, row, column] for values in scores)
    return classified(Scores(*read), bundle, windows)  # type: ignore[arg-type]


def classified(scores: Scores, bundle: Bundle, windows: slice | NDArray[np.int64]) -> Classified:
    """The results of some windows from what the network gives for them.

    Raises:
        ModelError: The network gives another number of classes, or numbers that are not finite, as one with huge
            weights does in half precision.
    """
    if scores.probabilities.shape[-1] != len(bundle.legend):
        raise ModelError(f"{bundle.folder}: the network does not give {len(bundle.legend)} classes; restore its files")
    if not all(values is None or np.isfinite(values).all() for values in scores):
        raise ModelError(
            f"{bundle.folder}: this model gives numbers that are not finite; use `precision=float32`, or another "
            "`model`"
        )
    return Classified(scores.probabilities, percentile(scores.residuals, bundle), windows, scores.features)


def percentile(residuals: NDArray[np.float32] | None, bundle: Bundle) -> NDArray[np.float32] | None:
    """Residuals as percentiles of the validation patches' residuals, 0..100."""
    if residuals is None:
        return None
    return np.interp(residuals, bundle.novelty, np.linspace(0, 100, len(bundle.novelty))).astype(np.float32)


def measure_rate(backend: Backend, bundle: Bundle, seconds: float = 0.5) -> float:
    """Windows per second on noise, after one batch to warm up; for a dense model, areas of a window in two tiles.

    Args:
        backend: The back end.
        bundle: Its model.
        seconds: Minimum duration of the measurement.
    """
    window, side = bundle.window, tile_rows(bundle.window)
    # Some back ends compute several batches at once.
    down, across = (side, 2 * side) if bundle.feature_stride else (1, 4 * backend.batch_size)
    shape = (len(bundle.bands), *(count * window + bundle.footprint - window for count in (down, across)))
    noise = np.random.default_rng(0).uniform(*bundle.clip, shape).astype(np.float32)
    placed, rows, columns = backend.place(noise), *np.indices((down, across)).reshape(2, -1)

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in backend.classify(placed, rows[:count], columns[:count], window):
            pass
        return time.perf_counter() - started

    if not bundle.feature_stride:  # two tiles take so long that a start hardly counts
        run(backend.batch_size)
    times = [run(len(rows))]
    while sum(times) < seconds:
        times.append(run(len(rows)))
    return float(len(rows) / np.median(times))
