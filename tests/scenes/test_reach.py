"""Whom a URL reaches, in whatever way its address is written."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from geocfl.scenes.reach import Reach, _of_host, reach

NAMES = {"public.example": "8.8.8.8", "intranet.example": "10.0.0.7", "trap.example": "127.0.0.1"}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names that this machine resolves without a network."""
    true = socket.getaddrinfo

    def resolve(host: str, *rest: object, **more: object) -> list[tuple[object, ...]]:
        if host == "two.example":
            return [(0, 0, 0, "", (address, 0)) for address in ("8.8.8.8", "192.168.1.1")]
        if host.endswith(".invalid"):
            raise socket.gaierror
        return true(NAMES.get(host, host), *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    _of_host.cache_clear()
    yield
    _of_host.cache_clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://public.example/B04.tif", Reach.PUBLIC),
        ("https://me:secret@public.example:8080/B04.tif?a=127.0.0.1", Reach.PUBLIC),
        ("https://nowhere.invalid/B04.tif", Reach.PUBLIC),
        ("s3://bucket/B04.tif", Reach.PUBLIC),
        ("https://[2600::1]/B04.tif", Reach.PUBLIC),
        ("http://192.168.1.1/B04.tif", Reach.PRIVATE),
        ("http://intranet.example/B04.tif", Reach.PRIVATE),
        ("http://two.example/B04.tif", Reach.PRIVATE),
        ("http://[fd00::1]/B04.tif", Reach.PRIVATE),
        ("HTTP://127.0.0.1:8080/B04.tif", Reach.MACHINE),
        ("http://localhost/B04.tif", Reach.MACHINE),
        ("http://LOCALHOST./B04.tif", Reach.MACHINE),
        ("http://a.localhost/B04.tif", Reach.MACHINE),
        ("http://trap.example/B04.tif", Reach.MACHINE),
        ("http://0.0.0.0/B04.tif", Reach.MACHINE),
        ("http://127.1/B04.tif", Reach.MACHINE),
        ("http://0x7f000001/B04.tif", Reach.MACHINE),
        ("http://2130706433/B04.tif", Reach.MACHINE),
        ("http://[::1]/B04.tif", Reach.MACHINE),
        ("http://[::ffff:127.0.0.1]/B04.tif", Reach.MACHINE),
        ("http://169.254.169.254/latest/meta-data/", Reach.MACHINE),  # of cloud machines, with their credentials
        ("http://public.example@127.0.0.1/B04.tif", Reach.MACHINE),
    ],
)
def test_reach(url: str, expected: Reach) -> None:
    assert reach(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1\\@public.example/B04.tif", "http://%31%32%37.0.0.1/B04.tif", "http:///127.0.0.1/B04.tif",
        "http://public.example\t/B04.tif", "http://public.example:80@127.0.0.1@public.example/B04.tif",
    ],
)  # fmt: skip
def test_what_programs_read_in_several_ways_is_not_public(url: str) -> None:
    assert reach(url) == Reach.MACHINE
