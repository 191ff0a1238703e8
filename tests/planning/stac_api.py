"""A STAC API on the loopback: search by box, period and clouds, in pages, with faults when told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = 100
"""Items of a page, whatever the request's limit is: servers have limits of their own."""
CONFORMS = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"


def item(
    name: str, box: Sequence[float], day: str = "2022-06-15", cloud: float | None = 5, **more: Any
) -> dict[str, Any]:
    """A Sentinel-2 Item with a box for a footprint."""
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    clouds = {} if cloud is None else {"eo:cloud_cover": cloud}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "properties": {"datetime": f"{day}T10:00:31Z", **clouds, **more},
        "links": [],
        "assets": {},
    }


class Api:
    """What the server holds and how it answers.

    Attributes:
        items: The Items of its collection.
        searches: The bodies of the searches so far, those of later pages included.
        page: What every search is answered with instead, if not None.
        status: HTTP status of every search.
        busy: Number of requests that are answered with HTTP status 503 first.
        delay: Seconds before a search is answered.
        conforms: Its conformance classes.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = list(items)
        self.searches: list[dict[str, Any]] = []
        self.page: str | None = None
        self.status = 200
        self.busy = 0
        self.delay = 0.0
        self.conforms = [*CONFORMS, QUERY]
        self.url = ""

    def landing(self) -> dict[str, Any]:
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "root", "href": self.url},
            {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"},
        ]
        return {
            "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "A test.",
            "conformsTo": self.conforms, "links": links,
        }  # fmt: skip

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        self.searches.append(body)
        kept = [each for each in self.items if not isinstance(each, dict) or self._wanted(each, body)]
        start = int(body.get("token", 0))
        end = start + min(PAGE, body.get("limit", PAGE))
        more = {"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": {**body, "token": end}}
        return {"type": "FeatureCollection", "features": kept[start:end], "links": [more] * (end < len(kept))}

    def _wanted(self, each: dict[str, Any], body: dict[str, Any]) -> bool:
        west, south, east, north = body["bbox"]
        left, low, right, high = each["bbox"]
        first, last = body["datetime"].split("/")
        cloud, most = each["properties"].get("eo:cloud_cover", 100), body.get("query", {}).get("eo:cloud_cover", {})
        return (
            left < east and right > west and low < north and high > south
            and first <= each["properties"]["datetime"] <= last
            and cloud <= most.get("lte", 100)
        )  # fmt: skip


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    """Serves an API for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(json.dumps(api.landing()), 200)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(api.delay)
            if api.busy:
                api.busy -= 1
                self._answer("busy", 503)
                return
            self._answer(json.dumps(api.search(body)) if api.page is None else api.page, api.status)

        def _answer(self, text: str, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/geo+json")
            self.end_headers()
            self.wfile.write(text.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
