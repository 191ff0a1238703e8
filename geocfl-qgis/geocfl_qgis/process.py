"""Runs a program and follows it: lines of its output, its progress, and its end when the user cancels it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, cast

OUT, ERR = "out", "err"
SENTENCE = "geocfl: "
"""What the sentence of an error begins with."""
WAIT_S = 5.0
"""Seconds that a program has to stop by itself, and to leave its work so that it can be resumed."""
WINDOWS = sys.platform == "win32"


@dataclass
class Finished:
    """How a program ended.

    Attributes:
        code: Its exit code.
        out: Lines of standard output.
        err: Lines of standard error, without progress.
        canceled: Whether the user has canceled it.
    """

    code: int = 0
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    canceled: bool = False


def run(
    program: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[str, str], object] = lambda stream, line: None,
    on_progress: Callable[[float, str], object] = lambda percent, text: None,
    canceled: Callable[[], bool] = lambda: False,
) -> Finished:
    """Runs a program until it ends or the user cancels it, and calls back from this thread only.

    Args:
        program: The program and its arguments.
        environment: Its environment.
        on_line: Called with the stream, `OUT` or `ERR`, and each line on it.
        on_progress: Called with percent and what is done.
        canceled: Whether the user has canceled; asked ten times a second.

    Raises:
        OSError: The program cannot be started.
    """
    process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
        list(program),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=not WINDOWS,  # a group of its own, with the processes that it starts
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
    for stream, pipe in ((OUT, process.stdout), (ERR, process.stderr)):
        threading.Thread(target=_read, args=(stream, cast("IO[str]", pipe), lines), daemon=True).start()
    done = Finished()
    reading = 2
    while reading:
        if canceled() and not done.canceled:
            done.canceled = True
            stop(process)
        try:
            stream, line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            reading -= 1
        elif stream == ERR and (step := progress(line)):
            on_progress(*step)
        else:
            (done.out if stream == OUT else done.err).append(line)
            on_line(stream, line)
    done.code = process.wait()
    return done


def _read(stream: str, pipe: IO[str], lines: queue.Queue[tuple[str, str | None]]) -> None:
    with pipe:
        for line in pipe:
            lines.put((stream, line.rstrip("\r\n")))
    lines.put((stream, None))


def progress(line: str) -> tuple[float, str] | None:
    """Percent and text of a line of progress that geocfl prints for ``GEOCFL_PROGRESS=json``.

    Of several pieces of work that count themselves, such as ``epoch 3/20``, each is its share of all.

    Returns:
        None for another line.
    """
    if not line.startswith('{"progress"'):
        return None
    try:
        step = json.loads(line)
        what, done, total, unit = str(step["progress"]), int(step["done"]), int(step["total"]), str(step["unit"])
    except (ValueError, KeyError, TypeError):
        return None
    share = done / total if total else 1.0
    number, slash, of = what.rpartition(" ")[2].partition("/")
    if slash and number.isdigit() and of.isdigit() and 0 < int(number) <= int(of):
        share = (int(number) - 1 + share) / int(of)
    return 100 * share, f"{what}: {done} / {total} {unit}s"


def stop(process: subprocess.Popen[str]) -> None:
    """Stops a program and all that it has started: as Ctrl-C does, and by force after `WAIT_S`."""
    if WINDOWS:
        subprocess.run(  # noqa: S603
            ["taskkill", "/F", "/T", "/PID", str(process.pid)],  # noqa: S607 - part of Windows
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            capture_output=True,
            check=False,
        )
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            continue


def failure(done: Finished) -> str:
    """Why a program failed, in its own sentence: what it says after its name or ``Error:``, else its last line."""
    for line in reversed(done.err):
        for prefix in (SENTENCE, "Error: "):
            if line.startswith(prefix):
                return line[len(prefix) :]
    last = next((line.strip() for line in reversed(done.err) if line.strip()), "")
    return f"{last or 'no message'} (exit code {done.code})"
