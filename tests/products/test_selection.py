"""What is written for what is asked."""

import pytest

from geocfl.errors import UsageError
from geocfl.products.files import FILES
from geocfl.products.formats.vector_formats import VECTOR_FORMATS
from geocfl.products.selection import PRODUCTS, VECTOR_FILES, Selection


def test_the_short_default():
    selection = Selection.of(["default"], ["gpkg"])
    assert selection.files == {
        "lulc", "attributes", "lulc_style", "confidence", "confidence_style", "gpkg", "preview", "summary",
    }  # fmt: skip
    assert not selection.detail
    assert not selection.truecolor


def test_all_of_everything_is_every_file_but_those_on_request():
    selection = Selection.of(["all"], VECTOR_FORMATS)
    assert selection.files == set(FILES) - {"features", "zarr"}
    assert selection.vector == VECTOR_FORMATS
    assert selection.detail
    assert selection.truecolor


@pytest.mark.parametrize("product", PRODUCTS)
def test_each_alone_comes_with_the_summary(product):
    files = Selection.of([product], ["gpkg"]).files
    assert files == {"summary", *PRODUCTS[product], *(["gpkg"] if product == "vector" else [])}
    assert files <= set(FILES)


def test_vector_formats():
    assert Selection.of(["default"], ["geojson", "gpkg"]).vector == ("gpkg", "geojson")
    assert Selection.of(["default"], ["geojson"]).files >= {"geojson", "polygons_style"}
    assert "gpkg" not in Selection.of(["default"]).files
    assert "gpkg" in Selection.of(["windows"]).files  # its other layer
    assert Selection.of(["lulc"], ["geojson"]).vector == ()
    assert set(VECTOR_FILES) == set(VECTOR_FORMATS)


@pytest.mark.parametrize(
    ("products", "vector", "message"),
    [
        (["default", "maps"], ["gpkg"], "unknown product 'maps'; choose from: lulc, confidence"),
        (["qgis"], ["gpkg"], "unknown product 'qgis'; did you mean 'project'"),
        (["lucl"], ["gpkg"], "unknown product 'lucl'; did you mean 'lulc'"),
        (["default"], ["shp"], "unknown vector format 'shp'"),
        ("lulc", ["gpkg"], "`products` is the text 'lulc' but must be a sequence"),
        (["default"], "gpkg", "`vector` is the text 'gpkg' but must be a sequence"),
    ],
)
def test_what_cannot_be_meant(products, vector, message):
    with pytest.raises(UsageError, match=message):
        Selection.of(products, vector)


def test_what_a_model_lacks_is_left_out_of_all_and_refused_by_name():
    missing = {"novelty": "the model m has no novelty"}
    assert Selection.of(["all"], VECTOR_FORMATS, missing).files == set(FILES) - {
        "features",
        "zarr",
        "novelty",
        "novelty_style",
    }
    assert Selection.of(["default"], missing=missing) == Selection.of(["default"])
    with pytest.raises(UsageError, match="`products` asks for novelty, but the model m has no novelty"):
        Selection.of(["default", "novelty"], (), missing)
