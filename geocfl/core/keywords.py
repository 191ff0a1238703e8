"""Refuses unknown keyword arguments with an error that suggests the right name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from geocfl.errors import UsageError, unknown_name

P = ParamSpec("P")
R = TypeVar("R")


def declared(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function raise `UsageError` with a suggestion when it is called with an unknown keyword.

    The known keywords are the function's parameters and, for ``**options: Unpack[Options]``, the keys of that
    TypedDict.
    """

    @cache
    def known() -> tuple[str, ...]:
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in parameters if p.kind in kinds and p.name != "self"]
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                # Evaluate only this annotation; names in others may be imported for type checkers only.
                options = str(parameter.annotation).removeprefix("Unpack[").removesuffix("]")
                names += function.__globals__[options].__annotations__
        return tuple(names)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known():
                raise UsageError(f"{function.__name__}(): {unknown_name('parameter', name, known())}")
        return function(*args, **kwargs)

    return call
