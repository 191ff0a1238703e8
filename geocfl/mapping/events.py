"""Events of a run, a line of JSON each: written while it goes on, and read again."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import platform
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from geocfl._version import __version__
from geocfl.core.files import parsed_json
from geocfl.errors import GeocflError, OutputError, UsageError
from geocfl.mapping.attempts import Ended
from geocfl.products.storage import in_store, output_folder
from geocfl.scenes.collect import Listed
from geocfl.scenes.urls import without_secrets

VERSION = 1
"""Version of the events' schema."""
STANDARD_OUTPUT = "-"
PAGE = "reference/events/"
_FIRST = b'{"event": '
"""How a file of events begins."""
_NUMBER = (int, float)
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "run": {"scenes": (int,), "listed": (int,), "list": (str,), "host": (str,), "pid": (int,)},
    "start": {"scene": (str,), "attempt": (int,)},
    "scene": {
        "scene": (str,),
        "outcome": (str,),
        "error": (str,),
        "reason": (str,),
        "attempt": (int,),
        "start": (str,),
        "end": (str,),
        "elapsed": _NUMBER,
        "seconds": (dict,),
        "windows": (int,),
    },
    "end": {"result": (str,)},
}
"""Fields of each kind of event that readers rely on, and their types."""
_TIMES = ("time", "start", "end")
_FINAL = ("done", "skipped", "failed")
_OUTCOMES = frozenset({*_FINAL, "retried", "busy"})


class EventLog:
    """Writes the events of one run; a context manager, whose end is the run's last event.

    Each event is written and flushed as one line, so that a killed run leaves no more than one incomplete line, and
    several runs may append to the same file.

    Args:
        target: A file, created with its folder, or appended to; ``"-"`` for standard output; None to write nothing.
        facts: What the run is, for its first event.

    Attributes:
        run: The run's identifier.

    Raises:
        OutputError: The file cannot be written.
        UsageError: It is in an object store.
    """

    def __init__(self, target: str | Path | None, facts: Mapping[str, Any]) -> None:
        self.run = uuid.uuid4().hex[:12]
        self._target, self._counts = target, dict.fromkeys(_FINAL, 0)
        self._lock, self._file = threading.Lock(), -1
        if target is None:
            return
        if str(target) == STANDARD_OUTPUT:
            sys.stdout.flush()
        else:
            self._file = _opened(target)
        host = {"version": __version__, "host": platform.node(), "pid": os.getpid()}
        self._write("run", {**host, **facts})

    def started(self, scene: Listed, number: int, host: str, pid: int) -> None:
        """Notes that an attempt at a scene begins."""
        self._write("start", {"scene": scene.path, "attempt": number, "host": host, "pid": pid})

    def ended(self, scene: Listed, ended: Ended) -> None:
        """Notes the end of an attempt at a scene."""
        attempt = ended.attempt
        if ended.outcome in self._counts:
            self._counts[ended.outcome] += 1
        if self._target is None:
            return
        measured, result = attempt.measured, attempt.result
        failed = isinstance(result, GeocflError)
        self._write(
            "scene",
            {
                "scene": scene.path,
                "stem": scene.source.stem if scene.source else "",
                "folder": scene.folder,
                "given": list(scene.given),
                "digest": measured.digest,
                "outcome": ended.outcome,
                "error": (type(result).__name__ if not attempt.unforeseen else "UnforeseenError") if failed else "",
                "reason": without_secrets(str(result)) if failed else "",
                "stage": measured.stage if ended.outcome in ("failed", "retried") else "",
                "attempt": ended.number,
                "host": attempt.host,
                "pid": attempt.pid,
                "start": moment(attempt.start),
                "end": moment(attempt.end),
                "elapsed": round(attempt.elapsed, 3),
                "seconds": {stage: round(seconds, 3) for stage, seconds in measured.seconds.items()},
                "windows": measured.windows,
                "bytes_read": measured.bytes_read,
                "bytes_written": measured.bytes_written,
                "peak_memory": attempt.peak_memory,
            },
        )

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        reason = without_secrets(str(error)) if isinstance(error, Exception) else ""
        result = "finished" if error is None else "failed" if isinstance(error, Exception) else "stopped"
        try:
            self._write("end", {"result": result, "reason": reason, **self._counts})
        except (OSError, OutputError):
            if error is None:
                raise
        finally:
            if self._file >= 0:
                os.close(self._file)

    def _write(self, kind: str, facts: Mapping[str, Any]) -> None:
        if self._target is None:
            return
        event = {"event": VERSION, "kind": kind, "run": self.run, "time": moment(dt.datetime.now(dt.UTC)), **facts}
        line = json.dumps(event) + "\n"
        with self._lock:
            if self._file < 0:
                sys.stdout.write(line)
                sys.stdout.flush()
                return
            try:
                os.write(self._file, line.encode())
            except OSError as error:
                raise _unwritable(self._target, error) from error


def moment(when: dt.datetime) -> str:
    """A time in UTC as RFC 3339, with milliseconds."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def list_identity(paths: Sequence[str]) -> str:
    """A text that two runs over the same scenes share, whatever their order."""
    return hashlib.sha256("\n".join(sorted(paths)).encode(errors="backslashreplace")).hexdigest()[:12]


def _opened(target: str | Path) -> int:
    """A file to append to, which begins with a whole line: that of a killed run may lack its end.

    Raises:
        OutputError: It cannot be written, or is a file of something else.
        UsageError: It is in an object store.
    """
    path = output_folder(target)
    if in_store(path):
        raise UsageError(f"{path}: events cannot be added to a file in an object store; choose a file on a disk")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # such as the output folder, before the first map
        first, last = _ends(path)
        if not _FIRST.startswith(first):
            raise OutputError(f"{path}: is no file of events; choose another file for `events`", page=PAGE)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if last not in (b"", b"\n"):
            os.write(file, b"\n")
    except OSError as error:
        raise _unwritable(path, error) from error
    return file


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of a file, and its last one; none if there is no such file, or if it is a pipe."""
    if not path.is_file():
        return b"", b""
    with path.open("rb") as file:
        first = file.read(len(_FIRST))
        if first:
            file.seek(-1, os.SEEK_END)
        return first, file.read(1)


def _unwritable(path: object, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written to ({error.strerror}); choose another file for `events`", page=PAGE)


@dataclass(frozen=True)
class Events:
    """The events in a file.

    Attributes:
        path: The file.
        events: Its events, in the order in which they were written; times are datetimes in UTC.
        damaged: Number of lines that are no events.
    """

    path: Path
    events: tuple[dict[str, Any], ...]
    damaged: int


def read_events(path: str | Path) -> Events:
    """Reads a file of events, also while a run writes it; the beginning of a line at its end is left out.

    Raises:
        UsageError: It cannot be read, holds no events, or those of a newer version.
    """
    path = Path(path)
    found: list[dict[str, Any]] = []
    damaged = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                event = _event(line, path)
                if event:
                    found.append(event)
                elif line.endswith("\n") and line.strip():
                    damaged += 1
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); pass a file of geocfl map --events") from error
    if not found:
        raise UsageError(f"{path}: holds no events; pass a file of geocfl map --events", page=PAGE)
    return Events(path, tuple(found), damaged)


def _event(line: str, path: Path) -> dict[str, Any] | None:
    """The event in a line; None if it is none, such as after a change by hand."""
    try:
        event = parsed_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), int):
        return None
    if event["event"] > VERSION:
        raise UsageError(f"{path}: was written by a newer geocfl; install the version that wrote it", page=PAGE)
    return _checked(event)


def _checked(event: dict[str, Any]) -> dict[str, Any] | None:
    """An event with its times as datetimes; None if it lacks a field, or has one of another type."""
    fields = {"run": (str,), "time": (str,)} | _FIELDS.get(str(event.get("kind")), {"kind": ()})
    if not all(isinstance(event.get(name), types) for name, types in fields.items()):
        return None
    if event["kind"] == "scene" and not _is_sound(event):
        return None
    try:
        times = {name: dt.datetime.fromisoformat(event[name]).astimezone(dt.UTC) for name in _TIMES if name in event}
    except (TypeError, ValueError, OverflowError):
        return None
    return event | times


def _is_sound(event: Mapping[str, Any]) -> bool:
    """Whether an attempt's outcome is known, and its numbers are some."""
    seconds = (*event["seconds"].values(), event["elapsed"])
    numbers = all(isinstance(each, _NUMBER) and 0 <= each < float("inf") for each in seconds)
    return event["outcome"] in _OUTCOMES and numbers and event["windows"] >= 0


def outcomes(events: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """By scene, the last attempt at each that was done, skipped or failed; skipped does not replace done."""
    found: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event["kind"] == "scene" and event["outcome"] in _FINAL:
            known = found.get(event["scene"])
            if known is None or (known["outcome"], event["outcome"]) != ("done", "skipped"):
                found[event["scene"]] = event
    return found
