"""The principal components that features of cells are given in: the same for all scenes of a model."""

from __future__ import annotations

import hashlib
import io
import logging
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from geocfl._version import __version__
from geocfl.core.files import cache_folder, write_whole
from geocfl.errors import ModelError, UsageError
from geocfl.models.bundle import NOVELTY, WEIGHTS, Bundle

log = logging.getLogger("geocfl")

COMPONENTS = 64
"""Principal components of a cell."""
TEXTURES = 512
"""Synthetic windows that give the components of a model without novelty."""
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Projection:
    """Principal components of a network's features.

    Attributes:
        mean: (D,) float32 mean of the features.
        components: (`COMPONENTS`, D) float32 principal components, orthonormal rows by falling variance; rows of zeros
            where there are fewer.
        source: ``"training patches"`` or ``"synthetic textures"``: whose features they are the components of.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    source: str

    def of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, `COMPONENTS` + 1) components of (n, D) features, and the length of the part that these leave out."""
        centered = features - self.mean
        inside = centered @ self.components.T
        squares = np.square(centered).sum(axis=1) - np.square(inside).sum(axis=1)
        return np.column_stack([inside, np.sqrt(squares.clip(0))])


def projection_of(bundle: Bundle) -> Projection:
    """The principal components of a model. They depend on nothing but its bundle.

    Those of a model with novelty are in its bundle, and are those of its training patches. For another model, they are
    computed from `TEXTURES` synthetic windows with the mean and standard deviation of the bundle's bands, once, and
    kept in the user's cache.

    Raises:
        ModelError: The weights cannot be read.
        UsageError: The network gives no features for its last layer.
    """
    if bundle.novelty:
        file = bundle.folder / WEIGHTS
        try:
            with safe_open(file, "np") as stored:
                mean, components = (stored.get_tensor(NOVELTY + name) for name in ("mean", "components"))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: has no components of novelty; restore the file") from error
        return _projection(mean, components, "training patches")
    digest = hashlib.sha256(bundle.digest().encode()).hexdigest()[:32]
    cached = cache_folder() / "projection" / f"{digest}-{__version__}.npz"
    with suppress(OSError, ValueError, KeyError), np.load(cached) as known:
        return _projection(known["mean"], known["components"], "synthetic textures")
    mean, components = _of_textures(bundle)
    content = io.BytesIO()
    np.savez(content, mean=mean, components=components)
    with suppress(OSError):  # computed again next time
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cached, content.getvalue())
    return _projection(mean, components, "synthetic textures")


def _projection(mean: NDArray[np.floating], components: NDArray[np.floating], source: str) -> Projection:
    kept = np.zeros((COMPONENTS, len(mean)), np.float32)
    kept[: len(components)] = components[:COMPONENTS]
    return Projection(mean.astype(np.float32), kept, source)


def _of_textures(bundle: Bundle) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Mean and components of the features of synthetic windows, each component with its largest entry positive."""
    import torch

    from geocfl.models.backbones import has_features
    from geocfl.models.network import load_network

    network = load_network(bundle)
    refusal = UsageError(
        f"`products` asks for features, but the network of the model {bundle.name} gives none for its last layer; "
        "leave it out, or use another `model`"
    )
    if not has_features(network.network) or not isinstance(network.head, torch.nn.Module):
        raise refusal
    log.info("%s: computing the principal components of its features, once", bundle.name)
    found = []
    with torch.inference_mode():
        for start in range(0, TEXTURES, _BATCH):
            windows = torch.from_numpy(textures(bundle, _BATCH, seed=start))
            features = network.features(windows)
            if not start and not bundle.feature_stride:
                logits = network.network(network.normalize(windows))
                if features.ndim != 2 or not torch.allclose(network.head(features), logits, rtol=1e-2, atol=1e-2):
                    raise refusal
            found.append(features.double().numpy())
    every = np.concatenate(found)
    mean = every.mean(axis=0)
    _, _, rows = np.linalg.svd(every - mean, full_matrices=False)
    rows = rows[:COMPONENTS]
    rows *= np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1))
    return mean.astype(np.float16), rows.astype(np.float16)


def textures(bundle: Bundle, count: int, *, seed: int = 0) -> NDArray[np.float32]:
    """(count, B, window, window) synthetic reflectance with the mean and standard deviation of a model's bands.

    Each window is a sum of noise of all scales, from whole windows to pixels, with its own fall of the amplitudes with
    the frequency and its own correlation of the bands.
    """
    rng = np.random.default_rng(seed)
    side, bands = bundle.window, len(bundle.bands)
    slope, shared = rng.uniform(0.3, 1.5, count), rng.uniform(0, 1, (count, 1, 1, 1))
    total, power = np.zeros((count, bands, side, side)), np.zeros(count)
    for octave in range(side.bit_length()):
        cells = min(2**octave, side)
        common, own = rng.normal(size=(count, 1, cells, cells)), rng.normal(size=(count, bands, cells, cells))
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        place = np.arange(side) * cells // side
        amplitude = cells**-slope
        total += amplitude[:, None, None, None] * noise[:, :, place][..., place]
        power += amplitude**2
    total /= np.sqrt(power)[:, None, None, None]
    mean, std = (np.array(values)[:, None, None] for values in (bundle.mean, bundle.std))
    return (mean + std * total).clip(*bundle.clip).astype(np.float32)
