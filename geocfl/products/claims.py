"""A claim on the work on one scene in an object store: an object with an owner and a lease, which machines respect."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from geocfl.core.files import parsed_json
from geocfl.products.lock import BusyError

log = logging.getLogger("geocfl")

LEASE = 300.0
"""Seconds for which a claim holds after its last renewal: the clocks of machines may differ by nearly that much."""
RENEWAL = 60.0
"""Seconds between two renewals."""


class Claim:
    """Keeps other machines out of the work on one scene in an object store.

    The object is created only if there is none, which S3, Google's and Azure's stores ensure (``If-None-Match: *``). It
    names its owner and is renewed in a thread. A claim that was not renewed for `LEASE`, or whose process on this
    machine is gone, is taken over. Where a store cannot create objects on that condition, or two machines take over one
    claim at the same moment, both may work, but `check` stops the one that lost before it replaces any product.

    The object also says of which work an upload was begun, so that the same work may replace what it left.

    Args:
        mark: The object.
        out: The output folder, named in messages.
        stem: Stem of the scene's file name.

    Attributes:
        upload: Hash of the work whose upload was begun and not finished; empty if there is none.
    """

    def __init__(self, mark: Any, out: Path, stem: str) -> None:
        self._mark, self._out, self._stem = mark, out, stem
        self._id, self._held = uuid.uuid4().hex, False
        self._released = threading.Event()
        self.upload = ""

    def acquire(self) -> None:
        """Makes the claim.

        Raises:
            BusyError: Another process has a claim that holds.
            Exception: The store cannot be written to; of a type of its own.
        """
        found = self._read()
        if found is not None:
            if _holds(found):
                raise self._busy(found)
            self.upload = str(found.get("upload", ""))
        if found is None and not self._create():
            raise self._busy(self._read() or {})
        if found is not None:
            if self._read() != found:
                raise self._busy(self._read() or {})
            self._write()
        self._held = True
        threading.Thread(target=self._renew, name="claim", daemon=True).start()

    def check(self) -> None:
        """Makes sure that the claim has not been lost.

        Raises:
            BusyError: Another process has taken it over, because this one did not renew it in time.
        """
        found = self._read() or {}
        if found.get("id") != self._id:
            self._held = False
            raise self._busy(found)

    def begin_upload(self, digest: str) -> None:
        """Says that products are about to be replaced by those of the work with this hash."""
        self.check()
        self.upload = digest
        self._write()

    def release(self, *, finished: bool) -> None:
        """Gives the claim back; the object stays if an upload is not finished.

        Errors of the store are ignored: the lease ends by itself.
        """
        self._released.set()
        if not self._held:
            return
        self._held = False
        with suppress(Exception):
            if (self._read() or {}).get("id") != self._id:
                return
            if finished or not self.upload:
                self._mark.unlink(missing_ok=True)
            else:
                self._put({"upload": self.upload})

    def _renew(self) -> None:
        while not self._released.wait(RENEWAL):
            try:
                self.check()
                if not self._released.is_set():
                    self._write()
            except BusyError:
                return
            except Exception as error:  # of any store; the next renewal may succeed
                log.debug("%s: the claim cannot be renewed (%s)", self._mark, error)

    def _busy(self, found: dict[str, Any]) -> BusyError:
        owner = f" (process {found['pid']} on {found['host']})" if {"pid", "host"} <= found.keys() else ""
        return BusyError(
            f"{self._out}: another geocfl is working on {self._stem} there{owner}; wait for it, or stop it"
        )

    def _content(self) -> dict[str, Any]:
        return {"id": self._id, **_here(), "renewed": time.time(), "upload": self.upload}

    def _read(self) -> dict[str, Any] | None:
        """What the object says; None if it is not there."""
        try:
            text = self._mark.fs.cat_file(self._mark.path).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        try:
            content = parsed_json(text)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _create(self) -> bool:
        """Writes the object unless there is one; whether it did."""
        data = json.dumps(self._content()).encode()
        try:
            self._mark.fs.pipe_file(self._mark.path, data, mode="create")
        except FileExistsError:
            return False
        except PermissionError:
            raise
        except Exception as error:  # a store that does not know the condition
            if _exists_already(error):
                return False
            self._write()
        return True

    def _write(self) -> None:
        self._put(self._content())

    def _put(self, content: dict[str, Any]) -> None:
        self._mark.fs.pipe_file(self._mark.path, json.dumps(content).encode())


@cache
def _namespace() -> str:
    """What distinguishes the processes of containers that share a host's name; empty where the system does not say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _here() -> dict[str, Any]:
    """This process, as claims name it."""
    return {
        "host": socket.gethostname(),
        "namespace": _namespace(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _holds(claim: dict[str, Any]) -> bool:
    """Whether others must respect a claim."""
    try:
        renewed, pid, started = float(claim["renewed"]), int(claim["pid"]), float(claim["started"])
        here = _here()
        if (claim["host"], claim["namespace"]) == (here["host"], here["namespace"]):
            return bool(abs(psutil.Process(pid).create_time() - started) < 1)
    except psutil.Error:
        return False
    except (KeyError, TypeError, ValueError):  # given back, or written by something else
        return False
    return abs(time.time() - renewed) < LEASE


def _exists_already(error: Exception) -> bool:
    """Whether a store refuses to create an object because there is one."""
    said = f"{error} {error.__cause__}"
    return any(words in said for words in ("PreconditionFailed", "pre-conditions", "ConditionalRequestConflict"))
