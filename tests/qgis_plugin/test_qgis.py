"""The plugin in QGIS itself: headless by ``qgis_process``, and with a project as in its window."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build_plugin
import geopandas as gpd
import pytest
from geocfl_qgis.environment import INSTALL
from PIL import Image
from shapely.geometry import box

from geocfl.core.legend import EUROSAT
from geocfl.demonstration.demo import demo

pytestmark = pytest.mark.integration

PYTHON = "/usr/bin/python3"
ZONES = {"west": box(10.35, 47.76, 10.42, 47.83).wkt, "east": box(10.43, 47.76, 10.5, 47.83).wkt}
DRAWN = {
    "Water": box(600000, 5293000, 601500, 5300000).wkt,
    "Orchard": box(602000, 5290500, 604500, 5293500).wkt,
    "Woods": box(608500, 5297000, 611500, 5299800).wkt,
}
"""Land of the demonstration scene, in its coordinates."""
Ask = Callable[..., dict[str, Any]]


def qgis_process() -> str | None:
    """QGIS's program; Debian's is a script that adds an option which the program does not know."""
    return shutil.which("qgis_process.bin") or shutil.which("qgis_process")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's home where QGIS has no settings, geocfl is in a usual place, and the plugin is unpacked from its zip."""
    if sys.platform != "linux" or qgis_process() is None:
        pytest.skip("no qgis_process")
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    (home / ".local/bin").mkdir(parents=True)
    (home / ".local/bin/geocfl").symlink_to(Path(sys.executable).parent / "geocfl")
    build_plugin.write_zip(home / "plugin.zip")
    shutil.unpack_archive(home / "plugin.zip", home / "plugins")
    kept = {
        name: os.environ[name] for name in ("GEOCFL_CACHE", "GEOCFL_BFLOAT16", "OMP_NUM_THREADS") if name in os.environ
    }
    return kept | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PATH": "/usr/bin:/bin",
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_PLUGINPATH": str(home / "plugins"),
        "PYTHONPATH": str(home / "plugins"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/usr/lib/grass82/lib",  # as Debian's script sets it
    }


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration scene and its map."""
    folder = tmp_path_factory.mktemp("demo")
    demo(folder)
    return folder


@pytest.fixture(scope="module")
def process(environment: dict[str, str]) -> Ask:
    """Runs an algorithm by ``qgis_process``."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(qgis_process()), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def ask(name: str, code: int = 0, **parameters: object) -> dict[str, Any]:
        given = [
            f"{key}={item}"
            for key, value in parameters.items()
            for item in (value if isinstance(value, list) else [value])
        ]
        done = run("--json", "run", f"geocfl:{name}", "--", *given, code=code)
        return {"error": done.stderr} if code else json.loads(done.stdout[done.stdout.index("{") :])

    run("plugins", "enable", "geocfl_qgis")
    return ask


def test_headless_from_a_scene_to_an_assessment(process: Ask, demonstration: Path, tmp_path: Path) -> None:
    scene = demonstration / "demo_scene.tif"
    mapped = process("map", SCENE=scene, OUT=tmp_path / "maps", STRIDE=32, PRODUCTS=["lulc", "confidence"])["results"]
    assert Path(mapped["LULC"]).is_file()
    assert Path(mapped["CONFIDENCE"]).is_file()
    assert "POLYGONS" not in mapped

    zones = tmp_path / "zones.gpkg"
    polygons = gpd.GeoSeries.from_wkt(list(ZONES.values()), crs=4326)
    gpd.GeoDataFrame({"name": list(ZONES)}, geometry=polygons).to_file(zones, layer="in", driver="GPKG")
    areas = tmp_path / "areas.gpkg"
    assert (
        process("stats", MAP=mapped["LULC"], ZONES=zones, BY="name", OUT=areas)["results"]["AREAS"]
        == f"{areas}|layername=zones"
    )
    assert set(gpd.read_file(areas, layer="zones")["zone"]) == {"west", "east"}

    sample = tmp_path / "sample.gpkg"
    drawn = process("sample", MAP=mapped["LULC"], SIZE=60, OUT=sample, SEED=3)["results"]
    assert drawn["SAMPLE"] == f"{sample}|layername=sample"
    answers = tmp_path / "answers.csv"
    points = gpd.read_file(sample, layer="sample", ignore_geometry=True)
    points[["id"]].assign(reference=points["map_class"]).to_csv(answers, index=False)
    out = tmp_path / "assessment"
    assessed = process("assess", MAP=mapped["LULC"], SAMPLE=sample, ANSWERS=answers, OUT=out)["results"]
    assert Path(assessed["REPORT"]) == out / "report.html"
    assert json.loads(Path(assessed["ASSESSMENT"]).read_text())["overall_accuracy"]["value"] == 1


def test_headless_errors_are_geocfls_own(process: Ask, demonstration: Path, tmp_path: Path) -> None:
    failed = process("map", code=1, SCENE=demonstration / "demo_scene_lulc.tif", OUT=tmp_path)
    assert "demo_scene_lulc.tif: " in failed["error"]
    assert "Traceback" not in failed["error"]


@pytest.fixture(scope="module")
def window(environment: dict[str, str]) -> Ask:
    """Answers of QGIS to requests, see `in_qgis.py`."""

    def ask(*requests: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [PYTHON, str(Path(__file__).with_name("in_qgis.py"))],
            env=environment,
            input=json.dumps(requests, default=str),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


def test_results_are_loaded_with_their_styles(window: Ask, demonstration: Path, tmp_path: Path) -> None:
    picture = tmp_path / "map.png"
    of_map = {"MAP": "@Land cover: demo_scene", "OUT": "TEMPORARY_OUTPUT"}
    done = window(
        {"run": "geocfl:map", "parameters": {"SCENE": demonstration / "demo_scene.tif", "OUT": tmp_path / "maps"}},
        {"picture": picture},
        {"memory": "zones", "polygons": ZONES},
        {"run": "geocfl:stats", "parameters": {**of_map, "ZONES": "@zones", "BY": "name"}},
        {"run": "geocfl:sample", "parameters": {**of_map, "SIZE": 20}},
    )
    mapped, drawn, _, areas, sample = done["answers"]
    names = [c.name for c in EUROSAT]
    assert mapped["ok"], mapped["log"]
    assert mapped["percents"][-1] == 100
    assert len(set(mapped["percents"])) > 2
    assert mapped["turns"] > 10, "the window was alive"
    assert mapped["layers"]["Land cover: demo_scene"] | {"widgets": None} == {
        "renderer": "paletted", "labels": names, "visible": True, "widgets": None,
    }  # fmt: skip
    assert mapped["layers"]["Confidence: demo_scene"]["renderer"] == "singlebandpseudocolor"
    polygons = mapped["layers"]["Land cover polygons: demo_scene"]
    assert (polygons["labels"], polygons["visible"]) == (names, False)
    assert drawn == ["Land cover: demo_scene"]
    with Image.open(picture) as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 16) or []}
    assert colors - {(255, 255, 255)} <= {tuple(bytes.fromhex(c.color[1:])) for c in EUROSAT}
    assert len(colors) > 8
    assert list(areas["layers"]) == ["Areas of classes: OUT"]
    assert sample["layers"]["Sample: OUT"]["widgets"]["reference"] == "ValueMap"
    assert done["bar"] == []


def test_from_drawn_labels_to_a_map_of_them(window: Ask, demonstration: Path, tmp_path: Path) -> None:
    scene, patches, model = demonstration / "demo_scene.tif", tmp_path / "patches", tmp_path / "model"
    labels = {"SCENES": [scene], "LABELS": "@drawn", "BY": "name", "OUT": patches}
    to_map = {"SCENE": scene, "MODEL_FOLDER": model, "OUT": tmp_path / "maps"}
    done = window(
        {"memory": "drawn", "polygons": DRAWN, "crs": "EPSG:32632"},
        {"run": "geocfl:patches", "parameters": labels},
        {"run": "geocfl:train", "parameters": {"DATA": patches, "FREEZE": True, "OUT": model}},
        {"run": "geocfl:map", "parameters": to_map},
    )
    _, cut, trained, mapped = done["answers"]
    assert done["bar"] == []
    assert cut["layers"]["Patches: patches"]["visible"]
    assert {folder.name for folder in patches.iterdir() if folder.is_dir()} == set(DRAWN)
    assert trained["results"]["REPORT"] == str(model / "report.html")
    assert set(mapped["layers"]["Land cover: demo_scene"]["labels"]) == set(DRAWN)


def write_program(folder: Path, script: str) -> Path:
    """A program that passes for geocfl."""
    program = folder / "bin" / "geocfl"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_what_fails_is_one_sentence_in_the_message_bar(window: Ask, demonstration: Path, tmp_path: Path) -> None:
    map_file = demonstration / "demo_scene_lulc.tif"
    points = tmp_path / "s.gpkg"
    empty = tmp_path / "empty"
    empty.mkdir()
    old = write_program(tmp_path / "old", "echo geocfl 0.0.1")
    lacking = write_program(
        tmp_path / "lacking",
        "[ $1 = --version ] && echo geocfl 0.1.0 && exit; echo \"Error: No such command 'sample'.\" >&2; exit 2",
    )
    sample = {"run": "geocfl:sample", "parameters": {"MAP": map_file, "SIZE": 20, "OUT": points}}
    done = window(
        sample,
        sample,
        {"memory": "zones", "polygons": ZONES, "edited": True},
        {"run": "geocfl:stats", "parameters": {"MAP": map_file, "ZONES": "@zones"}},
        {"setting": empty},
        sample,
        {"run": "geocfl:check", "parameters": {}},
        {"setting": old.parents[1]},
        sample,
        {"setting": lacking},
        sample,
        {"setting": ""},
    )
    without = done["answers"][5]
    assert not without["ok"]
    assert "empty contains no geocfl; choose the folder" in without["log"]
    assert [text for _, text, _, on_main_thread in done["bar"] if on_main_thread] == [
        f"Draw a sample: {points}: already exists; use “Replace existing outputs” to replace it, or choose another "
        "“Sample”",
        "Areas of classes in zones: zones has edits that are not saved; save them first",
        f"Check the installation of geocfl: {without['log']}",
        f"Draw a sample: {old} is geocfl 0.0.1, but the plugin needs 0.1.0 or newer; upgrade it ({INSTALL})",
        f"Draw a sample: No such command 'sample'; this geocfl is older than the plugin: upgrade it ({INSTALL})",
    ]


def test_cancel_leaves_no_process_and_nothing_half_written(window: Ask, demonstration: Path, tmp_path: Path) -> None:
    scene = {"SCENE": demonstration / "demo_scene.tif", "OUT": tmp_path / "maps", "STRIDE": 2}
    done = window({"run": "geocfl:map", "parameters": scene, "cancel": True})
    assert "Canceled. Run the algorithm again" in done["answers"][0]["log"]
    assert done["answers"][0]["layers"] == {}
    assert not list((tmp_path / "maps").glob("*.tif"))
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "maps") not in running
