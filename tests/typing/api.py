"""What type checkers see of the public functions; checked by mypy, never run.

Each unused `type: ignore` is an error, so these lines prove that mypy refuses a wrong keyword or value.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import geocfl


def maps() -> None:
    made = geocfl.map_scene("scene.tif", Path("maps"), stride=16, bbox=(13.0, 52.3, 13.8, 52.7), products=("lulc",))
    assert_type(made, geocfl.SceneMap)
    assert_type(made.paths, dict[str, Path])
    assert_type(made.lulc, NDArray[np.uint8])
    assert_type(geocfl.open_map("maps/scene_lulc.tif"), geocfl.SceneMap)
    results = geocfl.map_scenes(["a.tif", Path("b.tif")], bands={"B04": 3, "B03": 2, "B02": 1}, memory="2GB")
    assert_type(results, Iterator[tuple[str, geocfl.SceneMap | geocfl.GeocflError]])
    assert_type(geocfl.plan("scene.tif", machines=10, datetime=dt.datetime(2024, 6, 1)), geocfl.Plan)
    assert_type(geocfl.status(["maps", Path("events.jsonl")]).failed, int)
    assert_type(geocfl.demo("demo").result, geocfl.SceneMap)
    assert_type(geocfl.find_clouds("scene.tif", "clouds.tif", buffer=0), Path)

    drawn = geocfl.sample(made, "sample.gpkg", size=100, expected_ua={"Forest": 0.9})
    assert_type(drawn, geocfl.Sample)
    assert_type(geocfl.assess("maps", drawn.paths[0], out=Path("out")), geocfl.Assessment)
    geocfl.sample(made, "sample.gpkg", size="100")  # type: ignore[arg-type]

    geocfl.map_scene("scene.tif")  # type: ignore[call-arg]
    geocfl.map_scene("scene.tif", "maps", strid=16)  # type: ignore[call-arg]
    geocfl.map_scene("scene.tif", "maps", stride="16")  # type: ignore[arg-type]
    geocfl.map_scene("scene.tif", "maps", bbox="13,52,14,53")  # type: ignore[arg-type]
    geocfl.map_scene("scene.tif", "maps", bbox=(13.0, 52.3, 13.8))  # type: ignore[arg-type]
    geocfl.map_scene("scene.tif", "maps", mask_classes="3,8")  # type: ignore[arg-type]
    geocfl.map_scenes(["scene.tif"], products=[1])  # type: ignore[list-item]
    geocfl.plan("scene.tif", workers=10)  # type: ignore[call-arg]
    geocfl.plan("scene.tif", tta="8")  # type: ignore[arg-type]
    geocfl.demo("demo", stride=16)  # type: ignore[call-arg]


def finished_maps(made: geocfl.SceneMap) -> None:
    assert_type(geocfl.stats(made, "zones.gpkg", by="name"), geocfl.ZonalStatistics)
    assert_type(geocfl.mosaic([made, "maps"], "all_lulc.tif", vector=("gpkg",)), geocfl.Mosaic)

    assert_type(geocfl.change(made, "b_lulc.tif", "x_change.tif", forbid=[("a", "b")]), geocfl.ChangeMap)

    assert_type(geocfl.compare_maps(made, "worldcover.tif", "crosswalk.csv"), geocfl.MapComparison)

    geocfl.stats(made)  # type: ignore[call-arg]
    geocfl.mosaic([1], "all_lulc.tif")  # type: ignore[list-item]


def models() -> None:
    model = geocfl.load_model("eurosat-rgb-lite0")
    assert_type(model, geocfl.Model)
    assert_type(model.predict(np.zeros((3, 128, 128), np.float32), stride=32), geocfl.Prediction)
    assert_type(model.with_tta(8), geocfl.Model)
    assert_type(geocfl.export("eurosat-rgb-lite0", format="onnx"), list[Path])
    assert_type(geocfl.info("scene.tif"), dict[str, Any])

    geocfl.load_model(8)  # type: ignore[arg-type]
    geocfl.export("eurosat-rgb-lite0", fmt="onnx")  # type: ignore[call-arg]
    geocfl.info("scene.tif", scale="10000")  # type: ignore[arg-type]


def training() -> None:
    run = geocfl.train("EuroSAT.zip", "run", backbone="lite0", freeze=True, class_order=(3, 1, 2), teacher=("a", "b"))
    assert_type(run, geocfl.Run)
    assert_type(geocfl.evaluate("run", data="EuroSAT.zip", out="evaluation", subset="test"), geocfl.Evaluation)
    compared = geocfl.compare("EuroSAT.zip", "comparison", losses=("ce", "class-focal"), seeds=range(3))
    assert_type(compared, geocfl.Comparison)
    geocfl.register_backbone("convnext", "convnext_atto")

    geocfl.train("EuroSAT.zip", "run", views=8)  # type: ignore[call-arg]
    geocfl.train("EuroSAT.zip", "run", epochs="3")  # type: ignore[arg-type]
    geocfl.train("EuroSAT.zip", "run", class_order=("3", "1"))  # type: ignore[arg-type]
    geocfl.evaluate("run", data="EuroSAT.zip")  # type: ignore[call-arg]
    geocfl.compare("EuroSAT.zip", "comparison", seeds=3)  # type: ignore[arg-type]
