from __future__ import annotations

import base64
import pickle
import re
import shutil
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

import geocfl
from geocfl.core.legend import EUROSAT
from geocfl.errors import DataError
from geocfl.mapping import SceneMap

EXACT: Any = {"backend": "torch", "device": "cpu", "precision": "float32"}


def write_scene(path: Path, height: int = 150, width: int = 200, **profile: Any) -> Path:
    rng = np.random.default_rng(0)
    dn = np.kron(rng.integers(200, 2500, (3, 5, 7)), np.ones((32, 32), int))[:, :height, :width]
    dn = (dn + rng.integers(0, 100, dn.shape)).astype(np.uint16)
    dn[:, :, -40:] = 0
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 600_000, 0, -10, 5_100_000)} | profile
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.write(dn)
        dataset.descriptions = ("B04", "B03", "B02")
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> SceneMap:
    """A map of 5 x 7 cells of 32 px, the last two columns without data; in all polygon formats."""
    folder = tmp_path_factory.mktemp("map")
    vector = ["gpkg", "flatgeobuf", "geojson", *(["geoparquet"] if find_spec("pyarrow") else [])]
    scene = write_scene(folder / "<scene>.tif")
    return geocfl.map_scene(scene, folder, model=tiny_model, stride=32, vector=vector, **EXACT)


def test_arrays_are_the_rasters(result):
    with rasterio.open(result.paths["lulc"]) as lulc, rasterio.open(result.paths["confidence"]) as confidence:
        np.testing.assert_array_equal(result.lulc, lulc.read(1))
        percent = confidence.read(1)
        assert (result.crs, result.transform) == (lulc.crs, lulc.transform)
    assert (result.lulc.shape, result.lulc.dtype, result.confidence.dtype) == ((5, 7), np.uint8, np.float32)
    assert (result.lulc[:, 5:] == 0).all()
    assert np.isnan(result.confidence[:, 5:]).all()
    np.testing.assert_allclose(result.confidence[:, :5], percent[:, :5] / 100, rtol=1e-6)
    assert result.lulc is result.lulc, "read once"
    assert result.bounds == (600_000, 5_098_500, 602_000, 5_100_000)
    assert [(c.code, c.name, c.color) for c in result.legend] == [(c.code, c.name, c.color) for c in EUROSAT]


def test_the_frame_is_the_class_table(result):
    frame = result.frame()
    assert frame.index.tolist() == [*range(1, 11), 0]
    assert frame["class"].tolist() == [*EUROSAT.names, "No data"]
    assert frame.cells.sum() == result.lulc.size
    assert all(frame.cells[code] == (result.lulc == code).sum() for code in frame.index)
    assert frame.hectares.sum() == pytest.approx(150 * 200 / 100)
    assert frame.share.sum() == pytest.approx(1)
    assert np.isnan(frame.share[0])


@pytest.mark.parametrize("name", ["gpkg", "geoparquet", "flatgeobuf", "geojson"])
def test_polygons_come_from_whatever_was_written(result, name):
    only = SceneMap({key: result.paths[key] for key in ("summary", name)}, result.summary)
    polygons = only.polygons
    assert polygons.crs.to_epsg() == (4326 if name == "geojson" else 32633)
    assert {"class_code", "class_name", "area_ha", "confidence"} < set(polygons.columns)
    assert polygons.geometry.name == "geometry"
    by_class = polygons.groupby("class_code").area_ha.sum()
    frame = result.frame()
    assert {code: pytest.approx(frame.hectares[code], abs=0.01) for code in by_class.index} == by_class.to_dict()


def test_what_was_not_written_is_named_with_the_remedy(result, tmp_path, tiny_model):
    bare = SceneMap({"summary": result.paths["summary"]}, result.summary)
    with pytest.raises(DataError, match="has no polygons; map the scene again with gpkg in `vector`"):
        _ = bare.polygons
    for name in ("lulc", "confidence"):
        with pytest.raises(DataError, match=f"has no {name}; map the scene again with {name} in `products`"):
            getattr(bare, name)
    windows = geocfl.map_scene(
        write_scene(tmp_path / "s.tif"), tmp_path, model=tiny_model, products=["windows"], vector=(), **EXACT
    )
    with pytest.raises(DataError, match="has no polygons"):
        _ = windows.polygons
    assert "Total" in windows.table()
    assert windows._repr_html_()


def test_what_is_gone_is_named(result, tmp_path):
    gone = SceneMap({name: tmp_path / path.name for name, path in result.paths.items()}, result.summary)
    for name in ("lulc", "confidence", "polygons"):
        with pytest.raises(DataError, match=r"\.(tif|gpkg).* map the scene again"):
            getattr(gone, name)


def test_a_map_in_an_object_store_is_read_there(result):
    upath = pytest.importorskip("upath")
    store = upath.UPath("memory://bucket/maps")
    store.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, path in result.paths.items():
        paths[name] = store / path.name
        paths[name].write_bytes(path.read_bytes())
    remote = SceneMap(paths, result.summary)
    np.testing.assert_array_equal(remote.lulc, result.lulc)
    np.testing.assert_array_equal(remote.confidence, result.confidence)
    assert remote.polygons.equals(result.polygons)
    assert "data:image/jpeg" in remote._repr_html_()
    assert "memory://bucket/maps" in repr(remote)


def test_it_shows_itself_in_a_line(result):
    text = repr(result)
    assert re.fullmatch(r"<SceneMap <scene>: 35 cells of 320 m; [A-Z].* \d+\.\d%.*; in /.*>", text)
    assert "\n" not in text
    assert len(text) < 250


def test_it_shows_itself_in_a_notebook(result):
    page = result._repr_html_()
    assert "<scene>" not in page
    assert "&lt;scene&gt;" in page
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page).group(1))
    with Image.open(BytesIO(picture)) as image:
        assert max(image.size) <= 900
    present = [c for c in EUROSAT if (result.lulc == c.code).any()]
    assert all(c.color in page and c.name in page for c in present)
    without = SceneMap({name: path for name, path in result.paths.items() if name != "preview"}, result.summary)
    assert "<img" not in without._repr_html_()


def test_a_plot_has_the_colors_of_the_legend_where_they_belong(result):
    from matplotlib import pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    before = plt.get_fignums()
    figure = Figure(figsize=(4, 3), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    assert result.plot(ax, legend=False) is ax
    assert plt.get_fignums() == before, "axes that are given are all that is touched"
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())
    for row, column in ((0, 0), (2, 3), (4, 4)):
        x, y = result.transform @ (column + 0.5, row + (0.5 if row < 4 else 0.3))
        right, up = ax.transData.transform((x, y))
        assert tuple(drawn[-1 - int(up), int(right), :3]) == EUROSAT[int(result.lulc[row, column])].rgb
    assert ax.get_xlim() == (600_000, 602_000)
    assert ax.get_legend() is None


def test_a_large_map_is_thinned_where_it_lies(result, monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.setattr("geocfl.products.map_view.DRAWN_CELLS", 3)
    ax = result.plot(Figure().add_subplot(), legend=False)
    assert ax.images[0].get_array().shape == (2, 3, 4)
    assert ax.images[0].get_extent() == [600_000, 602_880, 5_098_080, 5_100_000]
    assert ax.get_xlim() == (600_000, 602_000)


def test_a_plot_of_its_own_names_the_classes_by_area(result):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    ax = result.plot()
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    frame = result.frame().loc[1:10]
    assert sorted(names) == sorted(frame[frame.cells > 0]["class"])
    assert names[0] == frame["class"][frame.hectares.idxmax()]
    plt.close(ax.figure)


def test_it_travels_and_another_run_finds_it(result, tmp_path, tiny_model):
    assert pickle.loads(pickle.dumps(result)).paths == result.paths
    scene = shutil.copy(result.paths["summary"].parent / "<scene>.tif", tmp_path / "s.tif")
    first = geocfl.map_scene(scene, tmp_path, model=tiny_model, products=["lulc"], **EXACT)
    again = geocfl.map_scene(scene, tmp_path, model=tiny_model, products=["lulc"], **EXACT)
    assert again.already_done
    assert again.summary == first.summary


def test_it_opens_again_as_it_was(result):
    again = geocfl.open_map(result.paths["lulc"])
    assert again.paths == result.paths
    assert again.summary == result.summary
    assert again.table() == result.table()
    assert again.bounds == result.bounds
    assert again.legend == result.legend
    np.testing.assert_array_equal(again.confidence, result.confidence)
    counted = geocfl.open_map(result.paths["lulc"])
    del counted.paths["summary"]
    assert counted.classes == result.classes


def test_a_map_in_an_object_store_opens_again(result):
    upath = pytest.importorskip("upath")
    store = upath.UPath("memory://other/maps")
    store.mkdir(parents=True, exist_ok=True)
    for path in result.paths.values():
        (store / path.name).write_bytes(path.read_bytes())
    again = geocfl.open_map(store / result.paths["lulc"].name)
    assert again.paths.keys() == result.paths.keys()
    assert again.summary == result.summary
    np.testing.assert_array_equal(again.lulc, result.lulc)
    assert geocfl.open_map("memory://other/maps").name == again.name
