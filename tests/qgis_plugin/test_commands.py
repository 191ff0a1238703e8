"""The plugin's options exist in the command line, with the same choices, bounds and words."""

from pathlib import Path
from typing import Any

import pytest
from geocfl_qgis import commands
from geocfl_qgis.catalog import CHANGE, COMMANDS, MAP_SCENE, MOSAIC, SAMPLE, STATS, TRAIN
from geocfl_qgis.commands import Command, Option, arguments, printed_files, results, shown, with_ending
from typer.main import get_command

from geocfl.cli import app, completion
from geocfl.models.bundle import bundled_models
from geocfl.products import selection

PROGRAM: Any = get_command(app)
OPTIONS = [
    pytest.param(command, option, id=f"{command.name}-{option.key}")
    for command in COMMANDS
    for option in command.options
]
DEFAULT_CHOICES = {
    "default": tuple(name for name in selection.DEFAULT if name != "summary"),
    "gpkg": ("gpkg",),
    "none": None,
}
VALUES = {
    commands.RASTER: "a b.tif",
    commands.RASTERS: ["a_lulc.tif", "b_lulc.tif"],
    commands.VECTOR: ("zones.gpkg", "zones"),
    commands.VECTOR_FILE: "sample.gpkg",
    commands.FIELD: "name",
    commands.FILE: "answers.csv",
    commands.FOLDER: "-folder",
    commands.TEXT: "B04=1",
    commands.TEXTS: "Forest>River\n\nRiver>Forest\n",
    commands.FLAG: True,
    commands.POINT: [-13.5, 45.5],
    commands.EXTENT: [-5.5, 45.0, -5.0, 45.5],
    commands.CRS: "EPSG:32633",
    commands.NEW_FILE: "out.tif",
    commands.NEW_FOLDER: "out",
}


def parameter_of(command: Command, option: Option) -> Any:
    return next(p for p in PROGRAM.commands[command.name].params if p.name == option.name)


def value_for(option: Option) -> Any:
    if option.kind in (commands.INTEGER, commands.NUMBER):
        least, most = option.between
        return most if most is not None else -1000 if least is None else least + 2
    if option.kind in (commands.CHOICE, commands.CHOICES):
        return option.choices[-1] if option.kind == commands.CHOICE else list(option.choices)
    return VALUES[option.kind]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_each_option_is_one_of_the_command(command: Command, option: Option) -> None:
    parameter = parameter_of(command, option)
    assert option.positional == (parameter.param_type_name == "argument")
    if not option.positional:
        assert option.flag in parameter.opts
    assert bool(getattr(parameter, "is_flag", False)) == (option.kind == commands.FLAG and not option.value)
    if option.layer:
        assert any(p.name == option.layer for p in PROGRAM.commands[command.name].params)
    if option.fields_of:
        assert any(other.key == option.fields_of for other in command.options)
    assert command.sentence(option)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_what_the_command_requires_is_asked_for(command: Command) -> None:
    names = {option.name for option in command.options}
    assert {p.name for p in PROGRAM.commands[command.name].params if p.required} <= names
    keys = [option.key for option in command.options]
    assert len(set(keys)) == len(keys)
    assert len({output.key for output in command.outputs} | set(keys)) == len(keys) + len(command.outputs)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_arguments_are_understood(command: Command) -> None:
    values = {option.key: value_for(option) for option in command.options}
    name, *given = arguments(command, values)
    context = PROGRAM.commands[name].make_context(name, given)
    for option in command.options:
        got = context.params[option.name]
        last = [other for other in command.options if other.name == option.name][-1]
        value = values[option.key]
        if option is not last:
            continue
        if option.kind == commands.TEXTS:
            assert got == ["Forest>River", "River>Forest"]
        elif option.kind == commands.VECTOR:
            assert str(got) == "zones.gpkg"
            assert not option.layer or context.params[option.layer] == "zones"
        elif option.kind in (commands.NUMBER, commands.FLAG):
            assert got == (option.value or value)
        elif option.kind in (commands.CHOICES, commands.EXTENT, commands.POINT):
            assert got == ",".join(map(str, value))
        elif option.ending:
            assert str(got) == f"out{option.ending}"
        else:
            assert str(got[0] if isinstance(got, list) else got) == str(value[0] if isinstance(value, list) else value)


def test_choices_are_those_of_the_command_line() -> None:
    choices = {(command.name, o.key): set(o.choices) for command in COMMANDS for o in command.options if o.choices}
    assert choices["map", "MODEL"] == set(bundled_models())
    assert choices["map", "PRODUCTS"] == set(completion.PRODUCT_NAMES) - {"default", "all", "summary"}
    assert choices["map", "VECTOR"] == choices["mosaic", "VECTOR"] == set(completion.VECTOR_FORMATS) - {"none"}
    assert choices["map", "BACKEND"] == set(completion.BACKENDS)
    assert choices["patches", "OVERLAP"] == set(completion.OVERLAPS)
    assert choices["train", "SPLIT"] == set(completion.SPLITS)
    assert choices["train", "LOSS"] == set(completion.LOSSES)
    assert choices["map", "PRECISION"] == set(completion.PRECISIONS)
    assert choices["map", "DEVICE"] == set(completion.DEVICES)
    assert choices["sample", "DESIGN"] == set(completion.DESIGNS)


def test_defaults_are_those_of_the_command_line() -> None:
    for command in COMMANDS:
        for option in command.options:
            default = parameter_of(command, option).default
            if option.kind == commands.CHOICES:
                default = DEFAULT_CHOICES[default]
            if option.default is not None and option.kind != commands.FLAG:
                assert default == option.default, (command.name, option.key)


def test_values_that_are_not_given_leave_no_argument() -> None:
    values = {
        "SCENE": "s.tif",
        "OUT": "maps",
        "STRIDE": 16,
        "MASK_SCL": False,
        "BANDS": "",
        "PRODUCTS": [],
        "BBOX": None,
    }
    assert arguments(MAP_SCENE, values) == ["map", "--out=maps", "--stride=16", "--", "s.tif"]


def test_the_second_of_two_ways_counts() -> None:
    values = {"SCENE": "s.tif", "SCENE_OTHER": "S2.SAFE", "MODEL": "a", "MODEL_FOLDER": "b", "MASK_SCL": True}
    assert arguments(MAP_SCENE, values) == ["map", "--model=b", "--mask=scl", "--", "S2.SAFE"]
    assert arguments(MOSAIC, {"OUT": "x.tif", "OUT_FOLDER": "d", "MAPS": ["a.tif"]}) == [
        "mosaic",
        "--out=d",
        "--",
        "a.tif",
    ]
    tiles = {"GRID_POLYGONS": ("t.gpkg", "in"), "TILES_BY": "name", "WORKERS": 4, "OUT_FOLDER": "d", "MAPS": ["a.tif"]}
    assert set(arguments(MOSAIC, tiles)[1:-2]) == {
        "--grid=t.gpkg", "--layer=in", "--by=name", "--workers=4", "--out=d",
    }  # fmt: skip
    assert "--grid=mgrs" in arguments(MOSAIC, {"GRID": "mgrs", "OUT_FOLDER": "d", "MAPS": ["a.tif"]})
    assert arguments(SAMPLE, {"MAP": "a", "STRATA_POLYGONS": ("s.gpkg", "")})[1:] == ["--strata=s.gpkg", "--", "a"]
    assert arguments(STATS, {"MAP": "a", "ZONES": ("z.gpkg", "in")})[1:3] == ["--zones=z.gpkg", "--layer=in"]


def test_endings() -> None:
    assert with_ending("a/OUT.tif", "_change.tif") == "a/OUT_change.tif"
    assert with_ending("a/OUT_change.tif", "_change.tif") == "a/OUT_change.tif"
    assert with_ending("a/OUT", "_lulc.tif") == "a/OUT_lulc.tif"
    assert with_ending("a/OUT_lulc.vrt", "_lulc.tif") == "a/OUT_lulc.vrt"


def test_messages_name_options_as_the_dialog_does() -> None:
    assert CHANGE.with_labels("use --overwrite to replace it") == "use “Replace existing outputs” to replace it"
    assert CHANGE.with_labels("use --min-area=2 or --workers") == "use “Smallest polygon in hectares”=2 or --workers"
    assert "--" not in MAP_SCENE.sentence(next(o for o in MAP_SCENE.options if o.key == "OFFSET"))


def test_files_that_a_command_prints(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a b_lulc.tif", "a b_lulc.gpkg", "a b_summary.json")]
    for file in files[:2]:
        file.touch()
    found = printed_files(
        ["class  cells", f"  {files[0]}", f"  {files[1]}", f"  {files[2]}", f"{files[0]}: mapped", "  "]
    )
    assert found == [str(file) for file in files[:2]]
    assert [(output.key, file) for output, file in results(MAP_SCENE, found, "")] == [
        ("LULC", str(files[0])),
        ("POLYGONS", str(files[1])),
    ]


def test_files_that_a_command_does_not_list(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.touch()
    assert [(output.key, file) for output, file in results(TRAIN, [], str(tmp_path))] == [("REPORT", str(report))]


def test_the_command_can_be_copied() -> None:
    assert shown(["map", "--", "a b.tif"]) == "geocfl map -- 'a b.tif'"
