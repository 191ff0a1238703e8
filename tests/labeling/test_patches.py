"""``geocfl.patches``: from a scene and labels to a folder that ``geocfl.train`` reads."""

import logging
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

import geocfl
from geocfl.data.load import load_patches, load_split
from geocfl.data.manifest import MANIFEST, SUBSETS
from geocfl.errors import DataError, OutputError, SceneError, UsageError
from tests.labeling.scene_data import CRS, box, point, write_labels, write_scene

SIDE = 64


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "S2B_33TUL_20220601_0_L2A.tif")


LABELS = {"Forest": [box(10, 20, 2 * SIDE, SIDE)], "Reed": [box(200, 200, SIDE, SIDE), point(400, 400)]}


def test_patches_are_where_the_labels_are_and_hold_the_scenes_reflectance(tmp_path: Path, scene: Path) -> None:
    """Labels in degrees: the scene's rows are in its pixels."""
    made = geocfl.patches(scene, write_labels(tmp_path / "l.geojson", LABELS, 4326), tmp_path / "p", by="class")
    files = {path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*.tif")}
    stem = scene.stem
    assert files == {
        f"Forest/{stem}_r10_c20.tif",
        f"Forest/{stem}_r74_c20.tif",
        f"Reed/{stem}_r200_c200.tif",
        f"Reed/{stem}_r368_c368.tif",
    }
    assert set(made.manifest["patch"]) == files
    with rasterio.open(tmp_path / "p" / f"Forest/{stem}_r74_c20.tif") as patch, rasterio.open(scene) as whole:
        assert patch.descriptions == ("B04", "B03", "B02")
        assert (patch.read(1)[:, 0] == 100 + np.arange(74, 74 + SIDE)).all()
        assert patch.transform @ (0, 0) == whole.transform @ (20, 74)
        assert patch.crs == whole.crs
    patches = load_patches(tmp_path / "p")
    assert [lulc.folder for lulc in patches.legend] == ["Forest", "Reed"]
    assert patches.reflectance([1])[0, 0, 0, 0] == pytest.approx(0.0174)
    assert "Reed          2" in made.table()


def test_the_manifest_says_where_each_patch_is_from(tmp_path: Path, scene: Path) -> None:
    geocfl.patches(scene, write_labels(tmp_path / "l.gpkg", LABELS), tmp_path / "p", by="class")
    manifest = gpd.read_file(tmp_path / "p" / MANIFEST).set_index("patch")
    row = manifest.loc[f"Reed/{scene.stem}_r200_c200.tif"]
    assert (row["label"], row["scene"], row["date"]) == ("Reed", scene.name, "2022-06-01")
    assert (row["row"], row["column"], row["share"]) == (200, 200, 1.0)
    assert row.geometry.equals(box(200, 200, SIDE, SIDE))
    assert np.isnan(manifest.loc[f"Reed/{scene.stem}_r368_c368.tif"]["share"])
    assert manifest["split"].isna().all()
    assert manifest.crs.to_epsg() == CRS


def test_scenes_of_two_dates_and_zones_give_patches_each(tmp_path: Path, scene: Path) -> None:
    later = shutil.copy(scene, tmp_path / "S2B_33TUL_20220701_0_L2A.tif")
    with rasterio.open(later, "r+") as dataset:
        dataset.crs = "EPSG:32634"
    frame = gpd.read_file(write_labels(tmp_path / "west.gpkg", LABELS)).to_crs(4326)
    east = frame.translate(6, 0)  # the same place in the next zone
    both = gpd.GeoDataFrame({"class": [*frame["class"]] * 2}, geometry=[*frame.geometry, *east], crs=4326)
    both.to_file(tmp_path / "l.gpkg")
    made = geocfl.patches([scene, later], tmp_path / "l.gpkg", tmp_path / "p", by="class")
    assert made.manifest["date"].value_counts().to_dict() == {"2022-06-01": 4, "2022-07-01": 4}
    assert made.manifest.crs.to_epsg() == 4326


def test_masked_pixels_and_pixels_without_data_are_left_out_and_counted(tmp_path: Path, scene: Path) -> None:
    with rasterio.open(scene, "r+") as dataset:
        numbers = dataset.read()
        numbers[:, 10:15, 20:25] = 0
        dataset.write(numbers)
        profile = dataset.profile | {"count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "clouds.tif", "w", **profile) as mask:
        mask.write((np.indices((640, 640)).sum(0) == 463).astype(np.uint8), 1)  # through one window
    made = geocfl.patches(
        scene, write_labels(tmp_path / "l.gpkg", LABELS), tmp_path / "p", by="class", mask=tmp_path / "clouds.tif"
    )
    assert made.left_out == {"masked in part, such as by clouds": 1, "without data in part": 1}
    assert len(made.manifest) == 2
    assert "1 without data in part" in made.table()


def checkered() -> dict[str, list[shapely.Geometry]]:
    """Two classes in many places: 8 x 8 squares of 80 px."""
    places = [(row, column) for row in range(0, 640, 80) for column in range(0, 640, 80)]
    return {
        name: [box(row, column, 80, 80) for row, column in places if (row + column) // 80 % 2 == odd]
        for odd, name in enumerate(("Forest", "Reed"))
    }


def test_a_split_by_place_is_the_split_of_a_training(tmp_path: Path, scene: Path) -> None:
    labels = write_labels(tmp_path / "l.gpkg", checkered())
    made = geocfl.patches(scene, labels, tmp_path / "p", by="class", split="blocks:1.5", spacing=160, min_share=0.9)
    manifest = made.manifest
    assert set(manifest["split"]) == set(SUBSETS)
    assert manifest.groupby("block")["split"].nunique().max() == 1
    squares, split = manifest.geometry.to_numpy(), manifest["split"].to_numpy()
    one, other = shapely.STRtree(squares).query(squares, predicate="overlaps")
    assert (split[one] == split[other]).all()
    assert len(one), "some do overlap"
    assert set(manifest["patch"]) == {
        path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*.tif")
    }
    patches = load_patches(tmp_path / "p", split="manifest")
    made_split = load_split(patches, tmp_path / "p", "manifest", 0)
    for subset in SUBSETS:
        names = {patches.names[k] for k in getattr(made_split, subset)}
        assert names == set(manifest["patch"][manifest["split"] == subset])
    assert "validation" in made.table()


def edit(folder: Path, **values: object) -> None:
    """Changes fields of the first patch in the manifest."""
    manifest = gpd.read_file(folder / MANIFEST)
    for name, value in values.items():
        manifest.loc[0, name] = value
    manifest.to_file(folder / MANIFEST, layer="patches")


def test_edits_of_the_manifest_count(tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = write_labels(tmp_path / "l.gpkg", checkered())
    made = geocfl.patches(scene, labels, tmp_path / "p", by="class", split="blocks:1.5", spacing=160)
    edit(tmp_path / "p", split=None)
    (tmp_path / "p" / made.manifest["patch"][1]).unlink()
    patches = load_patches(tmp_path / "p")
    with caplog.at_level(logging.WARNING):
        split = load_split(patches, tmp_path / "p", "manifest", 0)
    assert len(split.train) + len(split.validation) + len(split.test) == len(made.manifest) - 2
    assert "1 of" in caplog.text
    assert "names 1 patch that the folder lacks" in caplog.text
    edit(tmp_path / "p", split="tset")
    with pytest.raises(DataError, match=r"'tset' in its field split is no subset; did you mean 'test'\?"):
        load_split(patches, tmp_path / "p", "manifest", 0)


def test_a_manifest_without_split_is_no_split(tmp_path: Path, scene: Path) -> None:
    geocfl.patches(scene, write_labels(tmp_path / "l.gpkg", LABELS), tmp_path / "p", by="class")
    patches = load_patches(tmp_path / "p")
    with pytest.raises(DataError, match="its patches have no split; write them again with `split='blocks:KM'`"):
        load_split(patches, tmp_path / "p", "manifest", 0)
    (tmp_path / "p" / MANIFEST).unlink()
    with pytest.raises(DataError, match="does not exist; write it with geocfl patches"):
        load_split(patches, tmp_path / "p", "manifest", 0)


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path, scene: Path) -> None:
    labels, out = write_labels(tmp_path / "l.gpkg", LABELS), tmp_path / "p"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="contains other files; choose another `out`"):
        geocfl.patches(scene, labels, out, by="class", overwrite=True)
    (out / "notes.txt").unlink()
    geocfl.patches(scene, labels, out, by="class")
    with pytest.raises(OutputError, match="already contains patches; use `overwrite=True`"):
        geocfl.patches(scene, labels, out, by="class")
    (out / "Forest" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt: is no patch of this folder"):
        geocfl.patches(scene, labels, out, by="class", overwrite=True)
    (out / "Forest" / "notes.txt").unlink()
    made = geocfl.patches(scene, labels, out, by="class", overwrite=True, spacing=320)
    assert set(made.manifest["patch"]) == {path.relative_to(out).as_posix() for path in out.rglob("*.tif")}


@pytest.mark.parametrize(
    ("labels", "options", "error", "words"),
    [
        ({"A": [box(900, 0, 99, 99)], "B": [point(-9, 9)]}, {}, DataError, "none of its labels lies in the scene"),
        ({"A": [box(0, 0, 20, 20)], "B": [box(90, 90, 9, 9)]}, {}, DataError, r"gives no patch \(2 polygon too small"),
        (LABELS, {"by": "clas"}, UsageError, "did you mean 'class'"),
        (LABELS, {"min_share": 0.0}, UsageError, "`min_share` is 0 but"),
        (LABELS, {"spacing": 0.0}, UsageError, "`spacing` is 0 but must be meters above 0"),
        (LABELS, {"overlap": "shared"}, UsageError, "did you mean 'share'"),
        (LABELS, {"split": "blocks"}, UsageError, "must be blocks:KM"),
        (LABELS, {"split": "blocks:50"}, UsageError, "only 1 block of 50 km"),
        (LABELS, {"patch_bands": ("B04", "B08")}, SceneError, "B04, B08 are needed, but the scene has only B04"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, scene: Path, labels, options, error, words):
    path = write_labels(tmp_path / "l.gpkg", labels)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error, match=words):
        geocfl.patches(scene, path, tmp_path / "new/p", **{"by": "class"} | options)
    assert set(tmp_path.rglob("*")) - before <= {tmp_path / "new"}


def test_a_scene_without_a_place_is_refused(tmp_path: Path, scene: Path) -> None:
    with rasterio.open(scene) as dataset:
        profile, numbers = dataset.profile, dataset.read()
    del profile["crs"], profile["transform"]
    with rasterio.open(tmp_path / "bare.tif", "w", **profile) as bare:
        bare.write(numbers)
        bare.descriptions = ("B04", "B03", "B02")
    with pytest.raises(SceneError, match=r"bare\.tif: has no coordinate reference system, so that labels"):
        geocfl.patches(tmp_path / "bare.tif", write_labels(tmp_path / "l.gpkg", LABELS), tmp_path / "p", by="class")


def test_classes_with_few_patches_and_labels_elsewhere_are_said(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = LABELS | {
        "Rare": [point(600, 300)],
        "Small": [box(500, 500, 9, 9)],
        "Forest": [*LABELS["Forest"], point(-9, 0)],
    }
    with caplog.at_level(logging.WARNING):
        geocfl.patches(scene, write_labels(tmp_path / "l.gpkg", labels), tmp_path / "p", by="class")
    assert "1 label lies outside the scene" in caplog.text
    assert "Rare gets only one patch, too few to train and test" in caplog.text
    assert "Small gets no patch" in caplog.text


def test_one_class_alone_is_said_to_need_another_or_a_model(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"Snow": [box(0, 0, 200, 200)], "Small": [box(300, 0, 9, 9)]}
    with caplog.at_level(logging.WARNING):
        made = geocfl.patches(scene, write_labels(tmp_path / "l.gpkg", labels), tmp_path / "p", by="class")
    assert set(made.manifest["label"]) == {"Snow"}
    assert "gives patches of only one class, Snow: label another one, or add this one" in caplog.text
