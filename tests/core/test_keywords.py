from __future__ import annotations

from typing import TypedDict, Unpack

import pytest

from geocfl.core.keywords import declared
from geocfl.errors import UsageError


class Options(TypedDict, total=False):
    stride: int
    min_area: float


@declared
def render(scene: str, *, out: str = "maps", **options: Unpack[Options]) -> dict[str, object]:
    """Returns its arguments."""
    return {"scene": scene, "out": out, **options}


def test_declared_keywords_pass() -> None:
    assert render("s.tif", out="o", stride=16) == {"scene": "s.tif", "out": "o", "stride": 16}
    assert render.__doc__ == "Returns its arguments."


@pytest.mark.parametrize(("keyword", "meant"), [("strid", "stride"), ("min-area", "min_area"), ("ot", "out")])
def test_an_unknown_keyword_is_refused_with_a_suggestion(keyword: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"render\(\): unknown parameter '{keyword}'; did you mean '{meant}'\?"):
        render("s.tif", **{keyword: 1})  # type: ignore[arg-type]
