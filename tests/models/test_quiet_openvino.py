"""OpenVINO without its reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")
IMPORT = "from geocfl.models.quiet_openvino import ov; ov.Core(); import openvino_telemetry"


def test_openvino_is_imported_without_its_reports_home(tmp_path: Path) -> None:
    home, package = tmp_path / "home", tmp_path / "packages" / "openvino_telemetry"
    package.mkdir(parents=True)
    home.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('telemetry was imported')")
    environment = os.environ | {"PYTHONPATH": str(package.parent), "HOME": str(home), "USERPROFILE": str(home)}
    environment.pop("CI", None)  # openvino_telemetry sends nothing in tests that run as such
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    # Only the import by name, after OpenVINO's own, finds the package: it is not kept from others.
    assert done.stderr.strip() == "telemetry was imported"
    assert not list(home.iterdir())
