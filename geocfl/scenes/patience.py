"""How long servers are waited for, and how often they are asked: GDAL's settings, which also hold for requests."""

from __future__ import annotations

import os

PATIENCE = {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",  # seconds; without it, GDAL waits for minutes
    "GDAL_HTTP_TIMEOUT": "30",  # seconds per request, which is rarely more than 2 MB; GDAL has no default
    "GDAL_HTTP_MAX_RETRY": "4",  # GDAL's default is 0; object stores answer 503 to slow clients down
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, doubling, so 8 in total, as in odc-loader; GDAL's default is 30
}
"""Timeouts and retries of requests."""


def patience(option: str) -> float:
    """A number of `PATIENCE`, unless the environment overrides it."""
    try:
        return max(0.0, float(os.environ.get(option, "")))
    except ValueError:
        return float(PATIENCE[option])


def tries() -> int:
    """How often a server is asked at most."""
    return 1 + int(patience("GDAL_HTTP_MAX_RETRY"))
