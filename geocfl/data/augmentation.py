"""Random changes of training patches: geometry, radiometry and sharpness, drawn separately for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geocfl.core.transfer import send

# Fitted on the reflectance of one pair of products: surface = gain * L1C + offset. Other bands are only jittered.
SURFACE_FIT = {"B04": (1.15, -0.028), "B03": (1.27, -0.053), "B02": (1.26, -0.090)}
WAVELENGTHS = {
    **{"B01": 443, "B02": 490, "B03": 560, "B04": 665, "B05": 705, "B06": 740, "B07": 783, "B08": 842},
    **{"B8A": 865, "B09": 945, "B10": 1375, "B11": 1610, "B12": 2190},
}
"""Central wavelengths of Sentinel-2's bands, nm."""
AIRLIGHT = (0.06, 0.16)
"""Range of the reflectance of a deep layer of haze in red (665 nm)."""
ANGSTROM = (0.5, 2.5)
"""Range of the exponent with which haze grows brighter toward blue: 4 is pure Rayleigh scattering, 0 is cloud."""
SHARPEST = 0.3
"""Smallest blur in pixels, which leaves an image almost as it is."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a patch; a field that is 0 turns that change off.

    All random numbers are drawn on the CPU; the pixels are changed on the device where they lie.

    Attributes:
        rotation: Largest rotation in either direction, degrees.
        zoom: Largest relative change of scale; 0.2 draws from 1/1.2..1.2 on a log scale.
        shift: Largest shift in either direction along x and y, as a fraction of the patch.
        dihedral: Draw one of the square's eight symmetries: quarter turns and reflections.
        surface: Probability of a change from top-of-atmosphere toward surface reflectance (`SURFACE_FIT`), by a
            factor of 0..1.25 per patch. It makes a model trained on L1C work on L2A scenes.
        gain: Standard deviation of the log gain per patch, and half of it per band.
        haze: Standard deviation of an added reflectance per patch, and half of it per band.
        veil: Largest share of light that haze takes from the ground and replaces with its own, 0..1. Half of the images
            get a veil. It makes a model work under a low sun and in haze, where contrast is low and all is bluish.
        flatten: Largest share by which the contrast within a patch is lowered, 0..1. Half of the patches are flattened.
            Color then counts as well as texture.
        blur: Largest standard deviation of a Gaussian blur in pixels. Half of the images are blurred. It makes a model
            work on resampled scenes and on those of 20 m.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    dihedral: bool = False
    surface: float = 0.0
    gain: float = 0.0
    haze: float = 0.0
    veil: float = 0.0
    flatten: float = 0.0
    blur: float = 0.0

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
        x = self.flattened(reflectance, rng) if self.flatten else reflectance
        x = self.blurred(x, rng) if self.blur else x
        return self.geometry(self.radiometry(x, bands, rng), size, rng)

    def radiometry(self, x: Tensor, bands: tuple[str, ...], rng: torch.Generator) -> Tensor:
        """(N, B, H, W) reflectance under N other atmospheres, each the same for all pixels of an image."""
        n, b = x.shape[:2]
        fit = torch.tensor([SURFACE_FIT.get(band, (1.0, 0.0)) for band in bands])
        step = 1.25 * torch.rand(n, 1, generator=rng) * (torch.rand(n, 1, generator=rng) < self.surface)
        noise = torch.randn(2, n, 1, generator=rng) + 0.5 * torch.randn(2, n, b, generator=rng)
        gain = (1 + step * (fit[:, 0] - 1)) * torch.exp(self.gain * noise[0])
        offset = step * fit[:, 1] + self.haze * noise[1]
        x = x * send(gain[..., None, None], x.device) + send(offset[..., None, None], x.device)
        return self._veiled(x, bands, rng) if self.veil else x

    def _veiled(self, x: Tensor, bands: tuple[str, ...], rng: torch.Generator) -> Tensor:
        """Images seen through haze: t * x + (1 - t) * airlight (Koschmieder's law)."""
        n = len(x)
        low, high = AIRLIGHT
        red = low + (high - low) * torch.rand(n, 1, generator=rng)
        exponent = ANGSTROM[0] + (ANGSTROM[1] - ANGSTROM[0]) * torch.rand(n, 1, generator=rng)
        airlight = red * torch.tensor([WAVELENGTHS["B04"] / WAVELENGTHS.get(band, 665) for band in bands]) ** exponent
        lost = (self.veil * torch.rand(n, generator=rng) * (torch.rand(n, generator=rng) < 0.5))[:, None, None, None]
        return send(1 - lost, x.device) * x + send(lost * airlight[..., None, None], x.device)

    def flattened(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """(N, B, H, W) patches of less contrast; the mean of each band stays."""
        n = len(x)
        lost = (self.flatten * torch.rand(n, generator=rng) * (torch.rand(n, generator=rng) < 0.5))[:, None, None, None]
        return x + send(lost, x.device) * (x.mean((2, 3), keepdim=True) - x)

    def blurred(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """(N, B, H, W) images, half of them blurred."""
        sigmas = SHARPEST + (self.blur - SHARPEST) * torch.rand(len(x), generator=rng)
        chosen = torch.rand(len(x), generator=rng) < 0.5
        return torch.stack(
            [
                gaussian_blur(image, sigma) if blur else image
                for image, sigma, blur in zip(x, sigmas.tolist(), chosen.tolist(), strict=True)
            ]
        )

    def geometry(self, x: Tensor, size: int, rng: torch.Generator, mode: str = "bilinear", extent: int = 1) -> Tensor:
        """Rotates, zooms, shifts and mirrors patches in one resampling.

        Args:
            x: (N, B, H, W).
            size: Side of the result in pixels.
            rng: Source of all random numbers.
            mode: ``"bilinear"`` or ``"bicubic"``.
            extent: How many patches wide the result is. If above 1, it is a cutout at a random place of the patch
                repeated in all directions, each time mirrored.

        Returns:
            (N, B, size, size).
        """
        n = len(x)
        angle, zoom, dx, dy = 2 * torch.rand(4, n, generator=rng) - 1
        angle = torch.deg2rad(self.rotation * angle)
        zoom = torch.exp(math.log1p(self.zoom) * zoom)
        mirror = torch.ones(n)
        if self.dihedral:
            mirror = 1.0 - 2.0 * torch.randint(2, (n,), generator=rng)
            angle = angle + math.pi / 2 * torch.randint(4, (n,), generator=rng)
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        shift = 2 * self.shift if extent == 1 else 1.0
        cos, sin = extent * cos, extent * sin
        theta = torch.stack([cos * mirror, -sin, shift * dx, sin * mirror, cos, shift * dy], dim=1).view(n, 2, 3)
        grid = F.affine_grid(send(theta, x.device), [n, 1, size, size], align_corners=False)
        return F.grid_sample(x, grid, mode=mode, padding_mode="reflection", align_corners=False)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """(..., H, W) images convolved with a Gaussian of standard deviation `sigma` pixels, mirrored at their edges."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = send(kernel / kernel.sum(), x.device)
    flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), [radius] * 4, mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.reshape(x.shape)
