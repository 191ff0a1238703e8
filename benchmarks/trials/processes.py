"""Runs commands of geocfl in forked processes, which start at once because everything is imported already."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from geocfl.models.backends import load_backend
from geocfl.models.bundle import Bundle

PEAK_MB = 3000
"""Memory that no case may exceed. The imports alone take about 0.6 GB."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        code: Exit code; negative for a signal.
        out: Its standard output.
        err: Its standard error.
        timed_out: Whether it was killed because it took too long.
        peak_mb: Its peak memory.
    """

    code: int
    out: str
    err: str
    timed_out: bool = False
    peak_mb: float = 0.0

    @property
    def defect(self) -> str:
        """What no command may do, whatever happens to it; empty if it did nothing of the kind."""
        signs = {
            "hang": self.timed_out,
            f"crash ({signal.Signals(-self.code).name if self.code < 0 else ''})": self.code < 0,
            "traceback": "Traceback (most recent call last)" in self.err,
            "unexpected": "failed unexpectedly" in self.out + self.err,
            "memory": self.peak_mb > PEAK_MB,
            f"exit code {self.code}": self.code not in (0, 1, 2),
            "no message": self.code and not self.reason,
        }
        return next((sign for sign, seen in signs.items() if seen), "")

    @property
    def reason(self) -> str:
        """The error message."""
        lines = [line for line in self.err.splitlines() if line.startswith(("geocfl: ", "Error: ", "│"))]
        return " ".join(lines)[:500]

    @property
    def warnings(self) -> set[str]:
        """The warnings."""
        return {line for line in self.err.splitlines() if line.startswith("warning: ")}


def geocfl(
    arguments: Sequence[str],
    *,
    limit: float = 600,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], Any] | None = None,
    watch: Callable[[int, float], Any] | None = None,
) -> Outcome:
    """Runs ``geocfl ARGUMENTS`` in a forked process.

    Args:
        arguments: Those of the command line.
        limit: Seconds after which it is killed and counts as hanging.
        environment: Additional environment variables.
        before: Called in the process before the command.
        watch: Called again and again with the process and its age in seconds while it runs, for example to kill it.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            _child(arguments, out.fileno(), err.fileno(), environment or {}, before)
        started, timed_out = time.monotonic(), False
        while True:
            ended, status, usage = os.wait4(process, os.WNOHANG)
            if ended:
                break
            age = time.monotonic() - started
            if age > limit and not timed_out:
                os.kill(process, signal.SIGKILL)
                timed_out = True
            if watch:
                watch(process, age)
            time.sleep(0.0005 if watch else 0.01)
        said, complained = _text(out), _text(err)
    return Outcome(os.waitstatus_to_exitcode(status), said, complained, timed_out, usage.ru_maxrss / 1000)


def _text(file: IO[bytes]) -> str:
    """The first 10 MB of a file."""
    file.seek(0)
    return file.read(10_000_000).decode(errors="replace")


def _child(arguments: Sequence[str], out: int, err: int, environment: Mapping[str, str], before: Any) -> None:
    """Becomes the command; never returns."""
    code: Any = 0
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.update(environment)
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if before:
            before()
        _command().main(list(arguments), prog_name="geocfl")
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os._exit(code if isinstance(code, int) else 1)


@cache
def _command() -> Any:
    """The command line; typer takes a quarter of a second to build it."""
    import typer

    from geocfl.cli import app

    return typer.main.get_command(app)


def preload() -> None:
    """Imports what commands import, so that forked processes share it; starts no threads."""
    import geopandas
    import matplotlib.figure
    import pystac
    import torch
    import torchgeo.datasets

    import geocfl.cli
    import geocfl.models.backends.torch
    import geocfl.models.network
    import geocfl.training.loop
    import geocfl.training.train
    from geocfl import map_scenes, mosaic, stats, train

    torch.set_num_threads(1)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        _command().main(["info", "missing.tif"], prog_name="geocfl")
    assert all((geopandas, matplotlib, pystac, torchgeo, geocfl, map_scenes, mosaic, stats, train))


def preload_model(folder: Path) -> None:
    """Loads a model once for all forked processes, which also skip the measurement of its speed."""
    from geocfl.mapping import classifier

    bundle = Bundle.load(folder)
    backend = load_backend(bundle, "torch", "cpu", "float32", None, None)

    def loaded(model: Bundle, *how: Any) -> Any:
        known = model.path == bundle.path and how[0] == "torch" and not how[3]
        return backend if known else load_backend(model, *how)

    vars(classifier).update(load_backend=loaded, measure_rate=lambda *_: 1000.0)


def in_fork(function: Callable[..., Any], *arguments: Any) -> bool:
    """Calls a function in a forked process, since threads that it starts here would be lacking in later ones.

    Returns:
        Whether it raised nothing.
    """
    process = os.fork()
    if process == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(process, 0)[1] == 0


def files_in(folder: Path) -> dict[str, bytes]:
    """Relative path of each file below a folder, hidden ones included, to its content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
