import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.radiometry import EUROSAT_RGB, SENTINEL2, Scaling

finite = st.floats(-1e4, 1e4)


@given(st.integers(0, 65_535), st.floats(1, 1e5), finite)
def test_reflectance_is_dn_plus_offset_over_scale(dn: int, scale: float, offset: float) -> None:
    got = Scaling(scale, offset).to_reflectance(np.array([dn], np.uint16))
    assert got.dtype == np.float32
    assert got[0] == pytest.approx((dn + offset) / scale, rel=1e-5, abs=1e-5 * max(1, abs(offset) / scale))


@given(st.integers(0, 65_535), st.floats(1e-5, 1), st.floats(-1, 1))
def test_gdal_form_is_converted(dn: int, scale: float, offset: float) -> None:
    got = Scaling.from_gdal(scale, offset).to_reflectance(np.array(dn, np.uint16))
    assert got == pytest.approx(dn * scale + offset, rel=1e-4, abs=1e-4)


def test_eurosat_jpegs_span_zero_to_saturation() -> None:
    assert EUROSAT_RGB.to_reflectance(np.array([1, 255], np.uint8)) == pytest.approx([0, 0.275])
    # DESIGN: DN = (v - 1) * 2750 / 254
    v = np.arange(1, 256, dtype=np.uint8)
    dn = (v.astype(float) - 1) * 2750 / 254
    assert EUROSAT_RGB.to_reflectance(v) == pytest.approx(dn / SENTINEL2.scale, abs=1e-6)


def test_baseline_four_offset() -> None:
    assert Scaling(10_000, -1000).to_reflectance(np.array([1000, 11_000], np.uint16)) == pytest.approx([0, 1])


@pytest.mark.parametrize(("scale", "offset"), [(0, 0), (-1, 0), (np.nan, 0), (1, np.inf)])
def test_impossible_scalings_are_refused(scale: float, offset: float) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        Scaling(scale, offset)
