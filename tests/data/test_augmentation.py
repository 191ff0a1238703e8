from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from geocfl.data.augmentation import AIRLIGHT, ANGSTROM, SURFACE_FIT, Augmentation, gaussian_blur
from geocfl.data.patches import EUROSAT_BANDS, RGB


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    return 0.3 * torch.rand(6, 3, 64, 64, generator=rng())


@pytest.mark.parametrize("size", [64, 96, 48])
def test_no_augmentation_is_the_resize_of_the_model(patches, size):
    views = Augmentation()(patches, RGB, size, rng())
    expected = F.interpolate(patches, (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)


def test_every_sample_has_its_own_draw(patches):
    same = patches[:1].expand(6, -1, -1, -1)
    for augmentation in (
        Augmentation(rotation=15),
        Augmentation(zoom=0.2),
        Augmentation(shift=0.06),
        Augmentation(surface=1),
        Augmentation(gain=0.1),
        Augmentation(haze=0.01),
    ):
        views = augmentation(same, RGB, 64, rng())
        for one, other in itertools.combinations(views, 2):
            assert not torch.allclose(one, other, atol=1e-4), augmentation


def test_augmentation_depends_only_on_the_generator(patches):
    augmentation = Augmentation(15, 0.2, 0.06, True, 0.5, 0.1, 0.01)
    torch.manual_seed(1)
    one = augmentation(patches, RGB, 96, rng(3))
    torch.manual_seed(2)
    assert torch.equal(one, augmentation(patches, RGB, 96, rng(3)))
    assert not torch.allclose(one, augmentation(patches, RGB, 96, rng(4)))


def test_dihedral_augmentation_draws_the_eight_symmetries():
    patch = torch.rand(1, 1, 16, 16, generator=rng())
    symmetries = [torch.rot90(p, k, (2, 3)) for p in (patch, patch.flip(3)) for k in range(4)]
    views = Augmentation(dihedral=True)(patch.expand(200, -1, -1, -1), ("B04",), 16, rng())
    distance = torch.stack([(views - s).abs().amax((1, 2, 3)) for s in symmetries])
    assert float(distance.min(0).values.max()) < 1e-4
    assert set(distance.argmin(0).tolist()) == set(range(8))


def moments(views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Direction (degrees, modulo 180) and length of a bright bar's main axis."""
    size = views.shape[-1]
    y, x = torch.meshgrid(torch.arange(size) - (size - 1) / 2, torch.arange(size) - (size - 1) / 2, indexing="ij")
    mass = views[:, 0] / views[:, 0].sum((1, 2), keepdim=True)
    xx, yy, xy = ((mass * m).sum((1, 2)) for m in (x * x, y * y, x * y))
    spread = torch.sqrt((xx - yy) ** 2 + 4 * xy**2)
    return torch.rad2deg(torch.atan2(2 * xy, xx - yy)) / 2, torch.sqrt((xx + yy + spread) / 2)


@pytest.fixture(scope="module")
def bar() -> torch.Tensor:
    patch = torch.zeros(1, 1, 64, 64)
    patch[:, :, 29:35, 20:44] = 1
    return patch.expand(400, -1, -1, -1)


def test_rotation_stays_within_its_range_and_uses_it(bar):
    angle, length = moments(Augmentation(rotation=15)(bar, ("B04",), 64, rng()))
    assert -15.2 < float(angle.min()) < -14
    assert 14 < float(angle.max()) < 15.2
    assert float(length.max() / length.min()) < 1.01


def test_zoom_stays_within_its_range_and_uses_it(bar):
    angle, length = moments(Augmentation(zoom=0.2)(bar, ("B04",), 64, rng()))
    true = moments(bar[:1])[1]
    assert 1 / 1.21 < float((length / true).min()) < 1 / 1.17
    assert 1.17 < float((length / true).max()) < 1.21
    assert float(angle.abs().max()) < 0.1


def test_a_step_towards_the_surface_is_the_fitted_line():
    x = torch.full((500, 13, 2, 2), 0.1)
    views = Augmentation(surface=1)(x, EUROSAT_BANDS, 2, rng())[:, :, 0, 0]
    red = views[:, EUROSAT_BANDS.index("B04")]
    gain, offset = SURFACE_FIT["B04"]
    step = (red - 0.1) / (0.1 * (gain - 1) + offset)
    assert 0 <= float(step.min()) < 0.05
    assert 1.2 < float(step.max()) <= 1.25 + 1e-4
    for band, (gain, offset) in SURFACE_FIT.items():
        expected = 0.1 * (1 + step * (gain - 1)) + step * offset
        torch.testing.assert_close(views[:, EUROSAT_BANDS.index(band)], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(views[:, EUROSAT_BANDS.index("B08")], x[:, 0, 0, 0])


def test_the_surface_step_has_its_probability():
    views = Augmentation(surface=0.3)(torch.full((2000, 3, 1, 1), 0.1), RGB, 1, rng())
    assert float((views != 0.1).any(1).float().mean()) == pytest.approx(0.3, abs=0.03)


def test_gain_and_haze_have_their_spread():
    x = torch.full((4000, 3, 1, 1), 0.1)
    whole = math.sqrt(1 + 0.25)  # once per sample, and half of it per band
    log_gain = torch.log(Augmentation(gain=0.1)(x, RGB, 1, rng()) / 0.1)
    assert float(log_gain.std()) == pytest.approx(0.1 * whole, rel=0.05)
    haze = Augmentation(haze=0.01)(x, RGB, 1, rng()) - 0.1
    assert float(haze.std()) == pytest.approx(0.01 * whole, rel=0.05)
    between = haze[:, :, 0, 0].T.corrcoef()[0, 1]
    assert float(between) == pytest.approx(1 / 1.25, abs=0.05)


def test_off_draws_nothing_and_changes_nothing(patches):
    """Fields that later versions added must not change a training that does not use them."""
    old = Augmentation(15, 0.2, 0.06, True, 0.5, 0.1, 0.01)
    draws, expected = rng(3), rng(3)
    views = old(patches, RGB, 64, draws)
    n, b = patches.shape[:2]
    for shape in ((n, 1), (n, 1)):
        torch.rand(shape, generator=expected)
    for shape in ((2, n, 1), (2, n, b)):
        torch.randn(shape, generator=expected)
    torch.rand(4, n, generator=expected)
    for high in (2, 4):
        torch.randint(high, (n,), generator=expected)
    assert torch.equal(draws.get_state(), expected.get_state())
    assert torch.equal(views, old.geometry(old.radiometry(patches, RGB, rng(3)), 64, _after_radiometry(n, b)))


def _after_radiometry(n: int, b: int) -> torch.Generator:
    generator = rng(3)
    torch.rand((n, 1), generator=generator), torch.rand((n, 1), generator=generator)
    torch.randn((2, n, 1), generator=generator), torch.randn((2, n, b), generator=generator)
    return generator


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.7, 3.0])
def test_the_blur_is_that_of_scipy(patches, sigma):
    radius = max(1, math.ceil(3 * sigma))
    expected = gaussian_filter(patches.double().numpy(), sigma, mode="mirror", radius=radius, axes=(2, 3))
    torch.testing.assert_close(gaussian_blur(patches, sigma).double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_half_of_the_images_are_blurred_and_a_flat_one_stays(patches):
    same = patches[:1].expand(400, -1, -1, -1)
    blurred = Augmentation(blur=1.7).blurred(same, rng())
    assert float((blurred != same).any(3).any(2).any(1).float().mean()) == pytest.approx(0.5, abs=0.08)
    sharp, soft = gaussian_blur(same[:1], 0.3).std(), gaussian_blur(same[:1], 1.7).std()
    contrast = blurred.std((1, 2, 3))[(blurred != same).any(3).any(2).any(1)]
    assert float(soft) - 1e-6 <= float(contrast.min()) < 1.2 * float(soft)
    assert 0.9 * float(sharp) < float(contrast.max()) <= float(sharp) + 1e-6
    flat = torch.full((1, 3, 64, 64), 0.1)
    torch.testing.assert_close(gaussian_blur(flat, 1.5), flat)


def test_a_veil_mixes_the_ground_with_airlight():
    x = torch.stack([torch.full((3, 2, 2), 0.0), torch.full((3, 2, 2), 0.2)]).repeat(2000, 1, 1, 1)
    # Two images under one veil show it: the share that is lost, and the light that replaces it.
    black, bright = (Augmentation(veil=0.5).radiometry(x[part::2], RGB, rng())[:, :, 0, 0] for part in (0, 1))
    lost = 1 - (bright - black) / 0.2
    torch.testing.assert_close(lost, lost[:, :1].expand_as(lost), atol=1e-5, rtol=0)
    veiled = lost[:, 0] > 1e-3
    assert float(veiled.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(lost.max()) <= 0.5 + 1e-5
    assert float(lost.max()) > 0.48
    red, green, blue = (black[lost[:, 0] > 0.05] / lost[lost[:, 0] > 0.05]).T
    assert AIRLIGHT[0] - 1e-4 <= float(red.min()) < AIRLIGHT[0] + 0.01
    assert AIRLIGHT[1] - 0.01 < float(red.max()) <= AIRLIGHT[1] + 1e-4
    exponent = torch.log(blue / red) / math.log(665 / 490)
    assert ANGSTROM[0] - 1e-2 <= float(exponent.min()) < ANGSTROM[0] + 0.1
    assert ANGSTROM[1] - 0.1 < float(exponent.max()) <= ANGSTROM[1] + 1e-2
    torch.testing.assert_close(green, red * (665 / 560) ** exponent, atol=1e-4, rtol=0)


def test_a_whole_veil_hides_the_ground():
    ground = 0.3 * torch.rand(500, 3, 4, 4, generator=rng())
    seen = Augmentation(veil=1.0).radiometry(ground, RGB, rng())
    share = seen.std((2, 3)) / ground.std((2, 3))
    assert float(share.min()) < 0.02
    untouched = (seen == ground).all(3).all(2).all(1)
    assert float(untouched.float().mean()) == pytest.approx(0.5, abs=0.08)


def test_flattening_keeps_the_mean_and_lowers_the_contrast(patches):
    same = patches[:1].expand(400, -1, -1, -1)
    flat = Augmentation(flatten=0.7).flattened(same, rng())
    torch.testing.assert_close(flat.mean((2, 3)), same.mean((2, 3)), atol=1e-6, rtol=0)
    lost = 1 - flat.std((2, 3)) / same.std((2, 3))
    torch.testing.assert_close(lost, lost[:, :1].expand_as(lost), atol=1e-4, rtol=0)
    assert 0.65 < float(lost.max()) <= 0.7 + 1e-4
    assert float(lost.min()) > -1e-4
    assert float((lost[:, 0].abs() < 1e-5).float().mean()) == pytest.approx(0.5, abs=0.08)


def test_patches_alone_are_flattened_and_blurred_too(patches):
    for augmentation in (Augmentation(flatten=1.0), Augmentation(blur=1.7), Augmentation(veil=0.5)):
        views = augmentation(patches, RGB, 64, rng())
        assert float(views.std((2, 3)).min()) < 0.95 * float(patches.std((2, 3)).min()), augmentation
