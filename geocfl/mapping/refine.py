"""Refines a classified map: interpolates cells that were not classified, and smooths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocfl.core.grid import CellGrid
from geocfl.core.legend import NODATA
from geocfl.errors import UsageError, unknown_name
from geocfl.mapping.encode import Decision
from geocfl.mapping.interpolate import INTERPOLATION_REACH, interpolate
from geocfl.mapping.settings import MapSettings
from geocfl.mapping.smooth import smooth, smoothing_reach
from geocfl.models.bundle import Bundle
from geocfl.products.scratch import NO_CONFIDENCE, write_header

BLOCK_VALUES = 1_000_000
"""Probabilities in a block of rows: a few tens of megabytes with what is computed from them."""


@dataclass(frozen=True)
class Refinement:
    """What happens to cells between their classification and the products.

    Attributes:
        interpolate: Whether only some cells were classified and the others are interpolated.
        smooth: Whether to smooth.
        keep: Codes of classes whose cells are not smoothed.
    """

    interpolate: bool = False
    smooth: bool = False
    keep: tuple[int, ...] = ()

    @classmethod
    def of(cls, settings: MapSettings, model: Bundle) -> Refinement:
        """The refinement that the settings of a map ask for.

        Raises:
            UsageError: It is impossible with this model or stride, or a class is unknown.
        """
        stride, window = settings.stride, model.window
        if settings.interpolate and model.feature_stride:
            raise UsageError(
                f"`interpolate` is for models that classify window by window, but {model.name} gives fine cells at no "
                "extra cost; leave it out"
            )
        if settings.interpolate and 2 * stride > window:
            raise UsageError(
                f"`interpolate` needs a `stride` of at most {window // 2} px, half of the model's window; use such a "
                "stride, or leave it out"
            )
        if settings.smooth and stride >= window:
            raise UsageError(
                f"`smooth` needs windows that overlap; use a `stride` of less than the model's window, {window} px"
            )
        codes = {name: c.code for c in model.legend for name in (c.name, c.folder)}
        for name in settings.smooth_keep:
            if name not in codes:
                raise UsageError(f"`smooth_keep`: {unknown_name('class', name, model.legend.names)}")
        return cls(settings.interpolate, settings.smooth, tuple(codes[name] for name in settings.smooth_keep))

    def __bool__(self) -> bool:
        """Whether anything happens."""
        return self.interpolate or self.smooth

    def apply(
        self, cells: Path, refined: Path, grid: CellGrid, decision: Decision, *, block_values: int = BLOCK_VALUES
    ) -> None:
        """Refines a map, in blocks of rows that overlap by what a cell depends on, so that their height does not show.

        Args:
            cells: Work raster with logits; not modified.
            refined: Work raster to write, without logits.
            grid: Where the cells lie.
            decision: Wrote the cells, and decides the new ones.
            block_values: Probabilities in memory at a time.
        """
        reach = smoothing_reach(grid.stride, grid.window) if self.smooth else 0
        reach += INTERPOLATION_REACH if self.interpolate else 0
        step = max(1, block_values // (grid.columns * decision.classes))
        final = replace(decision, logits=False)
        row_bytes = len(decision.bands) * grid.columns
        with cells.open("rb") as source, refined.open("wb") as target:
            for first in range(0, grid.rows, step):
                last = min(first + step, grid.rows)
                top, bottom = max(0, first - reach) // 2 * 2, min(grid.rows, last + reach)  # interpolation starts even
                source.seek(top * row_bytes)
                held = np.frombuffer(source.read((bottom - top) * row_bytes), np.uint8)
                held = held.reshape(-1, len(decision.bands), grid.columns)
                own = slice(first - top, last - top)
                valid = held[:, 0] != NODATA
                logits, novelty = decision.logits_of(held), decision.novelty_of(held)
                if self.interpolate:
                    logits, novelty = interpolate(logits), interpolate(novelty)
                probability = self._probability(logits, valid, grid)[own][valid[own]]
                unlike = novelty[own][valid[own]][:, 0] if decision.novelty else None
                result = np.full((len(final.bands), last - first, grid.columns), NO_CONFIDENCE, np.uint8)
                result[0] = NODATA
                features = decision.features_of(held)[own][valid[own]] if decision.projection else None
                shares = decision.valid_of(held[own])
                shares = None if shares is None else shares[valid[own]]
                result[:, valid[own]] = final.of(probability, unlike, features, shares)
                target.write(result.transpose(1, 0, 2).tobytes())
        write_header(refined, grid.rows, grid.columns, final.bands)

    def _probability(
        self, logits: NDArray[np.float32], valid: NDArray[np.bool_], grid: CellGrid
    ) -> NDArray[np.float32]:
        """(rows, columns, classes) probabilities of a block, smoothed if so wanted."""
        probability = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probability /= probability.sum(axis=-1, keepdims=True)
        return smooth(probability, valid, grid.stride, grid.window, keep=self.keep) if self.smooth else probability
