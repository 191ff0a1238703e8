"""Labels as users have them: texts and numbers, points and polygons, valid or not."""

import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geocfl.core.legend import EUROSAT
from geocfl.errors import DataError, UsageError
from geocfl.labeling.labels import Labels, read_labels

FIELD = shapely.box(0, 0, 9, 9)
OTHER = shapely.box(20, 20, 29, 29)


def read(folder: Path, values: list, shapes: list[shapely.Geometry], **options) -> Labels:
    path = folder / "l.gpkg"
    gpd.GeoDataFrame({"class": values}, geometry=shapes, crs=32633).to_file(path)
    return read_labels(path, **{"by": "class", "layer": None, "known": EUROSAT} | options)


def test_texts_are_class_folders_and_known_classes_get_theirs(tmp_path: Path) -> None:
    labels = read(tmp_path, ["sea lake", "Reed / Marsh", "ANNUAL CROP"], [FIELD, OTHER, shapely.Point(5, 50)])
    assert [lulc.folder for lulc in labels.legend] == ["AnnualCrop", "Reed _ Marsh", "SeaLake"]
    assert labels.classes.tolist() == [3, 2, 1]
    assert labels.points.tolist() == [False, False, True]


def test_whole_numbers_keep_their_order(tmp_path: Path) -> None:
    labels = read(tmp_path, [10, 9, 2], [FIELD, OTHER, shapely.Point(5, 50)])
    assert [lulc.folder for lulc in labels.legend] == ["02", "09", "10"]
    assert labels.classes.tolist() == [3, 2, 1]


def test_parts_are_labels_of_their_feature(tmp_path: Path) -> None:
    mixed = shapely.GeometryCollection([FIELD, shapely.MultiPoint([(1, 2), (3, 4)])])
    labels = read(tmp_path, ["A", "B"], [mixed, shapely.MultiPolygon([OTHER, shapely.box(50, 50, 60, 60)])])
    assert labels.features.tolist() == [1, 1, 1, 2, 2]
    assert labels.classes.tolist() == [1, 1, 1, 2, 2]


def test_features_without_label_or_geometry_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        labels = read(tmp_path, ["A", None, " ", "B", "B"], [FIELD, FIELD, FIELD, OTHER, None])
    assert labels.features.tolist() == [1, 4]
    assert "2 features have no label in class" in caplog.text
    assert "1 feature has no geometry" in caplog.text


def test_polygons_that_can_be_repaired_with_certainty_are(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    labels = read(tmp_path, ["A", "B"], [bow_tie, OTHER])
    assert shapely.area(labels.shapes[labels.features == 1]).sum() == pytest.approx(50)
    assert shapely.is_valid(labels.shapes).all()


def test_a_border_that_runs_around_twice_is_refused(tmp_path: Path) -> None:
    """Whether its middle is inside depends on the rule."""
    star = shapely.Polygon([(np.sin(k * 4 * np.pi / 5) * 9, np.cos(k * 4 * np.pi / 5) * 9) for k in range(5)])
    with pytest.raises(DataError, match=r"the border of feature 2 crosses itself, .* is not certain; correct it"):
        read(tmp_path, ["A", "B"], [FIELD, star])


@pytest.mark.parametrize(
    ("values", "shapes", "words"),
    [
        ([None, None], [FIELD, OTHER], "has no label in class; fill the field, or pass another as `by`"),
        (["Oak", "oak"], [FIELD, OTHER], r"labels 'Oak' and 'oak' are too similar; write both alike"),
        (["A", "B"], [FIELD, shapely.LineString([(0, 0), (1, 1)])], "feature 2 is a LineString, .* buffer lines"),
        (["A", "B"], [FIELD, shapely.Point(1e12, 0)], "feature 2 has coordinates"),
        (["A", "B" * 201], [FIELD, OTHER], "cannot be named .*; correct the label"),
        ([f"c{k}" for k in range(255)], [FIELD] * 255, "has 255 labels, but a map holds at most 254 classes"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_sentence(tmp_path: Path, values, shapes, words) -> None:
    with pytest.raises(DataError, match=words) as refused:
        read(tmp_path, values, shapes)
    assert "l.gpkg" in str(refused.value)


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no field 'clas' for `by`; did you mean 'class'\? it has: class"):
        read(tmp_path, ["A", "B"], [FIELD, OTHER], by="clas")
    with pytest.raises(DataError, match="no such file; pass points and polygons"):
        read_labels(tmp_path / "absent.gpkg", "class", None, EUROSAT)
    gpd.GeoDataFrame({"class": ["A", "B"]}, geometry=[FIELD, OTHER]).to_file(tmp_path / "none.shp")
    with pytest.raises(DataError, match="has no coordinate reference system; assign one, such as by ogr2ogr"):
        read_labels(tmp_path / "none.shp", "class", None, EUROSAT)


def test_curved_polygons_become_straight_ones(tmp_path: Path) -> None:
    (tmp_path / "curved.csv").write_text(
        'class,WKT\nA,"CURVEPOLYGON (CIRCULARSTRING (0 0, 10 10, 20 0, 10 -10, 0 0))"\n'
        'B,"POLYGON ((50 0, 60 0, 60 10, 50 10, 50 0))"\n'
    )
    (tmp_path / "curved.vrt").write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="curved"><SrcDataSource relativeToVRT="1">curved.csv</SrcDataSource>'
        "<LayerSRS>EPSG:32633</LayerSRS></OGRVRTLayer></OGRVRTDataSource>"
    )
    labels = read_labels(tmp_path / "curved.vrt", "class", None, EUROSAT)
    assert shapely.area(labels.shapes[0]) == pytest.approx(np.pi * 100, rel=0.01)
