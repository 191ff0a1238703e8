"""What is wrong with a file on a server, in plain words, and whether a later try may succeed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from urllib.parse import urlsplit

from geocfl.errors import SceneError
from geocfl.scenes.patience import patience, tries
from geocfl.scenes.urls import shown


class Trouble(Enum):
    """What is wrong with a remote file."""

    ABSENT = auto()
    FORBIDDEN = auto()
    REFUSED = auto()
    FAILING = auto()
    SILENT = auto()
    UNREACHABLE = auto()
    BROKEN = auto()


_TRANSIENT = frozenset({Trouble.FAILING, Trouble.SILENT, Trouble.UNREACHABLE, Trouble.BROKEN})
"""What may be over later, so that finished work is kept."""
_STATUS = re.compile(r"HTTP response code: (\d{3})")
_OF_STATUS = {404: Trouble.ABSENT, 410: Trouble.ABSENT, 429: Trouble.FAILING, 501: Trouble.REFUSED} | dict.fromkeys(
    (401, 403, 409),
    Trouble.FORBIDDEN,  # Azure answers 409 if public access is not permitted
)
_OF_WORDS = {
    Trouble.ABSENT: re.compile(r"NoSuch(?:Key|Bucket)|specified (?:key|bucket|blob|container) does not exist"),
    Trouble.FORBIDDEN: re.compile(r"access ?denied|credentials|NO_SIGN_REQUEST|signature", re.IGNORECASE),
    Trouble.SILENT: re.compile(r"timed out|too slow"),
    Trouble.UNREACHABLE: re.compile(r"CURL error: |Max retries exceeded|Failed to establish"),
}
"""Messages of GDAL, libcurl, urllib3 and object stores without an HTTP status; the first match counts."""


def failure(error: BaseException, path: str, name: str = "") -> SceneError:
    """The error about a remote file that could not be read, as `explain` says it.

    It is transient if a later try may succeed.
    """
    return SceneError(explain(error, path, name), page="how-to/servers/", transient=trouble_of(error) in _TRANSIENT)


def explain(error: BaseException, path: str, name: str = "") -> str:
    """Why a remote file could not be read and what to do, in one sentence without secrets.

    Args:
        error: From rasterio or requests.
        path: The file, as the user or GDAL names it.
        name: What the message names instead.
    """
    address, status = shown(path), _status(error)
    name = name or address
    said = f" (HTTP {status})" if status else ""
    later = "try again later, or download it and use the copy"
    match trouble_of(error):
        case Trouble.ABSENT:
            why = f"does not exist{said}; check the address"
        case Trouble.FORBIDDEN:
            why = f"the server denies access{said}; {_permission(address)}"
        case Trouble.REFUSED:
            why = f"the server refuses the request{said}; check the address, or download it and use the copy"
        case Trouble.FAILING:
            why = f"the server failed {_often()}{said}; {later}"
        case Trouble.SILENT:
            seconds = patience("GDAL_HTTP_TIMEOUT")
            why = f"the server was asked {_often()} and did not answer within {seconds:g} s; {later}"
        case Trouble.UNREACHABLE:
            why = "the server cannot be reached; check the address and the network"
        case Trouble.BROKEN:
            why = f"failed {_often()}: it is damaged, is not a raster, or the connection breaks; {later}"
    return f"{name}: {why}"


def trouble_of(error: BaseException) -> Trouble:
    """What an error of rasterio or requests says is wrong."""
    if status := _status(error):
        return _OF_STATUS.get(status, Trouble.FAILING if status >= 500 else Trouble.REFUSED)
    # Without addresses and queries, which may contain any word, such as signature.
    text = re.sub(r"\S*(?:://|\?)\S*", "", "\n".join(str(cause) for cause in _causes(error)))
    return next((trouble for trouble, words in _OF_WORDS.items() if words.search(text)), Trouble.BROKEN)


def _status(error: BaseException) -> int:
    """The HTTP status in an error, 0 if there is none."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return int(response.status_code)
        if found := _STATUS.search(str(cause)):
            return int(found[1])
    return 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _often() -> str:
    return "once" if tries() == 1 else f"{tries()} times"


def _permission(name: str) -> str:
    if name.startswith("s3://eodata/"):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys of the Copernicus Data Space"
    if name.startswith("s3://"):
        return "set AWS credentials such as AWS_PROFILE, and AWS_REQUEST_PAYER=requester if the reader pays"
    if name.startswith(("gs://", "az://")):
        return "set the store's credentials as GDAL expects them"
    if (urlsplit(name).hostname or "").endswith(".blob.core.windows.net"):
        return "sign the Item or the address first, such as by the planetary-computer package"
    return "use a signed address, or download it and use the copy"
