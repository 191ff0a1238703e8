from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pytest

from geocfl.core.keywords import declared
from geocfl.core.legend import Legend
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


@declared
def draw(out: str | Path, legend: Legend | None = None, *, cells: int = 1, scale: float | None = None, on: bool = True):
    """Returns its arguments."""
    return out, legend, cells, scale, on


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": None}, "`out` is None but must be a path"),
        ({"out": "o", "legend": "x"}, "`legend` is 'x' but must be a Legend or None"),
        ({"out": "o", "cells": "2"}, "`cells` is '2' but must be a whole number"),
        ({"out": "o", "cells": 2.5}, "`cells` is 2.5 but must be a whole number"),
        ({"out": "o", "cells": True}, "`cells` is True but must be a whole number"),
        ({"out": "o", "scale": [1]}, r"`scale` is \[1\] but must be a number or None"),
        ({"out": "o", "on": "no"}, "`on` is 'no' but must be True or False"),
        ({"out": list(range(99))}, "`out` is of type list but must be a path"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_parameter(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw(**arguments)  # type: ignore[arg-type]


def test_positional_arguments_are_checked() -> None:
    with pytest.raises(UsageError, match="`out` is 3 but must be a path"):
        draw(3)  # type: ignore[arg-type]


def test_numbers_of_numpy_and_paths_of_stores_pass() -> None:
    draw("o", Legend(()), cells=np.int64(2), scale=np.float32(0.5))
    draw(Path("o"), scale=1)
    draw(pytest.importorskip("upath").UPath("memory://maps"))


@declared
def keep(value: Any, *, again: Any = None) -> tuple[Any, Any]:
    """Returns its arguments."""
    return value, again


def test_any_is_not_checked() -> None:
    assert keep("x", again=3) == ("x", 3)
