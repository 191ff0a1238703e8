"""PyTorch, on a CPU or GPU."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.core.chunks import on_all_cores
from geocfl.core.lack import lacks_memory
from geocfl.core.numbers import Numbers, Pixels, known, reflectance
from geocfl.core.transfer import as_stored, send, to_reflectance
from geocfl.core.windows import cut, fill, sources
from geocfl.models.backends.base import Classified, Scores, classified, classify_windows, of_tile
from geocfl.models.backends.jobs import Tile, tiles
from geocfl.models.bundle import Bundle
from geocfl.models.devices import PRECISIONS, autocast, choose_device, fast_batch_size, has_fast_bfloat16
from geocfl.models.lite0 import SameConv2d
from geocfl.models.network import BackendNetwork

log = logging.getLogger("geocfl")


class DeviceStrip(NamedTuple):
    """A strip on the device.

    Attributes:
        strip: (B, h, w) float32 reflectance on the device, NaN is no data.
        known: (h, w) bool on the host, which pixels have data; None if all have, or on a CPU.
    """

    strip: Tensor
    known: NDArray[np.bool_] | None


class TorchBackend:
    """A `geocfl.models.backends.base.Backend`; on CUDA, copies and computation overlap.

    Args:
        bundle: The model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` is float16 on CUDA, bfloat16 on processors that support it, else float32.
        batch_size: Windows per batch; by default what is fast on the device.
        threads: CPU cores to use in this whole process; torch's own choice by default.
        features: Whether to give features too.

    Raises:
        UsageError: The device is not available, or is a CPU and the precision float16.
        ModelError: The weights cannot be read.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        *,
        features: bool = False,
    ) -> None:
        self.device = choose_device(device)
        if precision == "auto":
            precision = (
                "float16" if self.device.type == "cuda" else "bfloat16" if has_fast_bfloat16(self.device) else "float32"
            )
        autocast(self.device, precision)  # raises before the weights are read
        self.precision = precision
        self.batch_size = batch_size or fast_batch_size(self.device) // bundle.tta
        self._bundle = bundle
        if threads:
            torch.set_num_threads(threads)
        self._features = features
        self._network = BackendNetwork(bundle).to(self.device).to(memory_format=torch.channels_last)
        if precision != "float32":
            _convert_weights(self._network, PRECISIONS[precision])
        self._halved = False
        self._pads = on_cuda = self.device.type == "cuda"
        self._on_host = self.device.type == "cpu"
        self.takes_numbers = on_cuda
        self._copying = torch.cuda.Stream(self.device) if on_cuda else None

    def __repr__(self) -> str:
        return f"{self._bundle.name} on {self.device} in {self.precision} through torch {torch.__version__}"

    @torch.inference_mode()
    def place(self, pixels: Pixels) -> DeviceStrip:
        """Copies the strip to the device once, however much its windows overlap; numbers become reflectance there."""
        if self._on_host:
            return DeviceStrip(torch.from_numpy(reflectance(pixels)), None)  # no copy
        has_data = known(pixels)
        gapped = None if has_data.all() else has_data
        with nullcontext() if self._copying is None else torch.cuda.stream(self._copying):
            strip = self._sent(pixels)
        if self._copying is not None:
            self._copying.synchronize()  # the reading thread may wait here; the classifying thread does not
        return DeviceStrip(strip, gapped)

    def _sent(self, pixels: Pixels) -> Tensor:
        """(B, h, w) reflectance on the device, to the same bits as on the host; NaN is no data."""
        if not isinstance(pixels, Numbers):
            return send(torch.from_numpy(pixels), self.device)
        *bands, missing = send(as_stored(pixels.planes), self.device)
        strip = torch.stack([to_reflectance(*band) for band in zip(bands, pixels.scaling, strict=True)])
        return strip.masked_fill_(missing != 0, torch.nan)

    @torch.inference_mode()
    def classify(
        self, placed: DeviceStrip, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
    ) -> Iterator[Classified]:
        """See `geocfl.models.backends.base.Backend`."""
        waiting: deque[Callable[[], Classified]] = deque()
        for job in self._jobs(placed, rows, columns, stride):
            waiting.append(job)
            # A GPU computes this batch while the caller processes the previous one.
            if self.device.type == "cpu" or len(waiting) > 1:
                yield waiting.popleft()()
        for arrived in waiting:
            yield arrived()

    @torch.inference_mode()
    def classify_windows(self, windows: NDArray[np.float32]) -> Iterator[Classified]:
        """See `geocfl.models.backends.base.Backend`."""
        yield from classify_windows(self._run, self._bundle, windows, self.batch_size)

    def _run(self, inputs: Iterator[NDArray[np.float32]]) -> Iterator[Scores]:
        for pixels in inputs:
            windows = torch.from_numpy(pixels)
            parts = self._batches(len(pixels), lambda part, windows=windows: windows[part].to(self.device))  # type: ignore[misc]
            yield _joined([scores(part.stop - part.start) for part, scores in parts])

    def _jobs(
        self, placed: DeviceStrip, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
    ) -> Iterator[Callable[[], Classified]]:
        """Starts one batch or tile after the other; each result waits for its copy to the host."""
        if not self._bundle.feature_stride:
            for part, scores in self._batches(len(rows), self._cutter(placed, rows, columns, stride)):
                yield partial(self._windows, scores, part)
            return
        height, width = placed.strip.shape[1:]
        parts = list(tiles(rows, columns, stride, self._bundle, (height, width)))
        for tile, pixels in zip(parts, self._tiles(placed, parts), strict=True):
            yield partial(self._tile, self._start(pixels), tile)

    def _batches(
        self, count: int, windows: Callable[[slice], Tensor]
    ) -> Iterator[tuple[slice, Callable[[int], Scores]]]:
        """Starts one batch after the other, smaller ones after one for which the device lacked memory."""
        start = 0
        while start < count:
            part = slice(start, min(start + self.batch_size, count))
            try:
                scores = self._start(self._padded(windows(part)))
            except RuntimeError as error:
                if self.batch_size == 1 or not lacks_memory(error):
                    raise
                self._halve()
                continue
            yield part, scores
            start = part.stop

    def _halve(self) -> None:
        """Halves the batches from now on, and says so once."""
        if not self._halved:
            log.warning(
                "%s lacks memory for batches of %d windows, so they are halved; a smaller `batch_size` avoids this",
                self.device,
                self.batch_size,
            )
        self._halved, self.batch_size = True, self.batch_size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _windows(self, scores: Callable[[int], Scores], part: slice) -> Classified:
        return classified(scores(part.stop - part.start), self._bundle, part)

    def _padded(self, windows: Tensor) -> Tensor:
        """A batch of full size on CUDA, which plans each size anew; results of added windows are dropped."""
        lacking = self.batch_size - len(windows)
        if not self._pads or lacking <= 0:
            return windows
        return torch.cat([windows, windows[:1].expand(lacking, -1, -1, -1)])

    def _tile(self, scores: Callable[[int], Scores], tile: Tile) -> Classified:
        return of_tile(scores(1), tile.windows, 0, tile.row, tile.column, self._bundle)

    def _start(self, pixels: Tensor) -> Callable[[int], Scores]:
        """Starts to classify a batch. The returned function waits for its first n results, not for later work."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            logits, *others = self._network.read(pixels, features=self._features)
        probability = self._fetch(torch.softmax(logits.float() / self._bundle.temperature, dim=-1))
        rest = [None if other is None else self._fetch(other.float()) for other in others]

        def arrived(count: int) -> Scores:
            return Scores(probability()[:count], *(None if fetch is None else fetch()[:count] for fetch in rest))

        return arrived

    def _fetch(self, result: Tensor) -> Callable[[], NDArray[np.float32]]:
        """Starts to copy a result to the host. The returned function waits for this copy only, not for later work."""
        if self.device.type != "cuda":
            return lambda: result.cpu().numpy()
        host = torch.empty(result.shape, pin_memory=True)
        host.copy_(result, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def arrived() -> NDArray[np.float32]:
            copied.synchronize()
            return host.numpy()

        return arrived

    def _tiles(self, placed: DeviceStrip, parts: Sequence[Tile]) -> Iterator[Tensor]:
        """(1, B, height, width) pixels of tiles, cut on the device, with missing pixels filled."""
        if self._on_host:
            for tile in parts:
                yield torch.from_numpy(fill(placed.strip.numpy()[None, :, tile.rows, tile.columns].copy()))
            return
        masks = [None if placed.known is None else placed.known[tile.rows, tile.columns] for tile in parts]
        gapped = [mask for mask in masks if mask is not None and not mask.all()]
        found = on_all_cores(sources, gapped)
        for tile, mask in zip(parts, masks, strict=True):
            pixels = placed.strip[None, :, tile.rows, tile.columns]
            yield pixels if mask is None or mask.all() else _filled(pixels, [next(found)])

    def _cutter(
        self, placed: DeviceStrip, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
    ) -> Callable[[slice], Tensor]:
        """Cuts (n, B, window, window) windows of a slice of the cells, with missing pixels filled."""
        side, top, left = self._bundle.window, rows * stride, columns * stride
        if self._on_host:
            pixels = placed.strip.numpy()
            return lambda part: torch.from_numpy(fill(cut(pixels, side, top[part], left[part])))
        # Sent once: a copy in every batch would wait until the device has finished the batch before.
        y, x = send(torch.from_numpy(np.stack([top, left])), self.device)
        unfolded = placed.strip.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
        if placed.known is None:
            return lambda part: unfolded[y[part], x[part]]
        missing = torch.isnan(placed.strip[:1]).float()
        gapped = F.max_pool2d(missing, side, stride)[0].cpu().numpy()[rows, columns] > 0
        masks = placed.known[None]

        def filled(part: slice) -> Tensor:
            windows = unfolded[y[part], x[part]]
            if not (gaps := np.flatnonzero(gapped[part])).size:
                return windows
            has_data = cut(masks, side, top[part][gaps], left[part][gaps])[:, 0]
            chosen = send(torch.from_numpy(gaps), self.device)
            windows[chosen] = _filled(windows[chosen], list(on_all_cores(sources, has_data)))
            return windows

        return filled


def _convert_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Converts the weights that autocast would otherwise convert in every batch; the results stay the same."""
    for layer in network.modules():
        # Not in subclasses: other layers may compute something of their weights first.
        if type(layer) in (nn.Conv2d, nn.Linear, SameConv2d):
            layer.to(dtype)


def _filled(windows: Tensor, found: Sequence[NDArray[np.intp]]) -> Tensor:
    """(n, B, H, W) windows whose pixels are taken from these `sources`."""
    indices = send(torch.from_numpy(np.stack(found).astype(np.int32)), windows.device).long()
    return windows.flatten(2).gather(2, indices[:, None].expand(-1, windows.shape[1], -1)).view_as(windows)


def _joined(parts: list[Scores]) -> Scores:
    """The scores of consecutive parts of a batch."""
    columns = zip(*parts, strict=True)
    return Scores(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]
