"""A web server on the loopback that knows range requests, counts what it sends, and fails when told to.

It is a process of its own: rasterio holds Python's lock in some of the calls in which GDAL waits for an answer, and a
server on a thread could not give it. `RangeServer` steers it by lines of JSON::

    with RangeServer(folder) as server:
        server.fail("B04.tif", status=500, times=2)
        rasterio.open(server.url("B04.tif"))
        assert server.sent("B04.tif") < 100_000
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

RANGE = re.compile(r"bytes=(\d+)-(\d*)")
TYPES = {".json": "application/json", ".tif": "image/tiff", ".jp2": "image/jp2", "": "application/geo+json"}
"""Of files by their endings; one without is an answer of a STAC API."""


class Request(NamedTuple):
    """A request as the server got it: GET or HEAD, the file's name, and the range asked for, if any."""

    method: str
    name: str
    span: str


class RangeServer:
    """Serves a folder's files; a context manager.

    Args:
        folder: Files that are put there later are served, too. A query in a request's URL does not count.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def url(self, name: str) -> str:
        """Where a file is."""
        return f"http://127.0.0.1:{self._port}/{name}"

    def fail(
        self, name: str, status: int = 0, delay: float = 0, cut: int | None = None, times: int | None = None
    ) -> None:
        """Makes requests for a file fail.

        Args:
            name: The file, which need not be there.
            status: Answers this and nothing else; 0 for the true answer.
            delay: Seconds before the answer.
            cut: Closes the connection after so many bytes of the body; None for a whole one.
            times: How many requests from now on; None for all of them.
        """
        self._ask("fail", name, status, delay, cut, times)

    def heal(self, name: str) -> None:
        """Makes a file well again."""
        self._ask("heal", name)

    def sent(self, name: str) -> int:
        """Bytes sent of a file so far, headers not counted."""
        return int(self._ask("sent", name))

    def requests(self, name: str) -> list[Request]:
        """Requests for a file so far, in order."""
        return [Request(*request) for request in self._ask("requests", name)]

    def names(self) -> set[str]:
        """Of all files asked for so far, those that are not there included."""
        return set(self._ask("names"))

    def _ask(self, *command: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def __enter__(self) -> RangeServer:
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self._port = json.loads(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # the end of its input ends it


class Fault(NamedTuple):
    """What goes wrong with an answer; see `RangeServer.fail`."""

    status: int = 0
    delay: float = 0
    cut: int | None = None


class State:
    """What the server's threads share; its methods, but `next_fault`, are the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.log: list[Request] = []
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}

    def fail(self, name: str, status: int, delay: float, cut: int | None, times: int | None) -> None:
        fault = Fault(status, delay, cut)
        if times is None:
            self.always[name] = fault
        else:
            self.faults.setdefault(name, []).extend(repeat(fault, times))

    def heal(self, name: str) -> None:
        self.always.pop(name, None)
        self.faults.pop(name, None)

    def sent(self, name: str) -> int:
        return self.counts[name]

    def requests(self, name: str) -> list[Request]:
        return [request for request in self.log if request.name == name]

    def names(self) -> list[str]:
        return sorted({request.name for request in self.log})

    def next_fault(self, name: str, body: bool) -> Fault:
        waiting = self.faults.get(name)
        if waiting and (body or waiting[0].cut is None):  # what has no body cannot be cut
            return waiting.pop(0)
        return self.always.get(name, Fault())


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    state: State

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bool) -> None:
        name = urlsplit(self.path).path.lstrip("/")
        span = self.headers.get("Range", "")
        with self.state.lock:
            self.state.log.append(Request(self.command, name, span))
            fault = self.state.next_fault(name, body)
        if fault.delay:
            threading.Event().wait(fault.delay)
        path = self.state.folder / name
        if fault.status or not path.is_file():
            self.head(fault.status or HTTPStatus.NOT_FOUND, {"Content-Length": "0"})
            return
        status, headers, part = part_of(path, span)
        self.head(status, headers)
        if body:
            self.send(name, part, fault.cut)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def send(self, name: str, part: bytes, cut: int | None) -> None:
        with self.state.lock:
            self.state.counts[name] += len(part[:cut])
        self.close_connection = len(part[:cut]) < len(part)
        try:
            self.wfile.write(part[:cut])
        except (BrokenPipeError, ConnectionResetError):  # the client had enough
            self.close_connection = True


def part_of(path: Path, span: str) -> tuple[HTTPStatus, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    stat = path.stat()
    size = stat.st_size
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": TYPES.get(path.suffix, "application/octet-stream"),
        "ETag": f'"{stat.st_mtime_ns:x}-{size:x}"',
    }
    asked = RANGE.fullmatch(span)
    if asked is None:
        return HTTPStatus.OK, headers | {"Content-Length": str(size)}, path.read_bytes()
    start, stop = int(asked[1]), min(int(asked[2] or size) + 1, size)
    if start >= size:
        empty = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers | empty, b""
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    with path.open("rb") as file:
        file.seek(start)
        part = file.read(stop - start)
    return HTTPStatus.PARTIAL_CONTENT, headers | {"Content-Length": str(len(part))}, part


def serve(folder: Path) -> None:
    """Says the port, then obeys commands on standard input until it ends."""
    Handler.state = state = State(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        with state.lock:
            answer = getattr(state, command)(*arguments)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
