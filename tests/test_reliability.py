"""The short trials of `benchmarks/reliability.py`: kills, lacking resources, broken and hostile inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/reliability.py"


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="commands run in forked processes")
def test_short_trials_find_no_defect() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--short"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
