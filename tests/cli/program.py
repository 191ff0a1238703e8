"""Runs the installed entry point, as a user does."""

import subprocess
import sys
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "geocfl")


def run(*args: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command, which has to end with this exit code and without a traceback."""
    done = subprocess.run([COMMAND, *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done
