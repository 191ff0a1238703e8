"""Rasters on servers: GDAL settings to read them fast and safely, and retries."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from geocfl.errors import SceneError
from geocfl.scenes.patience import PATIENCE, patience, tries
from geocfl.scenes.trouble import Trouble, failure, trouble_of
from geocfl.scenes.urls import gdal_path, is_remote, shown

if TYPE_CHECKING:
    import rasterio
    import requests

T = TypeVar("T")

DRIVERS = frozenset({"GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JP2Lura", "PNG", "JPEG"})
"""Formats that are read from servers. They contain their own pixels; VRT and similar formats name other files, so a
server could make geocfl read local files."""
SETTINGS = PATIENCE | {
    # Do not list folders, which web servers cannot do and stores charge for, and do not look for sidecar files: for a
    # JP2, that is 35 requests.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The first request fetches the whole header of a tile's cloud-optimized GeoTIFF (the default is 16 KB).
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # Read all block offsets of a TIFF at once. If GDAL 3.10 reads them piecewise and the connection breaks, it assumes
    # that blocks with unknown offsets are empty, and returns zeros.
    "GTIFF_USE_DEFER_STRILE_LOADING": "NO",
    # Cache nothing after a file is closed; otherwise partial data, a missing file or old content would persist until
    # the process ends.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
}
"""Options for any remote file. Other options of titiler and stackstac are GDAL's defaults by now (GDAL_HTTP_MULTIPLEX,
GDAL_HTTP_MERGE_CONSECUTIVE_RANGES), would exclude addresses with other endings (CPL_VSIL_CURL_ALLOWED_EXTENSIONS), or
saved no byte when reading windows (VSI_CACHE).

Sources: https://gdal.org/user/virtual_file_systems.html, https://gdal.org/user/configoptions.html,
https://developmentseed.org/titiler/advanced/performance_tuning/."""
ONE_THREAD = {"GDAL_NUM_THREADS": "1"}
"""With more threads, GDAL 3.10 returns wrong pixels without an error if a request fails for good: JP2 decoding threads
drop their errors, and uncompressed TIFF data counts as read. Therefore users cannot change it."""
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
"""The option for anonymous access to public buckets, and the environment variables and files that hold credentials.
Without either, GDAL looks for the credentials of a cloud machine, waits, and fails."""
COPERNICUS = {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"}
"""Where ``s3://eodata/`` of the Copernicus Data Space is.

Source: https://documentation.dataspace.copernicus.eu/APIs/S3.html."""


def cloud_settings(*paths: str) -> dict[str, str]:
    """GDAL's options for reading windows of remote files, for ``rasterio.Env``.

    Environment variables override them, except for `ONE_THREAD`. ``rasterio.Env`` holds only for the current thread, so
    enter it in each thread that reads.

    Args:
        paths: Files to read.

    Returns:
        Option to value; empty if no path is remote.
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
    """A context with `cloud_settings` in this thread; without effect if no path is remote."""
    import rasterio

    options = cloud_settings(*paths)
    return rasterio.Env(**options) if options else nullcontext()


def open_remote(path: str) -> rasterio.DatasetReader:
    """Opens a raster on a server, with retries.

    Keep `remote_settings` active as long as it is read.

    Raises:
        SceneError: It cannot be opened, or is of a format that names other files.
    """
    from rasterio.errors import RasterioIOError
    from rasterio.io import DatasetReader  # rasterio.open takes only one driver

    def attempt() -> rasterio.DatasetReader:
        with remote_settings(path):
            try:
                return DatasetReader(gdal_path(path), driver=sorted(DRIVERS))
            except RasterioIOError:
                if _is_virtual(gdal_path(path)):
                    raise SceneError(
                        f"{shown(path)}: has the format VRT, which is not read from servers; use a GeoTIFF or JP2, or "
                        "download it and use the copy",
                        page="how-to/servers/",
                    ) from None
                raise

    return insist(path, attempt)


def _is_virtual(path: str) -> bool:
    """Whether the file at a URL is a virtual raster; False for other remote files, and if the server fails."""
    import requests

    if not path.startswith("/vsicurl/"):
        return False
    try:
        with closing(get(path.removeprefix("/vsicurl/"), {"Range": "bytes=0-255"})) as response:
            return bool(re.match(rb"\s*(<\?xml[^>]*>\s*)?<VRTDataset", next(response.iter_content(256), b"")))
    except requests.RequestException:
        return False


def only_by(driver: str, path: str) -> str:
    """The name of a remote raster in a virtual raster by which no other driver opens it; a local path as it is.

    GDAL opens the files of a virtual raster when it reads them, and by any driver. By then, the server may answer with
    a file of another format than before, one that names other files.

    Args:
        driver: The driver that opened it, one of `DRIVERS`.
        path: The raster, as a URL or as GDAL opens it.
    """
    if not is_remote(path):
        return path
    path = gdal_path(path)
    if "?" not in path:
        return f"vrt://{path}?if={driver}"
    # GDAL looks for no files beside a signed URL. Nothing is known to bind another driver to one.
    return f"GTIFF_RAW:{path}" if driver == "GTiff" else path


def insist(path: str, attempt: Callable[[], T], name: str = "") -> T:
    """Reads a remote file, and retries after a pause if that may help.

    GDAL and `fetch` retry requests that a server refuses or does not answer, but not a connection that breaks during an
    answer.

    Args:
        path: The file; a local file is read once, and its errors pass through.
        attempt: Reads from the start. It must open the file itself, because an open one may be broken.
        name: What the message names instead of the file, such as a scene of several files.

    Raises:
        SceneError: It failed for good; the message is that of `explain`. It is transient if a later try may succeed.
    """
    if not is_remote(path):
        return attempt()
    pause = patience("GDAL_HTTP_RETRY_DELAY")
    for left in reversed(range(tries())):
        try:
            return attempt()
        except OSError as error:  # rasterio's and requests' errors are some
            if left == 0 or trouble_of(error) is not Trouble.BROKEN:
                raise failure(error, path, name) from error
        time.sleep(pause)
        pause *= 2
    raise AssertionError  # the last attempt returns or raises


def pause_before_retry(attempt: int) -> float:
    """Seconds to wait before the scenes whose servers failed are read again, from 1 for the first retry.

    They follow those of GDAL's retries, so ``GDAL_HTTP_RETRY_DELAY`` changes them too.
    """
    return patience("GDAL_HTTP_RETRY_DELAY") * 2.0 ** (tries() + attempt - 1)


def fetch(url: str, wanted: Callable[[requests.Response], bool]) -> bytes | None:
    """The content behind an ``https://`` or ``http://`` URL.

    Args:
        url: The URL, which may be signed.
        wanted: Decides from the response whether to read its content.

    Returns:
        The content; None if it is not wanted.

    Raises:
        SceneError: It cannot be read; the message is that of `explain`.
    """

    def attempt() -> bytes | None:
        with closing(get(url)) as response:
            return response.content if wanted(response) else None

    return insist(url, attempt)


def get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """A response whose content is not yet read; with the same timeouts and retries as GDAL."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=tries() - 1,
        backoff_factor=patience("GDAL_HTTP_RETRY_DELAY"),
        status_forcelist=(429, 500, 502, 503, 504),  # GDAL's
        raise_on_status=False,
    )
    timeout = (patience("GDAL_HTTP_CONNECTTIMEOUT"), patience("GDAL_HTTP_TIMEOUT"))
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    response = session.get(url, headers=headers, timeout=timeout, stream=True)
    response.raise_for_status()
    return response
