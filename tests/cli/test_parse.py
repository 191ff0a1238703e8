"""Options written as text, as the values that the library takes."""

from typing import Any

import pytest
from typer.testing import CliRunner

import geocfl
from geocfl.cli import app, parse
from geocfl.errors import UsageError


def test_names() -> None:
    assert parse.names("lulc, stac,") == ("lulc", "stac")
    assert parse.names("") == ()


def test_vector_formats() -> None:
    assert parse.vector_formats("gpkg,geojson") == ("gpkg", "geojson")
    assert parse.vector_formats("none") == ()
    with pytest.raises(UsageError, match="`vector` has both none and formats"):
        parse.vector_formats("none,gpkg")


def test_bands() -> None:
    assert parse.bands("B04=3, B03=2,B02=1") == {"B04": 3, "B03": 2, "B02": 1}
    assert parse.bands("B04,B03,B02") == ("B04", "B03", "B02")
    assert parse.bands(None) is parse.bands("") is None
    assert parse.bands("B04=\x1d3") == {"B04": 3}, "int alone refuses what isspace allows"


@pytest.mark.parametrize(
    ("args", "joined"),
    [
        (["--bbox", "-13", "45.5", "14", "46", "a.tif"], ["--bbox", "-13 45.5 14 46", "a.tif"]),
        (["--bbox", "13,45,14,46", "1", "2", "3"], ["--bbox", "13,45,14,46", "1", "2", "3"]),
        (["--bbox", "13", "45", "14"], ["--bbox", "13", "45", "14"]),
        (["a.tif", "--bbox"], ["a.tif", "--bbox"]),
    ],
)
def test_the_four_numbers_of_a_box_may_stand_apart(args: list[str], joined: list[str]) -> None:
    assert parse.joined_box(args) == joined


@pytest.mark.parametrize("text", ["B04=x", "B04=3,B03", "B04=", "B04=-1", "B04=²", "B04=1" + 5000 * "0"])
def test_malformed_bands(text: str) -> None:
    with pytest.raises(UsageError, match=f"`bands` is {text} but must look like B04=3"):
        parse.bands(text)


def test_boxes() -> None:
    assert parse.box("13.2,45.7, 13.4,45.8") == parse.box("13.2 45.7 13.4 45.8") == (13.2, 45.7, 13.4, 45.8)
    assert parse.box(None) is None


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,3,4,5"])
def test_malformed_boxes(text: str) -> None:
    with pytest.raises(UsageError, match=r"`bbox` is .* but must be west,south,east,north in degrees"):
        parse.box(text)


def test_mask_classes() -> None:
    assert parse.mask_classes("3,8, 9") == (3, 8, 9)
    assert parse.mask_classes(None) is None
    with pytest.raises(UsageError, match="`mask_classes` is 3,x but must be numbers"):
        parse.mask_classes("3,x")


def test_mask_bits() -> None:
    assert parse.mask_bits("1, 3") == (1, 3)
    assert parse.mask_bits(None) is None
    with pytest.raises(UsageError, match="`mask_bits` is 1,x but must be numbers, such as 1,3"):
        parse.mask_bits("1,x")


@pytest.mark.parametrize(
    ("command", "function", "args", "names"),
    [
        ("map", "map_scenes", ["s.tif"], ["bands", "bbox", "aoi", "mask", "mask_classes", "memory", "datetime"]),
        ("plan", "plan", ["s.tif"], ["bands", "bbox", "aoi", "mask", "mask_classes", "memory"]),
        ("train", "train", ["--out", "run", "--config", "c.json"], ["bands", "class_order"]),
    ],
)
def test_empty_options_are_not_given(
    command: str, function: str, args: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def refuse(*positional: Any, **keywords: Any) -> None:
        given.update(keywords, data=positional[0])
        raise UsageError("enough")

    monkeypatch.setattr(geocfl, function, refuse)
    empty = [part for name in names for part in (f"--{name.replace('_', '-')}", "")]
    result = CliRunner().invoke(app, [command, *args, *empty, *(["--data", ""] if command == "train" else [])])
    assert result.exit_code == 2
    assert {name: given[name] for name in names} == dict.fromkeys(names)
    assert command != "train" or given["data"] is None


def test_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert parse.shard("0/4") == (0, 4)
    assert parse.shard("auto/3") == (2, 3)
    assert parse.shard("") is parse.shard(None) is None


@pytest.mark.parametrize("text", ["1", "1/", "/4", "a/4", "1/b", "-1/4", "1/4/5", "auto/", "auto/x", "automatic"])
def test_malformed_shards(text: str) -> None:
    with pytest.raises(UsageError, match=r"`shard` is .* but must look like 0/4, auto or auto/4"):
        parse.shard(text)
