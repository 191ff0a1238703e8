"""URLs in messages and products: what identifies a file is shown, passwords and tokens are not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geocfl.scenes.urls import shown, without_query, without_secrets


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("https://me:SECRET@example.com/B04.tif", "https://example.com/B04.tif"),
        ("http://SECRET@localhost:8080/B04.tif", "http://localhost:8080/B04.tif"),
        ("https:///me:SECRET@example.com/B04.tif", "https:///example.com/B04.tif"),
        ("https:me:SECRET@example.com/B04.tif", "https:example.com/B04.tif"),
        ("htps://me:SECRET@example.com/B04.tif?SECRET", "htps://example.com/B04.tif"),
        ("ftp://me:SECRET@example.com/B04.tif", "ftp://example.com/B04.tif"),
        ("s3://key:SE/CRET@bucket/B04.tif", "s3://***@bucket/B04.tif"),
        ("http://me:1/SECRET@example.com/B04.tif", "http://***@example.com/B04.tif"),
        ("/vsicurl/HTTP://me:SECRET@example.com/B04.tif", "/vsicurl/HTTP://example.com/B04.tif"),
        ("/vsizip//vsicurl/https://me:SECRET@a.org/a.zip?SECRET/B04.jp2", "/vsizip//vsicurl/https://a.org/a.zip"),
        ("/vsicurl?url=https%3A%2F%2Fme%3ASECRET%40a.org", "/vsicurl"),
    ],
)
def test_passwords_are_not_shown(path: str, text: str) -> None:
    assert shown(path) == text


@pytest.mark.parametrize(
    "path",
    [
        "https://example.com/v1@2x/B04.tif", "http://127.0.0.1:8080/a@b.tif", "http://[::1]:80/a@b.tif",
        "s3://bucket/a@b.tif", "C:\\data\\a@b.tif", "C://data/a@b.tif", "a@b.tif?x", "site: me@x#1.tif",
    ],
)  # fmt: skip
def test_an_at_sign_of_a_file_name_is_shown(path: str) -> None:
    assert shown(path) == path


@given(
    st.sampled_from(["https://", "http://", "s3://", "HTTPS://", "/vsicurl/https://", "http:/", "ftp://"]),
    st.text("aé:/?#@\\%1. ", max_size=4),
    st.text("aé:/?#@\\%1. ", max_size=4),
)
@example("https://", "/", "@")
@example("http://", "@/", "?")
@example("http://", "1?", "#://")
def test_no_password_is_shown_whatever_it_is_made_of(scheme: str, before: str, after: str) -> None:
    assert "SECRET" not in shown(f"{scheme}me:{before}SECRET{after}@example.com/B04.tif?sig=SECRET")


def test_texts_of_other_libraries() -> None:
    text = (
        "Max retries exceeded with url: /a/B04.tif?sig=SECRET (Caused by NameResolutionError('a.org'))\n"
        "'/vsicurl/https://me:SECRET@a.org/B04.tif?sig=SECRET' does not exist, see s3://k:SECRET@b/x and a/b,\n"
        "https://a.org/items.json?SECRET#A: is no Item, https://me:#SECRET@a.org/B04.tif: does not exist"
    )
    assert without_secrets(text) == (
        "Max retries exceeded with url: /a/B04.tif (Caused by NameResolutionError('a.org'))\n"
        "'https://a.org/B04.tif' does not exist, see s3://b/x and a/b,\n"
        "https://a.org/items.json#A: is no Item, https://***@a.org/B04.tif: does not exist"
    )


def test_queries() -> None:
    assert without_query("https://a.org/B04.tif?a=.tif#b") == "https://a.org/B04.tif"
    assert without_query("/vsis3/bucket/B04.tif?versionId=1") == "/vsis3/bucket/B04.tif"
    assert without_query("B04?.tif#1") == "B04?.tif#1"
