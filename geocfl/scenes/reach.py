"""Whom a URL reaches: the internet, a private network, or this machine."""

from __future__ import annotations

import ipaddress
import re
import socket
from enum import IntEnum
from functools import lru_cache
from urllib.parse import urlsplit


class Reach(IntEnum):
    """From where an address can be reached; the larger, the fewer can."""

    PUBLIC = 0
    PRIVATE = 1
    MACHINE = 2


_PLAIN = re.compile(r"(?i)https?://(?:[^/?#\\@\s]*@)?(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d*)?(?:[/?#][^\s\\]*)?")
"""URLs that every program reads the same way."""


def reach(url: str) -> Reach:
    """Whom a URL reaches.

    Args:
        url: ``https://`` or ``http://``; anything else is public, because the user chooses the servers of buckets.

    Returns:
        That of the least public address that its host has. A loopback or link-local address is one of this machine, and
        so is a host that programs may read in several ways. A host whose address is unknown is public.
    """
    if not url.lower().startswith(("https://", "http://")):
        return Reach.PUBLIC
    host = urlsplit(url).hostname if _PLAIN.fullmatch(url) else None
    return _of_host(host.rstrip(".")) if host else Reach.MACHINE


@lru_cache(maxsize=1024)
def _of_host(host: str) -> Reach:
    if host == "localhost" or host.endswith(".localhost"):
        return Reach.MACHINE
    try:  # which also reads other forms of addresses, such as 127.1 and 0x7f000001
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return Reach.PUBLIC
    return max(_of_address(str(each[4][0])) for each in found)


def _of_address(text: str) -> Reach:
    address = ipaddress.ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return Reach.MACHINE
    return Reach.PUBLIC if address.is_global and not address.is_multicast else Reach.PRIVATE
