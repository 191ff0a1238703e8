"""Rasters on servers: their paths, the settings that make GDAL read them well, and what went wrong in plain words."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from enum import Enum, auto
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from geocfl.errors import SceneError

if TYPE_CHECKING:
    import rasterio
    import requests

T = TypeVar("T")

SCHEMES = {"https://": "/vsicurl/https://", "http://": "/vsicurl/http://"} | {
    "s3://": "/vsis3/",
    "gs://": "/vsigs/",
    "az://": "/vsiaz/",
}
"""Beginning of a URL to that of the path by which GDAL opens it."""
DRIVERS = frozenset({"GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JP2Lura", "PNG", "JPEG"})
"""Formats that are read from servers. They hold their own pixels; VRT and its kin name other files, and so could make
us read local ones for a stranger."""
PATIENCE = {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",  # seconds; GDAL has none of its own and would wait for minutes
    "GDAL_HTTP_TIMEOUT": "30",  # seconds for one request, which is of 2 MB and seldom more; likewise
    "GDAL_HTTP_MAX_RETRY": "4",  # GDAL has 0; object stores answer 503 to tell clients to slow down
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, doubling: 8 in all, as odc-loader; GDAL has 30
}
"""How long and how often servers are asked."""
SETTINGS = PATIENCE | {
    # No listing of folders, which web servers do not have and stores charge for, and no look for sidecar files: a JP2
    # without it costs requests for 35 names.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The header of a whole tile's cloud-optimised GeoTIFF comes with the first request (16 KB by default).
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # Where a TIFF's blocks lie is read at once. Bit by bit, GDAL 3.10 takes blocks for empty whose place it did not get
    # because the connection broke off, and hands out zeros.
    "GTIFF_USE_DEFER_STRILE_LOADING": "NO",
    # Once a file is closed, nothing of it is kept: else what a broken connection left, a file's absence or its former
    # content would be believed until the process ends.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
}
"""For any remote file. What titiler and stackstac set besides is GDAL's default by now (GDAL_HTTP_MULTIPLEX,
GDAL_HTTP_MERGE_CONSECUTIVE_RANGES), is not needed where no sidecar files are looked for and would shut out addresses
that end in something else (CPL_VSIL_CURL_ALLOWED_EXTENSIONS), or saved no byte in reading windows (VSI_CACHE).

Sources: https://gdal.org/user/virtual_file_systems.html, https://gdal.org/user/configoptions.html,
https://developmentseed.org/titiler/advanced/performance_tuning/."""
ONE_THREAD = {"GDAL_NUM_THREADS": "1"}
"""With more, GDAL 3.10 hands out wrong pixels and no error where a request fails for good: threads that decode JP2 keep
their errors to themselves, and uncompressed TIFF is taken as read. It is not the user's to choose therefore."""
UNSIGNED = {
    "/vsis3/": ("AWS_NO_SIGN_REQUEST", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SHARED_CREDENTIALS_FILE", "CPL_AWS_CREDENTIALS_FILE", "AWS_CONFIG_FILE"),
        ("~/.aws/credentials", "~/.aws/config")),
    "/vsigs/": ("GS_NO_SIGN_REQUEST", ("GOOGLE_APPLICATION_CREDENTIALS", "GS_ACCESS_KEY_ID", "GS_OAUTH2_REFRESH_TOKEN",
        "GS_OAUTH2_PRIVATE_KEY", "GS_OAUTH2_PRIVATE_KEY_FILE", "CPL_GS_CREDENTIALS_FILE", "GDAL_HTTP_HEADERS"),
        ("~/.boto",)),
    "/vsiaz/": ("AZURE_NO_SIGN_REQUEST", ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_TOKEN",
        "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_SAS", "AZURE_CLIENT_ID"),
        ("~/.azure",)),
}  # fmt: skip
"""The option by which a store is asked as a stranger, as public buckets are read, and the environment variables and
files that hold credentials. Without either, GDAL looks for a cloud machine's own credentials, waits, and fails."""
COPERNICUS = {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"}
"""Where ``s3://eodata/`` of the Copernicus Data Space is.

Source: https://documentation.dataspace.copernicus.eu/APIs/S3.html."""

_NETWORK = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs)(?:_streaming)?[/?]")
_ARCHIVE = re.compile(r"(.+?\.(?:zip|tar|tgz|tar\.gz))(?=/|$)")


class Trouble(Enum):
    """What may be wrong with a remote file."""

    ABSENT = auto()
    FORBIDDEN = auto()
    REFUSED = auto()
    FAILING = auto()
    SILENT = auto()
    UNREACHABLE = auto()
    BROKEN = auto()


_STATUS = re.compile(r"HTTP response code: (\d{3})")
_OF_STATUS = {404: Trouble.ABSENT, 410: Trouble.ABSENT, 429: Trouble.FAILING} | dict.fromkeys(
    (401, 403, 409),
    Trouble.FORBIDDEN,  # 409 is what Azure answers where public access is not permitted
)
_OF_WORDS = {
    Trouble.ABSENT: re.compile(r"NoSuch(?:Key|Bucket)|specified (?:key|bucket|blob|container) does not exist"),
    Trouble.FORBIDDEN: re.compile(r"access ?denied|credentials|NO_SIGN_REQUEST|signature", re.IGNORECASE),
    Trouble.SILENT: re.compile(r"timed out|too slow"),
    Trouble.UNREACHABLE: re.compile(r"CURL error: |Max retries exceeded|Failed to establish"),
}
"""What GDAL, libcurl, urllib3 and object stores write where there is no HTTP status; the first that fits counts."""


def gdal_path(path: str) -> str:
    """The path by which GDAL opens a URL; local and ``/vsi...`` paths stay as they are.

    Args:
        path: Such as ``"https://example.com/B04.tif"``, ``"s3://bucket/B04.tif"``, ``"gs://..."`` or ``"az://..."``.
    """
    for scheme, prefix in SCHEMES.items():
        if path[: len(scheme)].lower() == scheme:
            return prefix + path[len(scheme) :]
    return path


def is_remote(path: str) -> bool:
    """Whether a URL or a path of GDAL's, such as ``"/vsizip//vsicurl/https://..."``, leads over the network."""
    return _NETWORK.search(gdal_path(path)) is not None


def shown(path: str) -> str:
    """A path to show or keep: without the tokens of signed URLs and passwords, and as a URL where it is one."""
    for scheme, prefix in SCHEMES.items():
        if path.startswith(prefix):
            path = scheme + path[len(prefix) :]
    if is_remote(path):
        path = re.sub(r"[?#].*", "", path, flags=re.DOTALL)
    return re.sub(r"://[^/@]*@", "://", path)


def cloud_settings(*paths: str) -> dict[str, str]:
    """GDAL's options for reading windows of remote files, for ``rasterio.Env``.

    What the environment sets counts before them, except for `ONE_THREAD`. Outside the main thread ``rasterio.Env`` is
    of its thread alone: enter it in each thread that reads.

    Args:
        paths: What is to be read.

    Returns:
        Option to value; empty where no path is remote, so that local files are read as ever.
    """
    remote = [gdal_path(path) for path in paths if is_remote(path)]
    if not remote:
        return {}
    options = dict(SETTINGS)
    for prefix, (option, variables, files) in UNSIGNED.items():
        known = any(os.environ.get(name) for name in variables) or any(Path(f).expanduser().exists() for f in files)
        if not known and any(prefix in path for path in remote):
            options[option] = "YES"
    if any("/vsis3/eodata/" in path for path in remote):
        options |= COPERNICUS
    return {option: value for option, value in options.items() if option not in os.environ} | ONE_THREAD


def remote_settings(*paths: str) -> AbstractContextManager[object]:
    """`cloud_settings` as long as the context lasts, in this thread; nothing where no path is remote."""
    import rasterio

    options = cloud_settings(*paths)
    return rasterio.Env(**options) if options else nullcontext()


def open_remote(path: str) -> rasterio.DatasetReader:
    """Opens a raster on a server, patiently.

    `remote_settings` have to last as long as it is read.

    Raises:
        SceneError: It cannot be opened, or is of a format that names other files.
    """
    import rasterio

    def attempt() -> rasterio.DatasetReader:
        with remote_settings(path):
            return rasterio.open(gdal_path(path))

    dataset = insist(path, attempt)
    if dataset.driver not in DRIVERS:
        dataset.close()
        raise SceneError(
            f"{shown(path)}: is of the format {dataset.driver}, which is not read from servers; pass a GeoTIFF or JP2, "
            "or download it and pass the copy",
            page="how-to/servers/",
        )
    return dataset


def insist(path: str, attempt: Callable[[], T]) -> T:
    """Does what reads a remote file, and does it again after a pause where that may help.

    GDAL and `fetch` repeat requests that a server refuses or leaves unanswered; neither does so where a connection
    breaks off within an answer.

    Args:
        path: What is read; a local file is read once, and its errors are not touched.
        attempt: Reads from the start: it has to open the file itself, as what is open may be broken.

    Raises:
        SceneError: It failed for good, in the words of `explain`.
    """
    if not is_remote(path):
        return attempt()
    pause = _patience("GDAL_HTTP_RETRY_DELAY")
    for left in reversed(range(_tries())):
        try:
            return attempt()
        except OSError as error:  # rasterio's and requests' errors are some
            if left == 0 or _trouble(error) is not Trouble.BROKEN:
                raise SceneError(explain(error, path), page="how-to/servers/") from error
        time.sleep(pause)
        pause *= 2
    raise AssertionError  # the last attempt returns or raises


def explain(error: BaseException, path: str) -> str:
    """Why a remote file could not be read and what to do, in one sentence without secrets.

    Args:
        error: Of rasterio or requests.
        path: What was read, as the user knows it or as GDAL does.
    """
    name, status = shown(path), _status(error)
    said = f" (HTTP {status})" if status else ""
    later = "try again later, or download it and pass the copy"
    match _trouble(error):
        case Trouble.ABSENT:
            why = f"is not there{said}; check the address"
        case Trouble.FORBIDDEN:
            why = f"the server does not let it be read{said}; {_permission(name)}"
        case Trouble.REFUSED:
            why = f"the server refuses the request{said}; check the address, or download it and pass the copy"
        case Trouble.FAILING:
            why = f"the server failed {_often()}{said}; {later}"
        case Trouble.SILENT:
            seconds = _patience("GDAL_HTTP_TIMEOUT")
            why = f"the server was asked {_often()} and did not answer within {seconds:g} s; {later}"
        case Trouble.UNREACHABLE:
            why = "the server cannot be reached; check the address and the network"
        case Trouble.BROKEN:
            why = f"was tried {_often()} and is damaged, no raster, or the connection breaks off; {later}"
    return f"{name}: {why}"


def fetch(url: str, wanted: Callable[[requests.Response], bool]) -> bytes | None:
    """The content behind an ``https://`` or ``http://`` URL.

    Args:
        url: May be signed.
        wanted: Told the answer's headers, says whether to read on.

    Returns:
        The content, or None where it is not wanted.

    Raises:
        SceneError: It cannot be had, in the words of `explain`.
    """

    def attempt() -> bytes | None:
        with closing(_get(url)) as response:
            return response.content if wanted(response) else None

    return insist(url, attempt)


def fingerprint(path: str) -> str:
    """What changes when a raster does, and is known without reading all of it.

    That is, for a URL, what the server says: entity tag, size and time of modification; for a local file its size
    and time of modification; else, as of ``s3://``, hashes of the raster's description, of the sizes of its
    compressed blocks where it is a TIFF, and of pixels in its middle.

    Args:
        path: A URL, a local file or a path of GDAL's; one into an archive stands for the archive. A query, which holds
            the passing tokens of signed URLs, is no part of the identity.

    Raises:
        SceneError: It cannot be read.
    """
    path = gdal_path(path)
    if path.startswith(("/vsizip/", "/vsitar/")) and (archive := _ARCHIVE.match(path[len("/vsizip/") :].lstrip("{"))):
        path = archive[1]
    if path.startswith("/vsicurl/"):
        parts = insist(path, lambda: list(_identity(path.removeprefix("/vsicurl/"))))
    elif is_remote(path):
        parts = insist(path, lambda: list(_description(path)))
    else:
        try:
            stat = None if path.startswith("/vsi") else Path(path).stat()
            parts = [str(stat.st_size), str(stat.st_mtime_ns)] if stat else list(_description(path))
        except OSError as error:
            raise SceneError(f"{path}: cannot be read; pass a readable file") from error
    return sha256("\n".join(parts).encode()).hexdigest()


def _identity(url: str) -> Iterator[str]:
    # One byte is asked for, as links are often signed for GET and not for HEAD.
    with closing(_get(url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"})) as response:
        headers = response.headers
        size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
        if not size and "ETag" not in headers:
            yield from _description(gdal_path(url))
        yield from (headers.get("ETag", ""), headers.get("Last-Modified", ""), size)


def _description(path: str) -> Iterator[str]:
    import rasterio
    from rasterio.windows import Window

    with remote_settings(path), open_remote(path) if is_remote(path) else rasterio.open(path) as dataset:
        yield from (f"{key}: {value}" for key, value in sorted(dataset.profile.items()))
        yield from (f"{key}: {value}" for key, value in sorted(dataset.tags().items()))
        height, width = dataset.block_shapes[0]
        for y in range(-(-dataset.height // height)):
            for x in range(-(-dataset.width // width)):
                yield str(dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1))
        middle = Window(dataset.width // 2, dataset.height // 2, 1, 1)
        yield str(dataset.read(window=middle).tolist())


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """An answer whose content is not yet read; the same patience as GDAL's."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=_tries() - 1,
        backoff_factor=_patience("GDAL_HTTP_RETRY_DELAY"),
        status_forcelist=(429, 500, 502, 503, 504),  # GDAL's
        raise_on_status=False,
    )
    timeout = (_patience("GDAL_HTTP_CONNECTTIMEOUT"), _patience("GDAL_HTTP_TIMEOUT"))
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    response = session.get(url, headers=headers, timeout=timeout, stream=True)
    response.raise_for_status()
    return response


def _patience(option: str) -> float:
    """A number of `PATIENCE`, the environment's before ours."""
    try:
        return max(0.0, float(os.environ.get(option, "")))
    except ValueError:
        return float(PATIENCE[option])


def _tries() -> int:
    return 1 + int(_patience("GDAL_HTTP_MAX_RETRY"))


def _often() -> str:
    return "once" if _tries() == 1 else f"{_tries()} times"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    """The HTTP status that an error tells of, 0 where it tells none."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return int(response.status_code)
        if found := _STATUS.search(str(cause)):
            return int(found[1])
    return 0


def _trouble(error: BaseException) -> Trouble:
    if status := _status(error):
        return _OF_STATUS.get(status, Trouble.FAILING if status >= 500 else Trouble.REFUSED)
    # Without addresses and the queries of file names, which may hold any word, such as that of a signature.
    text = re.sub(r"\S*(?:://|\?)\S*", "", "\n".join(str(cause) for cause in _causes(error)))
    return next((trouble for trouble, words in _OF_WORDS.items() if words.search(text)), Trouble.BROKEN)


def _permission(name: str) -> str:
    if name.startswith("s3://eodata/"):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys of the Copernicus Data Space"
    if name.startswith("s3://"):
        return "set AWS credentials such as AWS_PROFILE, and AWS_REQUEST_PAYER=requester where the reader pays"
    if name.startswith(("gs://", "az://")):
        return "set the store's credentials as GDAL wants them"
    if (urlsplit(name).hostname or "").endswith(".blob.core.windows.net"):
        return "sign the Item or the address first, such as by the planetary-computer package"
    return "pass a signed address, or download it and pass the copy"
