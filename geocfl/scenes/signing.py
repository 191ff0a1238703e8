"""Tokens for files that a server gives only to signed links: those of Microsoft's Planetary Computer."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote, urlsplit

from geocfl.errors import SceneError
from geocfl.scenes.remote import fetch
from geocfl.scenes.source import Band, Source
from geocfl.scenes.urls import shown

CATALOG = "planetarycomputer.microsoft.com"
"""The host of the catalog whose Items name files that need a token."""
TOKENS = f"https://{CATALOG}/api/sas/v1/token/"
"""Where the token of a collection is; anyone may have one."""
STORES = (".blob.core.windows.net",)
"""Hosts of the files, by their ends. Other hosts get no token."""
LEFT_S = 300
"""Seconds that a token must hold: long enough to read a scene's blocks one after the other, with retries."""

_known: dict[str, tuple[str, float]] = {}
_lock = threading.Lock()


def token_address(catalog: str, collection: str | None) -> str:
    """Where the token for the files of an Item is; empty if they need none.

    Args:
        catalog: The Item's own URL or that of its catalog.
        collection: The Item's collection.
    """
    return TOKENS + quote(collection, safe="") if collection and urlsplit(catalog).hostname == CATALOG else ""


def signed(source: Source) -> Source:
    """The scene with a token in the address of every file that needs one; call it when the files are opened.

    Tokens last about an hour, so that those of a list of scenes would end before its last scenes are read.

    Raises:
        SceneError: The token cannot be read.
    """
    if not source.tokens:
        return source
    query = _token(source.tokens)

    def with_token(band: Band) -> Band:
        parts = urlsplit(band.path.removeprefix("/vsicurl/"))
        unsigned = (parts.hostname or "").endswith(STORES) and not parts.query
        return replace(band, path=f"{band.path}?{query}") if unsigned else band

    return replace(
        source,
        bands={name: with_token(band) for name, band in source.bands.items()},
        scl=with_token(source.scl) if source.scl else None,
    )


def _token(address: str) -> str:
    """The token at an address, from memory while it holds."""
    with _lock:
        token, ends = _known.get(address, ("", 0.0))
        if ends - time.time() < LEFT_S:
            try:
                content = json.loads(fetch(address, lambda _: True) or b"")
                token = str(content["token"])
                ends = datetime.fromisoformat(content["msft:expiry"]).timestamp()
            except (ValueError, KeyError, TypeError) as error:
                raise SceneError(
                    f"{shown(address)}: gave no token for the files; sign the Item with the package "
                    "planetary-computer, and use the result"
                ) from error
            _known[address] = token, ends
        return token
