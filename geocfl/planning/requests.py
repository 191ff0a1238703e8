"""Counts the requests to servers and object stores that a block of code sends."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_REQUEST = re.compile(r"CURL_INFO_HEADER_OUT|\" \d{3} (?:\d+|None)$")
"""What the logs of GDAL and of urllib3 hold once for each request, failed ones included."""
_VERBOSE = {"CPL_DEBUG": "ON", "CPL_CURL_VERBOSE": "YES"}
"""GDAL's options to log each request. The log holds credentials, so nobody else may see it."""
_LOGS = ("rasterio", "urllib3.connectionpool")


class Requests(logging.Handler):
    """Counts requests in logs.

    Attributes:
        count: Number of requests that were sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Counts a message about a request."""
        self.count += bool(_REQUEST.search(record.getMessage()))


@contextmanager
def counted_requests() -> Iterator[Requests]:
    """Counts the requests that GDAL and requests send during the block, from any thread that reads rasters.

    Source: https://gdal.org/user/configoptions.html (``CPL_DEBUG``, ``CPL_CURL_VERBOSE``).
    """
    seen = Requests()
    logs = [logging.getLogger(name) for name in _LOGS]
    before = [(log.level, log.propagate) for log in logs]
    variables = {name: os.environ.get(name) for name in _VERBOSE}
    os.environ |= _VERBOSE
    for log in logs:
        log.addHandler(seen)
        log.setLevel(logging.DEBUG)
        log.propagate = False  # nobody else asked for these messages
    try:
        yield seen
    finally:
        for log, (level, propagate) in zip(logs, before, strict=True):
            log.removeHandler(seen)
            log.setLevel(level)
            log.propagate = propagate
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
