"""Files that others wrote, with absurd values: mapped, or refused in one sentence, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geocfl.errors import GeocflError, SceneError
from geocfl.mapping.mapper import Mapper
from geocfl.mapping.settings import MapSettings
from geocfl.models.bundle import Bundle
from geocfl.scenes import Reading, find_source, open_scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

BANDS = ("B04", "B03", "B02")
UTM = Affine(10, 0, 400_000, 0, -10, 5_000_000)
CRSS = (
    *("EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:3031", "EPSG:3035", "EPSG:5041", "EPSG:2263", "EPSG:4267"),
    *("EPSG:4978", "EPSG:5773", "EPSG:7415", 'LOCAL_CS["pixels",UNIT["metre",1]]'),  # codespell:ignore metre
    *("+proj=longlat +R=1737400", "+proj=geos +h=35785831", "+proj=ortho +lat_0=45 +lon_0=13", "+proj=igh", "+proj=s2"),
    *("+proj=ob_tran +o_proj=longlat +o_lat_p=30", "+proj=gnom +lat_0=90", "+proj=utm +zone=33 +units=km"),
    *("+proj=tmerc +k=1e-9", "+proj=tmerc +k=1e9", "+proj=longlat +a=6378137 +b=10", "+proj=healpix"),
)
SIDES = st.sampled_from([0.0, 10.0, -10.0, 20.0, 1e-4, -1e-4, 1e-12, 0.01, 1e4, 1e6, 1e300, 5e-324, np.inf, np.nan])
TURNS = st.sampled_from([0.0, 0.0, 0.0, 7.0, 9.99, np.nan])
CORNERS = st.sampled_from([0.0, 13.0, 45.9, 90.0, -180.0, 4000.0, 400_000.0, 5e6, -3e7, 1e15, np.inf, np.nan])


@pytest.fixture(scope="module")
def mapper(tiny_model: Path) -> Mapper:
    return Mapper(Bundle.load(tiny_model), MapSettings(backend="torch", products=("lulc",)), device="cpu")


def write(path: Path, *, shape: tuple[int, int] = (64, 64), fill: bool = True, **profile: object) -> Path:
    options = {"crs": "EPSG:32633", "transform": UTM, "dtype": "uint16"} | profile
    scaling = {name: options.pop(name) for name in ("scales", "offsets") if name in options}
    height, width = shape
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=3, **options) as file:
        if fill:
            dn = np.random.default_rng(0).integers(200, 3000, (3, height, width))
            file.write(dn.astype(file.dtypes[0]))
        file.descriptions = BANDS
        for name, values in scaling.items():
            setattr(file, name, values)
    return path


def opened(path: Path) -> None:
    open_scene(path, needed=BANDS, gsd=10.0).close()


@given(crs=st.sampled_from(CRSS), a=SIDES, b=TURNS, c=CORNERS, d=TURNS, e=SIDES, f=CORNERS)
@settings(max_examples=120, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_transform_in_any_crs_is_mapped_or_refused_in_one_sentence(tmp_path, mapper, crs, a, b, c, d, e, f):
    path = write(tmp_path / "scene.tif", crs=crs, transform=Affine(a, b, c, d, e, f))
    try:
        result = mapper.map(find_source(path), tmp_path / "out", overwrite=True)
    except GeocflError as error:
        message = str(error)
    else:
        message = f"{path}: mapped"
        assert np.isfinite(result.bounds).all()
        assert result.crs
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(0, 0), (np.nan, 0), (np.inf, 0), (-1e-4, 0), (1e-4, np.nan), (1, np.inf), (5e-324, 0), (1e300, 0), (1e-4, 1e300)],
)
def test_tags_that_cannot_be_a_scaling_are_named(tmp_path, scale, offset):
    path = write(tmp_path / "scene.tif", scales=(scale,) * 3, offsets=(offset,) * 3)
    with pytest.raises(SceneError, match=r"its tags give B04 the scale .* use `scale` and `offset`"):
        opened(path)


@pytest.mark.parametrize(("scale", "said"), [(1e-8, "darker than land"), (1e-2, "brighter than any surface")])
def test_whole_numbers_that_tags_make_no_reflectance_are_refused(tmp_path, scale, said):
    path = write(tmp_path / "scene.tif", scales=(scale,) * 3)
    with pytest.raises(SceneError, match=said):
        opened(path)


def test_tags_are_of_no_account_where_the_user_gives_both(tmp_path):
    path = write(tmp_path / "scene.tif", scales=(0, 0, 0))
    with open_scene(path, Reading(scale=10_000, offset=0), needed=BANDS, gsd=10.0) as scene:
        assert np.isfinite(scene.read(BANDS, 0, 64)).all()


def test_tags_with_an_offset_are_plausible_by_the_reflectance_that_they_give(tmp_path):
    path = write(tmp_path / "scene.tif", fill=False, scales=(1e-4,) * 3, offsets=(-3,) * 3)
    with rasterio.open(path, "r+") as file:
        file.write(np.random.default_rng(0).integers(30_200, 33_000, (3, 64, 64)).astype(np.uint16))
    opened(path)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"dtype": "complex64"}, "complex"),
        ({"shape": (1, 2_000_000_000), "fill": False, "sparse_ok": True}, "2000000000 x 1 px"),
        ({"shape": (2_000_000_000, 1), "fill": False, "sparse_ok": True, "compress": "deflate"}, "1 x 2000000000 px"),
        ({"tiled": True, "blockxsize": 16_384, "blockysize": 16_384, "fill": False, "sparse_ok": True}, "MB each"),
    ],
)
def test_absurd_rasters_are_refused_before_their_pixels_are_read(tmp_path, profile, said):
    path = write(tmp_path / "scene.tif", **{"bigtiff": "yes", "interleave": "pixel", **profile})
    with pytest.raises(SceneError, match=said):
        opened(path)


def test_rpcs_that_are_no_numbers_are_still_rpcs(tmp_path):
    path = write(tmp_path / "scene.tif", crs=None)
    Path(f"{path}.aux.xml").write_text(
        "<PAMDataset><Metadata domain='RPC'><MDI key='LINE_OFF'>x</MDI></Metadata></PAMDataset>"
    )
    with pytest.raises(SceneError, match="has only RPCs"):
        opened(path)
