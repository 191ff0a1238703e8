"""A file of costly facts that several processes add to at once; a damaged line costs only time."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from geocfl.core.files import parsed_json


class Remembered:
    """Facts by their keys: JSON lines, each with a check sum, to which a process appends a line with a single write.

    A line that was edited, cut or mixed with another does not count. What other processes add is seen by the next one.

    Args:
        path: The file; created once its folder exists and there is a fact.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._facts: dict[str, Any] | None = None
        self._pending = b""

    def get(self, key: str) -> Any:
        """What is remembered under a key; None if nothing is."""
        with self._lock:
            if self._facts is None:
                self._facts = _read(self._path)
            return self._facts.get(key)

    def put(self, key: str, value: Any) -> None:
        """Remembers a fact, of the types of JSON; until the file can be written, only in memory."""
        self.get(key)
        line = f"\n{json.dumps([key, value, _check_sum(key, value)])}\n".encode()  # a cut line before it ends here
        with self._lock, suppress(OSError):
            if self._facts is not None:
                self._facts[key] = value
            self._pending += line
            with self._path.open("ab", buffering=0) as file:  # one write at the end, whoever else appends
                file.write(self._pending)
            self._pending = b""


def _read(path: Path) -> dict[str, Any]:
    facts = {}
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, TypeError):
                key, value, check_sum = parsed_json(line)
                if check_sum == _check_sum(key, value):
                    facts[key] = value
    return facts


def _check_sum(key: str, value: Any) -> str:
    return hashlib.sha256(json.dumps([key, value]).encode()).hexdigest()[:16]
