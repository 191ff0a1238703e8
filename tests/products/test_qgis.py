"""QGIS as a judge: a map's products opened there, without a click, show named and coloured classes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geocfl.legend import EUROSAT

PYTHON = "/usr/bin/python3"
ENVIRONMENT = os.environ | {"QT_QPA_PLATFORM": "offscreen", "PYTHONDONTWRITEBYTECODE": "1"}
ZOOM = 8


@pytest.fixture(scope="module")
def has_qgis():
    if sys.platform != "linux" or shutil.which(PYTHON) is None:
        pytest.skip(f"no {PYTHON} to look for QGIS in")
    if subprocess.run([PYTHON, "-c", "import qgis.core"], env=ENVIRONMENT, capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} has no QGIS bindings")


@pytest.fixture
def shown(has_qgis, tmp_path, codes, grid_of, make_products):
    """What QGIS makes of the products, and the folder of its pictures."""
    codes[codes == 255] = 1
    folder = make_products(codes, grid_of(codes))
    before = sorted(path.name for path in folder.iterdir())
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("qgis_check.py"), folder, tmp_path],
        env=ENVIRONMENT | {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before
    return json.loads(done.stdout.splitlines()[-1]), tmp_path


def cell_colors(picture, shape):
    """(rows, columns, 3) colours in the middle of the cells."""
    pixels = np.asarray(Image.open(picture).convert("RGBA"))
    return pixels[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM][: shape[0], : shape[1]]


def test_qgis_shows_ten_named_coloured_classes(shown, codes):
    result, pictures = shown
    wanted = [[c.code, c.name, c.color] for c in EUROSAT]

    lulc = result["lulc"]
    assert lulc == {"valid": True, "crs": "EPSG:32633", "renderer": "paletted", "classes": wanted}
    for polygons in result["polygons"]:
        assert polygons.pop("features") > 10
        assert polygons == {
            "valid": True,
            "crs": "EPSG:32633",
            "renderer": "categorizedSymbol",
            "attribute": "class_code",
            "classes": wanted,
        }
    confidence = result["confidence"]
    assert confidence["renderer"] == "singlebandpseudocolor"
    assert confidence["range"] == [0, 1]
    assert confidence["value"] == pytest.approx(0.5)

    for name in ("lulc", "polygons"):
        colors = cell_colors(pictures / f"{name}.png", codes.shape)
        for c in EUROSAT:
            assert (colors[codes == c.code] == (*c.rgb, 255)).all(), (name, c.name)
        assert (colors[codes == 0, 3] == 0).all()
    drawn = cell_colors(pictures / "confidence.png", codes.shape)
    assert drawn[codes != 0, :3].mean(axis=0) == pytest.approx((0x21, 0x91, 0x8C), abs=2)  # half of the ramp
    assert (drawn[codes == 0, 3] == 0).all()
