"""The layers between reflectance and logits: clipping, resizing, normalization and the reading of windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geocfl.models.bundle import Bundle
from geocfl.models.novelty import Residual


class Reflectance(nn.Module):
    """A network that takes reflectance: it clips, resizes and normalizes its input.

    Args:
        network: From normalized (N, B, S, S) to (N, C) logits.
        clip: Lowest and highest reflectance.
        mean: B band means, reflectance.
        std: B band standard deviations, reflectance.
        input_size: S.
        tta: Number of rotations and flips whose logits are averaged, one of `geocfl.models.bundle.TTA`.
        residual: The novelty of features; None for a model without it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        clip: tuple[float, float],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        input_size: int,
        tta: int = 1,
        residual: Residual | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.residual = residual
        self.clip = clip
        self.input_size = input_size
        self.tta = tta
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def patch_size(self, _: int) -> int:
        """Side in pixels in which augmented patches are handed over."""
        return self.input_size

    def normalize(self, reflectance: Tensor) -> Tensor:
        """(N, B, S, S) input of the network from (N, B, H, W) reflectance; NaN (no data) becomes the band's mean."""
        x = torch.where(torch.isnan(reflectance), self.mean, reflectance)
        x = (x.clamp(*self.clip) - self.mean) / self.std
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size, self.input_size), mode="bilinear", align_corners=False)
        return x

    def forward(self, reflectance: Tensor) -> Tensor:
        """(N, C) logits of (N, B, H, W) reflectance, as those of `scores`."""
        if self.residual is not None and self.residual.damping:
            return self.scores(reflectance)[0]
        x = self.normalize(reflectance)
        logits: Tensor = self.network(x if self.tta == 1 else symmetries(x, self.tta))
        return logits if self.tta == 1 else logits.view(self.tta, -1, logits.shape[1]).mean(0)

    def scores(self, reflectance: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and novelty of windows from one pass of the network.

        Args:
            reflectance: (N, B, H, W).

        Returns:
            (N, C) logits and (N,) float32 residuals, averaged over rotations and flips; no residuals without novelty.
            The logits are damped where the residuals are large, if the model says so.
        """
        if self.residual is None:
            return self(reflectance), None
        return self.read(self.views(reflectance))

    def views(self, reflectance: Tensor) -> Sequence[Tensor]:
        """(N, D) pooled features of (N, B, H, W) reflectance in each rotation and flip."""
        x = self.normalize(reflectance)
        if self.tta == 1:
            return [self.pooled(x)]
        features = self.pooled(symmetries(x, self.tta))
        return features.view(self.tta, -1, features.shape[1]).unbind(0)

    def read(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Logits and novelty of windows from their features, as those of `scores`.

        Args:
            views: (..., D) features in each rotation and flip.

        Returns:
            (..., C) logits and (...) float32 residuals.
        """
        if len(views) == 1:
            return self.scores_of(views[0])
        logits = torch.stack([self.head(features) for features in views]).mean(0)
        if self.residual is None:
            return logits, None
        residuals = torch.stack([self.residual(features) for features in views]).mean(0)
        return self.residual.damp(logits, residuals), residuals

    def features(self, reflectance: Tensor) -> Tensor:
        """(N, D) pooled features, the input of the network's last layer, of (N, B, H, W) reflectance."""
        return self.pooled(self.normalize(reflectance))

    def pooled(self, x: Tensor) -> Tensor:
        """(N, D) pooled features of the network's input."""
        spatial = self.network.forward_features(x)  # type: ignore[operator]
        pooled: Tensor = self.network.forward_head(spatial, pre_logits=True)  # type: ignore[operator]
        return pooled

    def scores_of(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(..., C) logits and (...) float32 residuals, as those of `scores`, of (..., D) features."""
        logits: Tensor = self.head(features)
        if self.residual is None:
            return logits, None
        residuals = self.residual(features)
        return self.residual.damp(logits, residuals), residuals

    @property
    def head(self) -> nn.Module:
        """The network's last layer, from features to logits."""
        head: nn.Module = self.network.get_classifier()  # type: ignore[operator]
        return head


class DenseReflectance(Reflectance):
    """A network whose trunk runs over images of any size; a window's features are those that lie in it.

    Windows by themselves get the context that they need by mirroring their pixels.

    Args:
        network: As for `Reflectance`, with timm's ``forward_features`` and ``get_classifier``.
        bundle: The model; its `feature_stride` is that of the network.
        residual: As for `Reflectance`.
    """

    def __init__(self, network: nn.Module, bundle: Bundle, residual: Residual | None = None) -> None:
        super().__init__(network, bundle.clip, bundle.mean, bundle.std, bundle.input_size, bundle.tta, residual)
        self.scale = bundle.input_size / bundle.window
        self.cells = bundle.window // bundle.feature_stride
        self.context = bundle.context
        self.center = bundle.context // bundle.feature_stride

    def forward(self, reflectance: Tensor) -> Tensor:
        """(N, C) logits of (N, B, window, window) reflectance, averaged over its rotations and flips."""
        return self.scores(reflectance)[0]

    def scores(self, reflectance: Tensor) -> tuple[Tensor, Tensor | None]:
        """As for `Reflectance`; the windows are (N, B, window, window)."""
        logits, residuals = self.window_scores(self._with_context(reflectance))
        here = self.center
        return logits[:, here, here], None if residuals is None else residuals[:, here, here]

    def features(self, reflectance: Tensor) -> Tensor:
        """(N, D) pooled features of (N, B, window, window) reflectance."""
        return self.window_features(self._with_context(reflectance))[:, self.center, self.center]

    def _with_context(self, windows: Tensor) -> Tensor:
        return F.pad(windows, [self.context] * 4, mode="reflect")

    def patch_size(self, side: int) -> int:
        """Side in pixels in which augmented patches of `side` pixels are handed over."""
        return side

    def normalize(self, reflectance: Tensor) -> Tensor:
        """(N, B, scale * H, scale * W) input of the network from (N, B, H, W) reflectance; NaN becomes the mean."""
        x = torch.where(torch.isnan(reflectance), self.mean, reflectance)
        x = (x.clamp(*self.clip) - self.mean) / self.std
        return x if self.scale == 1 else F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)

    def window_features(self, image: Tensor, step: int = 1) -> Tensor:
        """Pooled features of the windows of images.

        Args:
            image: (N, B, H, W) reflectance, both sides multiples of the model's `feature_stride` s.
            step: Distance between windows in multiples of s.

        Returns:
            (N, rows, columns, D); the window (i, j) starts at pixel (i * step * s, j * step * s).
        """
        return self._windows(self.normalize(image), step)

    def window_scores(self, image: Tensor, step: int = 1) -> tuple[Tensor, Tensor | None]:
        """Logits and novelty of the windows of images from one pass of the network, or one for each rotation and flip.

        Args:
            image: As for `window_features`.
            step: As for `window_features`.

        Returns:
            (N, rows, columns, C) logits and (N, rows, columns) float32 residuals, as those of `scores`.
        """
        return self.read(self.window_views(image, step))

    def window_views(self, image: Tensor, step: int = 1) -> Sequence[Tensor]:
        """(N, rows, columns, D) features of the windows of images in each rotation and flip."""
        x = self.normalize(image)
        return [self._windows(x, step, view) for view in range(self.tta)]  # they differ in shape: not one batch

    def _windows(self, x: Tensor, step: int, view: int = 0) -> Tensor:
        """(N, rows, columns, D) features of the windows of the network's input, seen in one of its symmetries."""
        spatial = unturned(self.network.forward_features(turned(x, view)), view)  # type: ignore[operator]
        pooled: Tensor = F.avg_pool2d(spatial, self.cells, step).movedim(1, -1)
        return pooled

    def patch_features(self, mosaics: Tensor) -> Tensor:
        """(M * n, D) features of the n windows that tile each of M mosaics (M, B, H, W), row by row."""
        return self.window_features(mosaics, self.cells).flatten(0, 2)

    def patches_of(self, mosaics: Tensor) -> Tensor:
        """(M * n, C) logits of the windows of `patch_features`; with dropout in training."""
        rate = float(self.network.drop_rate)  # type: ignore[arg-type]
        return self.scores_of(F.dropout(self.patch_features(mosaics), rate, self.training))[0]


def symmetries(x: Tensor, count: int) -> Tensor:
    """(count * N, B, S, S) from (N, B, S, S): as it is, rotated by 90, 180 and 270 degrees, then all four mirrored."""
    return torch.cat([turned(x, n) for n in range(count)])


def turned(x: Tensor, n: int) -> Tensor:
    """(N, B, H, W) images in symmetry n of a square's eight: n quarter turns, of the mirrored images from n = 4 on."""
    return torch.rot90(x if n < 4 else x.flip(3), n % 4, (2, 3))


def unturned(x: Tensor, n: int) -> Tensor:
    """The inverse of `turned`."""
    x = torch.rot90(x, -(n % 4), (2, 3))
    return x if n < 4 else x.flip(3)
