"""Random changes of training patches: geometry and radiometry, drawn separately for every patch of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Fitted on the reflectance of one pair of products: surface = gain * L1C + offset. Other bands are only jittered.
SURFACE_FIT = {"B04": (1.15, -0.028), "B03": (1.27, -0.053), "B02": (1.26, -0.090)}


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a patch; a field that is 0 turns that change off.

    Attributes:
        rotation: Largest rotation in either direction, degrees.
        zoom: Largest relative change of scale; 0.2 draws from 1/1.2..1.2 on a log scale.
        shift: Largest shift in either direction along x and y, as a fraction of the patch.
        dihedral: Draw one of the square's eight symmetries: quarter turns and reflections.
        surface: Probability of a change from top-of-atmosphere toward surface reflectance (`SURFACE_FIT`), by a
            factor of 0..1.25 per patch. It makes a model trained on L1C work on L2A scenes.
        gain: Standard deviation of the log gain per patch, and half of it per band.
        haze: Standard deviation of an added reflectance per patch, and half of it per band.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    dihedral: bool = False
    surface: float = 0.0
    gain: float = 0.0
    haze: float = 0.0

    def __call__(self, reflectance: Tensor, bands: tuple[str, ...], size: int, rng: torch.Generator) -> Tensor:
        """Changes every patch at random.

        Args:
            reflectance: (N, B, H, W) float32.
            bands: Names of the B bands.
            size: Side of the result in pixels; rotation, zoom and resizing are one bilinear resampling.
            rng: Source of all random numbers.

        Returns:
            (N, B, size, size) float32 reflectance; pixels outside the patch are mirrored.
        """
        return self._geometry(self._radiometry(reflectance, bands, rng), size, rng)

    def _radiometry(self, x: Tensor, bands: tuple[str, ...], rng: torch.Generator) -> Tensor:
        n, b = x.shape[:2]
        fit = torch.tensor([SURFACE_FIT.get(band, (1.0, 0.0)) for band in bands])
        step = 1.25 * torch.rand(n, 1, generator=rng) * (torch.rand(n, 1, generator=rng) < self.surface)
        noise = torch.randn(2, n, 1, generator=rng) + 0.5 * torch.randn(2, n, b, generator=rng)
        gain = (1 + step * (fit[:, 0] - 1)) * torch.exp(self.gain * noise[0])
        offset = step * fit[:, 1] + self.haze * noise[1]
        return x * gain[..., None, None] + offset[..., None, None]

    def _geometry(self, x: Tensor, size: int, rng: torch.Generator) -> Tensor:
        n = len(x)
        angle, zoom, dx, dy = 2 * torch.rand(4, n, generator=rng) - 1
        angle = torch.deg2rad(self.rotation * angle)
        zoom = torch.exp(math.log1p(self.zoom) * zoom)
        mirror = torch.ones(n)
        if self.dihedral:
            mirror = 1.0 - 2.0 * torch.randint(2, (n,), generator=rng)
            angle = angle + math.pi / 2 * torch.randint(4, (n,), generator=rng)
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        shift = 2 * self.shift
        theta = torch.stack([cos * mirror, -sin, shift * dx, sin * mirror, cos, shift * dy], dim=1).view(n, 2, 3)
        grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
