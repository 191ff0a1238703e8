"""The signatures of the public functions."""

import inspect
from collections.abc import Callable
from typing import Any, get_overloads

import pytest

import geocfl
from geocfl.errors import UsageError

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: function for name in geocfl.__all__ if inspect.isfunction(function := getattr(geocfl, name))
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_keyword_is_declared(name: str) -> None:
    function = inspect.unwrap(FUNCTIONS[name])
    for signature in map(inspect.signature, get_overloads(function) or [function]):
        for parameter in signature.parameters.values():
            annotation = str(parameter.annotation)
            assert parameter.kind != parameter.VAR_POSITIONAL
            assert "Any" not in annotation, parameter
            assert annotation.startswith("Unpack[") or parameter.kind != parameter.VAR_KEYWORD, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unknown_keyword_is_refused_with_a_suggestion(name: str) -> None:
    known = [
        parameter.name
        for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ][-1]
    with pytest.raises(UsageError, match=f"did you mean '{known}'"):
        FUNCTIONS[name](**{f"{known}x": None})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_documented(name: str) -> None:
    documented = inspect.getdoc(FUNCTIONS[name]) or ""
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        assert f"{parameter}: " in documented, parameter
