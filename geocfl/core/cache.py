"""Where geocfl keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$GEOCFL_CACHE``, else ``geocfl`` in the user's cache folder; files in it may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GEOCFL_CACHE") or Path(base) / "geocfl")
