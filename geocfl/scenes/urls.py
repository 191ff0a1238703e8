"""URLs of rasters: GDAL's paths for them, and how they are shown without passwords and tokens."""

from __future__ import annotations

import re

SCHEMES = {"https://": "/vsicurl/https://", "http://": "/vsicurl/http://"} | {
    "s3://": "/vsis3/",
    "gs://": "/vsigs/",
    "az://": "/vsiaz/",
}
"""Prefix of a URL to the prefix of GDAL's path."""
HIDDEN = "***@"
"""Replaces all that may be a name and password, where nobody can say for certain where they end."""

_NETWORK = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs)(?:_streaming)?[/?]")
# Also with too few or too many slashes. A name of one letter and a colon is a drive of Windows.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:[/\\]{2,}|\b(?:https?|ftps?|s3|gs|az|abfss?):[/\\]*", re.IGNORECASE)
_QUERY = re.compile(r"[?#].*", re.DOTALL)
# A name with a dot, an address, or localhost, each with or without a port; any other name without one.
_HOST = re.compile(r"(?:localhost|[^@:]*\.[^@:]*|\[[^@\]]*\])(?::\d*)?|[^@:]*", re.IGNORECASE)
_ADDRESS_IN_TEXT = re.compile(rf"""[^\s'"<>(]*(?:{_SCHEME.pattern}|{_NETWORK.pattern})[^\s'"<>]*""", re.IGNORECASE)
_QUERY_IN_TEXT = re.compile(r"""(/[^\s'"<>?]*)\?[^\s'"<>)]*""")


def gdal_path(path: str) -> str:
    """GDAL's path for a URL; local and ``/vsi...`` paths stay as they are.

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


def without_query(path: str) -> str:
    """A URL, or a path of GDAL's over the network, without query and fragment; any other path as it is."""
    return _QUERY.sub("", path) if "://" in path or is_remote(path) else path


def shown(path: str) -> str:
    """A path to show or store: as a URL if it is one, without passwords and the tokens of signed URLs.

    A password may hold any characters, such as ``/`` and ``@``, which belong in a URL only in another form. Then all is
    hidden that may be a part of it.
    """
    for scheme, prefix in SCHEMES.items():
        if path.startswith(prefix):
            path = scheme + path[len(prefix) :]
    return _shown(path, is_remote(path))


def is_public(path: str) -> bool:
    """Whether `shown` hides nothing of a path or URL, so that what it shows leads to the same file."""
    return gdal_path(shown(path)) == gdal_path(path)


def _shown(path: str, remote: bool) -> str:
    scheme = _SCHEME.search(path)
    if not scheme:
        return _QUERY.sub("", path) if remote else path
    before, rest = path[: scheme.end()], path[scheme.end() :]
    host = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    if "@" in host and "@" not in rest[len(host) :]:
        rest = rest[rest.rindex("@") + 1 :]
    elif "@" in rest and not _HOST.fullmatch(host):
        rest = HIDDEN + rest[rest.rindex("@") + 1 :]
    return before + _shown(rest, remote=True)


def without_secrets(text: str) -> str:
    """A text, such as a traceback, whose URLs are as from `shown`, and whose other addresses have no queries.

    Fragments, which are the Items of a collection in messages, stay.
    """

    def address(found: re.Match[str]) -> str:
        path, fragment, item = found.group().partition("#")
        return shown(path) + fragment + item if not set("@?#").intersection(item) else shown(found.group())

    return _QUERY_IN_TEXT.sub(r"\1", _ADDRESS_IN_TEXT.sub(address, text))
