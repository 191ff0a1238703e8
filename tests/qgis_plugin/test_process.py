"""A program is followed while it runs, and stopped with all that it has started."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from geocfl_qgis import process
from geocfl_qgis.process import ERR, OUT, Finished, failure, progress, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_progress_is_a_share_of_all() -> None:
    def line(what: str, done: int, total: int) -> str:
        return json.dumps({"progress": what, "done": done, "total": total, "unit": "window"})

    assert progress(line("a.tif", 80, 320)) == (25.0, "a.tif: 80 / 320 windows")
    assert progress(line("epoch 3/4", 5, 10)) == (62.5, "epoch 3/4: 5 / 10 windows")
    assert progress(line("a 7/4", 0, 0)) == (100.0, "a 7/4: 0 / 0 windows")
    for other in ("mapping a.tif", '{"progress": 1}', '{"progress"', '{"progress": "a", "done": "x", "total": 1}'):
        assert progress(other) is None


@pytest.mark.parametrize(
    ("err", "sentence"),
    [
        (["mapping", "geocfl: a.tif: no such file; check it", "  see https://x"], "a.tif: no such file; check it"),
        (["Usage: geocfl map", "", "Error: No such option: --stried"], "No such option: --stried"),
        (["Traceback", "MemoryError", ""], "MemoryError (exit code 1)"),
        ([], "no message (exit code 1)"),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence(err: list[str], sentence: str) -> None:
    assert failure(Finished(1, err=err)) == sentence


@pytest.mark.integration
def test_a_program_is_followed() -> None:
    lines: list[tuple[str, str]] = []
    steps: list[float] = []
    code = (
        "import sys, json\nprint('Öl')\nprint('warning: w', file=sys.stderr)\n"
        "print(json.dumps({'progress': 'a', 'done': 1, 'total': 2, 'unit': 'x'}), file=sys.stderr)\nsys.exit(3)"
    )
    done = run(
        python(code),
        {**os.environ, "PYTHONUTF8": "1"},
        lambda stream, line: lines.append((stream, line)),
        lambda percent, text: steps.append(percent),
    )
    assert (done.code, done.out, done.err, done.canceled) == (3, ["Öl"], ["warning: w"], False)
    assert sorted(lines) == [(ERR, "warning: w"), (OUT, "Öl")]
    assert steps == [50.0]


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("stubborn", [False, True], ids=["obeys", "ignores"])
def test_cancel_stops_the_program_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(process, "WAIT_S", 1.0)
    child = tmp_path / "child"
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " if stubborn else ""
    code = (
        f"{ignore}import subprocess, sys, time, pathlib\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(p.pid))\ntime.sleep(60)"
    )
    start = time.monotonic()
    done = run(python(code), os.environ, canceled=lambda: child.exists() and bool(child.read_text()))
    assert done.canceled
    assert done.code != 0
    assert time.monotonic() - start < 30
    pid = int(child.read_text())
    for _ in range(50):
        if not _runs(pid):
            break
        time.sleep(0.1)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
