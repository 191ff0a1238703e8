"""Searches of STAC APIs: the catalogs that are known by a name, and one sentence for whatever goes wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geocfl.errors import SceneError, UsageError
from geocfl.scenes.area import Box
from geocfl.scenes.urls import shown, without_secrets

if TYPE_CHECKING:
    from pystac_client import Client

PAGE = "how-to/find/"


@dataclass(frozen=True)
class Catalog:
    """A STAC API.

    Attributes:
        url: Its landing page.
        collection: The Sentinel-2 scenes in it that geocfl maps best.
    """

    url: str
    collection: str


KNOWN = {
    "earth-search": Catalog("https://earth-search.aws.element84.com/v1", "sentinel-2-l2a"),
    "planetary-computer": Catalog("https://planetarycomputer.microsoft.com/api/stac/v1", "sentinel-2-l2a"),
    "copernicus": Catalog("https://stac.dataspace.copernicus.eu/v1", "sentinel-2-l2a"),
}
"""Catalogs by name. All hold Sentinel-2 L2A of the whole earth."""
PER_PAGE = 200
"""Items that a request asks for; the servers allow 250 to 10,000, and slow ones time out with more."""
TIMEOUT_S = 60
"""Seconds that a server may take for a page."""
TRIES = 3
"""Requests for a page, if the server is busy or does not answer."""
BUSY = (429, 502, 503, 504)
"""HTTP status of servers that may answer later."""


def catalog_of(api: str, collection: str | None) -> Catalog:
    """The catalog that a user names.

    Args:
        api: A key of `KNOWN`, or the URL of a STAC API.
        collection: The collection; None takes a known catalog's own.

    Raises:
        UsageError: It is neither, or a URL without a collection.
    """
    if known := KNOWN.get(api):
        return Catalog(known.url, collection or known.collection)
    if not api.lower().startswith(("https://", "http://")):
        raise UsageError(f"`api` is {api!r} but must be one of {', '.join(KNOWN)}, or the URL of a STAC API", page=PAGE)
    if not collection:
        raise UsageError(
            f"{shown(api)}: name the collection to search as `collection`, such as sentinel-2-l2a", page=PAGE
        )
    return Catalog(api, collection)


def check_period(period: str) -> None:
    """Refuses what is not a period, without asking a server.

    Args:
        period: As for `search`.

    Raises:
        UsageError: It is not one, or it ends before it begins.
    """
    from pystac_client import ItemSearch

    try:
        # Its start and end in UTC, as the search sends them.
        start, _, end = ItemSearch("https://example.com", datetime=period).get_parameters()["datetime"].partition("/")
    except Exception as error:  # pystac-client raises Exception itself
        raise UsageError(
            f"`datetime` is {period!r} but must be a day, a month or a period, such as 2022-06-01/2022-08-31", page=PAGE
        ) from error
    if end and ".." not in (start, end) and start > end:
        raise UsageError(f"`datetime` is {period!r}, which ends before it begins; swap its parts", page=PAGE)


def search(catalog: Catalog, box: Box, period: str, max_cloud: float | None) -> Iterator[dict[str, Any]]:
    """The Items in a box and a period, page by page, as the server has them.

    Args:
        catalog: Where to search.
        box: West, south, east, north in degrees, west < east.
        period: As STAC APIs have it, such as ``"2022-06-01/2022-08-31"`` or ``"2022-06"``; see `check_period`.
        max_cloud: Percentage of clouds up to which Items are asked for, where the server can filter; it need not.

    Raises:
        SceneError: The server cannot be reached, or does not answer as a STAC API.
    """
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util.retry import Retry

    name = shown(catalog.url)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a server does not conform to, or sorts by
            patience = Retry(TRIES - 1, backoff_factor=0.5, status_forcelist=BUSY, allowed_methods=None)
            client = Client.open(catalog.url, stac_io=StacApiIO(max_retries=patience), timeout=TIMEOUT_S)
            options: dict[str, Any] = {"collections": [catalog.collection], "bbox": box, "limit": PER_PAGE}
            if max_cloud is not None:
                options |= _cloud_filter(client, max_cloud)
            found = client.search(datetime=period, **options)
            yield from found.items_as_dicts()
    except Exception as error:  # a server may answer anything
        raise SceneError(_explain(name, catalog, error), page=PAGE) from error


def _cloud_filter(client: Client, max_cloud: float) -> dict[str, Any]:
    """The parameters by which a server leaves out cloudy Items; none if it cannot."""
    from pystac_client import ConformanceClasses

    if client.conforms_to(ConformanceClasses.QUERY):
        return {"query": {"eo:cloud_cover": {"lte": max_cloud}}}
    if client.conforms_to(ConformanceClasses.FILTER):
        return {"filter": {"op": "<=", "args": [{"property": "eo:cloud_cover"}, max_cloud]}}
    return {}


def _explain(name: str, catalog: Catalog, error: Exception) -> str:
    status = getattr(error, "status_code", None)
    what = " ".join(without_secrets(str(error)).split())[:200]
    if status is None and any(sign in str(error) for sign in ("Max retries", "timed out", "Connection")):
        return (
            f"{name}: cannot be reached, is busy, or does not answer within {TIMEOUT_S} s; check the address and the "
            "network, or try again later"
        )
    if status in (401, 403):
        return f"{name}: denies access (HTTP {status}: {what}); use an API that is open to all, or a valid address"
    if status is not None and status >= 500:
        return f"{name}: failed (HTTP {status}: {what}); try again later"
    if status is not None:
        return f"{name}: refuses the search of {catalog.collection} (HTTP {status}: {what}); check `collection`"
    return f"{name}: does not answer as a STAC API does ({type(error).__name__}: {what}); check `api`"
