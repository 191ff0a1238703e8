"""Which scenes a run is about, however they are named, and what tells them apart."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geocfl.errors import SceneError, UsageError
from geocfl.products.files import SUFFIXES
from geocfl.scenes import collect as listing
from geocfl.scenes import find
from geocfl.scenes.collect import Listed, is_pattern, list_scenes, told_apart
from geocfl.scenes.source import Band, Source, absolute
from tests.scenes.formats.test_stac import earth_search
from tests.scenes.safe_product import write_safe


def write(path: Path, *bands: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = bands or ("B04", "B03", "B02")
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": len(names), "dtype": "uint16"}
    with rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5e6)) as dataset:
        dataset.write(np.ones((len(names), 4, 4), np.uint16))
        dataset.descriptions = names
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(listed: list[Listed]) -> list[str]:
    return [each.path for each in listed]


def stems(listed: list[Listed]) -> list[str]:
    return [each.source.stem if each.source else "" for each in listed]


def test_paths_stay_in_order_and_a_broken_scene_is_one_among_others() -> None:
    write(Path("b.tif"))
    Path("broken.tif").write_text("no raster")
    source = Source("mine", "mine", {"B04": Band("mine.tif")})
    listed = list_scenes([Path("b.tif"), "broken.tif", source, "missing.tif", write(Path("a.tif"))])
    assert paths(listed) == ["b.tif", "broken.tif", "mine", "missing.tif", "a.tif"]
    assert stems(listed) == ["b", "", "mine", "", "a"]
    assert [type(each.error) for each in listed] == [type(None), SceneError, type(None), SceneError, type(None)]
    assert "not a readable raster" in str(listed[1].error)
    assert "no such file" in str(listed[3].error)


def test_patterns_are_sorted_and_leave_products_out() -> None:
    for name in ("scenes/b.tif", "scenes/a.TIF", "scenes/deep/er/c.tif", "other/d.tif"):
        write(Path(name))
    for suffix in SUFFIXES:
        Path(f"scenes/b{suffix}").write_text("a product")
    for name in ("b_lulc.vrt", "catalog.json", "b.tif.aux.xml", "b.tif.ovr", ".hidden.tif", "notes.txt", "MTD.xml"):
        Path("scenes", name).write_text("no scene")
    Path("scenes/empty").mkdir()
    assert paths(list_scenes(["scenes/*"])) == ["scenes/a.TIF", "scenes/b.tif"]
    assert paths(list_scenes(["scenes/*.tif"])) == ["scenes/b.tif"]
    assert paths(list_scenes(["scenes/**/*.[tT][iI][fF]"])) == ["scenes/a.TIF", "scenes/b.tif", "scenes/deep/er/c.tif"]
    assert paths(list_scenes(["*/?.tif"])) == ["other/d.tif", "scenes/b.tif"]
    assert paths(list_scenes([str(Path("scenes/*.tif").absolute())])) == [str(Path("scenes/b.tif").absolute())]


def test_a_path_that_exists_is_no_pattern() -> None:
    write(Path("a[1].tif"))
    write(Path("a1.tif"))
    write(Path("b_lulc.tif"))
    assert paths(list_scenes(["a[1].tif"])) == ["a[1].tif"]
    assert paths(list_scenes(["a[0-9].tif"])) == ["a1.tif"]
    assert paths(list_scenes(["b_lulc.tif"])) == ["b_lulc.tif"]  # named, so meant


@pytest.mark.parametrize("named", ["S.tif", Path("S.tif"), Source("mine", "mine", {"B04": Band("mine.tif")})])
def test_one_scene_needs_no_list(named: str | Path | Source) -> None:
    write(Path("S.tif"))
    assert len(list_scenes(named)) == 1


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("*.tif", True), ("a[1].tif", True), ("S[1].tif", False), ("https://a.org/S.tif?sig=x*", False), ("S.tif", False)],
)
def test_what_a_pattern_is(text: str, pattern: bool) -> None:
    write(Path("S[1].tif"))
    assert is_pattern(text) is pattern


def test_a_pattern_over_products_takes_each_as_a_whole() -> None:
    first = write_safe(Path("scenes"), "L2A", size=64).path
    zipped = write_safe(Path("more"), "L1C", size=64, zipped=True).path
    write(Path("bands/rome/B04.tif"), "B04")
    write(Path("bands/rome/B03.tif"), "B03")
    listed = list_scenes(["**"])
    assert paths(listed) == sorted([str(first), str(zipped), "bands/rome"])
    assert all(each.error is None for each in listed)


def test_band_files_are_one_scene() -> None:
    files = [write(Path(f"T33TUL_{band}.tif"), band) for band in ("B04", "B03", "B02")]
    other = write(Path("other.tif"))
    listed = list_scenes([other, "T33TUL_*.tif", files[0]])
    assert stems(listed) == ["other", "T33TUL"]
    assert listed[1].source is not None
    assert set(listed[1].source.bands) == {"B02", "B03", "B04"}


def test_a_list_in_a_file() -> None:
    for name in ("a.tif", "b.tif", "deep/c.tif", "d e.tif"):
        write(Path(name))
    Path("lists").mkdir()
    text = "\ufeff# scenes of June\r\n\r\na.tif\r\n  d e.tif  \r\ndeep/*.tif\r\nmissing.tif\r\n#b.tif\r\n"
    Path("lists/june.txt").write_bytes(text.encode())
    listed = list_scenes(["b.tif"], list_file="lists/june.txt")
    assert paths(listed) == ["b.tif", "a.tif", "d e.tif", "deep/c.tif", "missing.tif"]
    assert [each.path for each in listed if each.error] == ["missing.tif"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"l\.txt: cannot be read \(No such file or directory\); use a text file"),
        (b"", r"l\.txt: names no scene; use"),
        (b"\n# nothing\n", r"l\.txt: names no scene; use"),
        (b"II*\x00\xff\xfe", r"l\.txt: is not text; use"),
    ],
)
def test_bad_lists(content: bytes | None, message: str) -> None:
    if content is not None:
        Path("l.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        list_scenes(list_file="l.txt")


def test_nothing_to_map() -> None:
    with pytest.raises(UsageError, match="there is no scene to map; give"):
        list_scenes()
    with pytest.raises(UsageError, match=r"scenes/\*\.tif: matches no scene; correct the pattern"):
        list_scenes(["scenes/*.tif"])
    Path("scenes").mkdir()
    Path("scenes/a_lulc.tif").write_text("a product")
    with pytest.raises(UsageError, match=r"scenes/\*\.tif: matches no scene"):
        list_scenes(["scenes/*.tif"])
    with pytest.raises(UsageError, match=r"s3://bucket/\*\.tif: patterns work only for local files"):
        list_scenes(["s3://bucket/*.tif"])


def test_items_of_a_collection(tmp_path: Path) -> None:
    features = [earth_search() | {"id": name} for name in ("A", "B")]
    broken = earth_search() | {"id": "C", "assets": {}}
    Path("items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [*features, broken]}))
    for feature in features:  # the bands of each are its own
        for asset in feature["assets"].values():
            asset["href"] = asset["href"].replace("33/U/XP", feature["id"])
    Path("items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [*features, broken]}))
    Path("A.json").write_text(json.dumps(features[0]))
    listed = list_scenes([write(tmp_path / "s.tif"), "A.json"], stac_items="items.json")
    assert paths(listed) == [str(tmp_path / "s.tif"), "A.json", "items.json#B", "items.json#C"]  # A counts once
    assert stems(listed) == ["s", "A", "B", ""]


def test_one_scene_by_several_names_counts_once(tmp_path: Path) -> None:
    write(Path("a.tif"))
    os.symlink("a.tif", "link.tif")
    product = write_safe(Path("p"), "L2A", size=64).path
    metadata = next(Path(product).glob("MTD_MSIL2A.xml"))
    names = ["a.tif", "./a.tif", tmp_path / "a.tif", "link.tif", "*.tif", product, metadata, "gone.tif", "./gone.tif"]
    assert paths(list_scenes(names)) == ["a.tif", str(product), "gone.tif"]


def no_opening(*_: object) -> Source:
    raise AssertionError("a raster was opened")


def test_rasters_are_named_without_opening_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("a.tif"))
    os.symlink("a.tif", "link.tif")
    write_safe(Path("p"), "L2A", size=64)
    named = ["a.tif", "./a.tif", tmp_path / "a.tif", "link.tif", "https://127.0.0.1:9/b.jp2?sig=1", "p/*.SAFE"]
    monkeypatch.setattr(find, "_find_raster", no_opening)
    listed = list_scenes(named, open_all=False)
    assert [each.path for each in listed[:2]] == ["a.tif", "https://127.0.0.1:9/b.jp2"]
    assert stems(listed)[:2] == ["a", "b"]
    assert len(listed) == 3
    assert [bool(each.source and each.source.bands) for each in listed] == [False, False, True]
    assert [each.given for each in listed[:2]] == [("a.tif",), ()]


def test_a_named_raster_is_the_scene_that_opening_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(Path("N0400/a.tif"), "x", "y", "z")
    (listed,) = list_scenes(path, open_all=False)
    assert listed.source is not None
    bands = {"B04": 3, "B03": 2, "B02": 1}
    assert find.find_source(listed.source, bands) == find.find_source(path, bands)
    there = absolute(listed.source)
    monkeypatch.chdir("/")
    found = find.find_source(there, bands)
    assert (found.path, found.stem, found.bands["B04"].path) == ("N0400/a.tif", "a", str(tmp_path / "N0400/a.tif"))
    Path(tmp_path / "N0400/a.tif").write_text("broken today")
    with pytest.raises(SceneError, match=r"^N0400/a\.tif: not a readable raster"):
        find.find_source(there, bands)


def test_an_archive_that_is_called_a_raster() -> None:
    product = write_safe(Path("p"), "L2A", size=64, zipped=True).path
    os.rename(product, "odd.tif")
    (listed,) = list_scenes("odd.tif", open_all=False)
    assert listed.source is not None
    found = find.find_source(listed.source)
    assert (found.path, found.stem, "B04" in found.bands) == ("odd.tif", "odd", True)


@pytest.mark.parametrize("first", [0, 1])
def test_a_raster_that_is_another_scene_too_counts_once(first: int) -> None:
    named = [write(Path("a.tif")), find.find_source(Path("a.tif")), write(Path("b.tif"))]
    named[:2] = named[first], named[1 - first]
    assert paths(list_scenes(named, open_all=False)) == paths(list_scenes(named)) == ["a.tif", "b.tif"]


def test_what_is_no_raster_on_disk_is_looked_at() -> None:
    Path("folder.tif").mkdir()
    listed = list_scenes(["gone.tif", "folder.tif", "folder.tif/x.tif"], open_all=False)
    assert [type(each.error) for each in listed] == [SceneError] * 3


def test_rasters_without_known_bands_are_different_scenes() -> None:
    for name in ("a.tif", "b.tif"):
        write(Path(name), "x", "y")
    assert paths(list_scenes(["a.tif", "b.tif"])) == ["a.tif", "b.tif"]


def test_chosen_bands_are_used() -> None:
    (listed,) = list_scenes([write(Path("a.tif"), "x", "y", "z")], bands={"B04": 3, "B03": 2, "B02": 1})
    assert listed.source is not None
    assert {name: band.index for name, band in listed.source.bands.items()} == {"B04": 3, "B03": 2, "B02": 1}


def test_scenes_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Barrier(4, timeout=20)
    told: list[tuple[int, int]] = []

    def look(scene: str, bands: str) -> Source:
        waiting.wait()  # passed when four are here
        time.sleep(random.random() / 100)
        return Source(scene, scene, {})

    monkeypatch.setattr(listing, "find_source", look)
    names = [f"https://example.com/{n}?sig=secret" for n in range(4)]
    listed = list_scenes(names, progress=lambda what, done, total, unit: told.append((done, total)))
    assert [each.source.path for each in listed if each.source] == names
    assert told == [(done, 4) for done in range(5)]


def test_errors_of_signed_links_tell_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    (listed,) = list_scenes(["http://127.0.0.1:9/a.tif?sig=secret"])
    assert "secret" not in listed.path + str(listed.error)
    assert "cannot be reached" in str(listed.error)


def told(named: Iterable[str | Path]) -> list[Listed]:
    return told_apart(list_scenes(named))


def test_duplicate_stems_get_the_names_of_folders() -> None:
    names = ["x/2019/S.tif", "x/2020/S.tif", "y/2020/S.tif", "T.tif", "z/2019_S.tif"]
    listed = told([write(Path(name)) for name in names])
    assert stems(listed) == ["x_2019_S", "x_2020_S", "y_2020_S", "T", "2019_S"]
    again = told(reversed(names))
    assert stems(again) == stems(listed)[::-1]
    assert stems(told(["x/2019/S.tif", "T.tif"])) == ["S", "T"]
    Path("x/2019/S.tif").write_text("broken today")
    assert stems(told(names)) == ["", *stems(listed)[1:]]


def test_duplicate_stems_in_one_folder() -> None:
    names = [write(Path("S.tif")), write(Path("S.tiff")), write(Path("s.TIF")), write(Path("deep/S.tif"))]
    found = stems(told(names))
    assert len({stem.casefold() for stem in found}) == 4
    assert found[3] == "deep_S"
    assert [stem[:2] for stem in found[:3]] == ["S_", "S_", "s_"]
    assert all(len(stem) == 10 for stem in found[:3])


def test_folders_of_bands_are_told_apart_by_their_own_names() -> None:
    for folder in ("rome", "oslo"):
        for band in ("B04", "B03"):
            write(Path(f"{folder}/T33_{band}.tif"), band)
    assert stems(told(["rome", "oslo"])) == ["rome_T33", "oslo_T33"]
    for folder in ("a/img", "b/img"):
        for band in ("B04", "B03"):
            write(Path(f"{folder}/{band}.tif"), band)
    assert stems(told(["a/img", "b/img"])) == ["a_img", "b_img"]


def test_urls_are_told_apart_by_their_steps() -> None:
    urls = ["https://a.org/x/S.tif?q=1", "https://b.org:8080/x/S.tif", "s3://bucket/y/S.tif", "https://a.org/S.tif"]
    listed = [Listed(url, Source(url.partition("?")[0], "S", {"B04": Band(url)})) for url in urls]
    assert stems(told_apart(listed)) == ["a.org_x_S", "b.org_8080_x_S", "y_S", "a.org_S"]


names = st.text("aA_1", min_size=1, max_size=2)
scenes = st.lists(st.tuples(st.lists(names, max_size=3), names, st.sampled_from(["tif", "jp2"])), max_size=12)


@given(scenes, st.randoms())
def test_stems_never_collide_and_do_not_depend_on_the_order(
    scenes: list[tuple[list[str], str, str]], chance: random.Random
) -> None:
    files = sorted({("/".join(["/r", *folders, f"{stem}.{ending}"]), stem) for folders, stem, ending in scenes})
    listed = [Listed(path, Source(path, stem, {"B04": Band(path)})) for path, stem in files]
    found = dict(zip(paths(listed), stems(told_apart(listed)), strict=True))
    assert len({stem.casefold() for stem in found.values()}) == len(files)
    own = [stem.casefold() for _, stem in files]
    for path, stem in files:
        assert found[path].casefold().endswith(stem.casefold()) or found[path].startswith(f"{stem}_")
        if own.count(stem.casefold()) == 1:
            assert found[path] == stem
    chance.shuffle(listed)
    assert dict(zip(paths(listed), stems(told_apart(listed)), strict=True)) == found


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=80), max_size=6))
def test_stems_fit_file_systems(folders: list[str]) -> None:
    places = ["/".join(["", *folders, last, "S.tif"]) for last in ("a", "b", "é" * 100, "b/é" + "x" * 200)]
    listed = [Listed(path, Source(path, "S", {"B04": Band(path)})) for path in places]
    for stem in stems(told_apart(listed)):
        assert len(stem.encode()) <= listing.STEM_BYTES
        assert "/" not in stem
        assert not stem.startswith(".")
