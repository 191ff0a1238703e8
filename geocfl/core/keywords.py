"""Refuses unknown keyword arguments, and values of the wrong type, with an error that names the parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial, wraps
from numbers import Integral, Real
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from geocfl.errors import UsageError, unknown_name

P = ParamSpec("P")
R = TypeVar("R")

LONGEST = 100
"""Characters of a value that a message shows; of a longer one it shows the type."""
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "text"),
    # A path in an object store, of universal-pathlib, is not a PathLike.
    "Path": (lambda value: isinstance(value, PathLike) or hasattr(value, "joinpath"), "a path"),
    "int": (lambda value: isinstance(value, Integral) and not isinstance(value, bool), "a whole number"),
    "float": (lambda value: isinstance(value, Real) and not isinstance(value, bool), "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "None": (lambda value: value is None, "None"),
}
"""Types that are checked, by their names in annotations: the check, and what the type is called in a message."""


def declared(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function raise `UsageError` when it is called with an unknown keyword or a value of the wrong type.

    The known keywords are the function's parameters and, for ``**options: Unpack[Options]``, the keys of that
    TypedDict. An unknown one gets a suggestion. Types are checked as `check_type` says; those of options are left to
    the settings that they make.
    """

    @cache
    def annotations() -> dict[str, str]:
        """Annotation of each parameter that is not an option, by name."""
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return {p.name: str(p.annotation) for p in parameters if p.kind in kinds}

    @cache
    def known() -> tuple[str, ...]:
        names = [name for name in annotations() if name != "self"]
        for parameter in inspect.signature(function).parameters.values():
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
        given = dict(zip(annotations(), args, strict=False)) | kwargs
        for name, annotation in annotations().items():
            if name in given:
                check_type(name, given[name], annotation, function.__globals__)
        return function(*args, **kwargs)

    return call


def check_type(name: str, value: object, annotation: str, classes: Mapping[str, Any] | None = None) -> None:
    """Checks that a value is of the type that its parameter is annotated with.

    Args:
        name: The parameter.
        value: Its value.
        annotation: The annotation, such as ``"int | None"``. One with a generic type or a protocol is not checked.
        classes: Classes by their names in annotations; names that are absent are not checked.

    Raises:
        UsageError: The value is of another type.
    """
    words = []
    for part in annotation.split(" | "):
        if part in _KINDS:
            matches, word = _KINDS[part]
        else:
            expected = (classes or {}).get(part)
            if not isinstance(expected, type) or expected is Any or getattr(expected, "_is_protocol", False):
                return
            matches, word = partial(_is_instance, expected), f"a {part}"
        if matches(value):
            return
        words.append(word)
    if "a path" in words and "text" in words:
        words.remove("text")
    shown = repr(value)
    if len(shown) > LONGEST or "\n" in shown:
        shown = f"of type {type(value).__name__}"
    raise UsageError(f"`{name}` is {shown} but must be {' or '.join(words)}")


def _is_instance(expected: type, value: object) -> bool:
    return isinstance(value, expected)
