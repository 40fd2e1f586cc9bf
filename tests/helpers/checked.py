"""Checks every annotation of a package while its tests run: jaxtyping's import hook, at a third of the price.

jaxtyping wraps a function twice, when it is defined, and binds its arguments three times a call. Here a function is
wrapped by beartype when it is first called, and has sizes to tie to each other only where it has shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import is_dataclass
from types import CodeType, FunctionType
from typing import Any, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

CONF = BeartypeConf(is_pep484_tower=True)  # as the type checker has it, an int will do for a float
_sizes = jaxtyping.jaxtyped
_MADE: dict[tuple[str, str, CodeType], tuple[FunctionType, bool]] = {}
"""What was made of a function, by module, name and code: an inner function is defined anew with every call of the outer
one, and dataclasses of the same fields have the same code, whatever their types."""


def install(package: str) -> None:
    """Every function and dataclass of a package that is imported from now on is checked."""
    jaxtyping.jaxtyped = _decorator
    jaxtyping.install_import_hook(package, "beartype.beartype")


def _decorator(*, typechecker: object) -> Callable[[Any], Any]:
    return _checked


def _checked(thing: Any) -> Any:
    if isinstance(thing, type):
        if is_dataclass(thing) and isinstance(vars(thing).get("__init__"), FunctionType):
            thing.__init__ = _checked(thing.__init__)  # type: ignore[misc]
        return thing
    if not getattr(thing, "__annotations__", None):
        return thing
    made: list[tuple[Callable[..., Any], bool]] = []

    @functools.wraps(thing)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if not made:
            made.append(_made(thing))
        function, has_shapes = made[0]
        if not has_shapes:
            return function(*args, **kwargs)
        with _sizes("context"):
            return function(*args, **kwargs)

    return checked


def _made(function: FunctionType) -> tuple[Callable[..., Any], bool]:
    """The function with its arguments and its result checked, and whether some of them have shapes."""
    name = (function.__module__, function.__qualname__, function.__code__)
    if (known := _MADE.get(name)) is not None:
        return _around(known[0], function), known[1]
    hints = {name: _hint(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, hints
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    made = beartype(conf=CONF)(copy), any("jaxtyping" in repr(hint) for hint in hints.values())
    _MADE[name] = made
    return made


def _around(checker: FunctionType, function: FunctionType) -> FunctionType:
    """The same checks around another function of the same code; one without any checks is itself."""
    if "__beartype_func" not in (checker.__kwdefaults__ or {}):
        return function
    other = FunctionType(checker.__code__, checker.__globals__, checker.__name__, None, checker.__closure__)
    other.__kwdefaults__ = {**checker.__kwdefaults__, "__beartype_func": function}
    other.__annotations__ = checker.__annotations__
    return other


def _hint(hint: Any, names: dict[str, Any]) -> Any:
    """What an annotation stands for; anything at all where only the type checker knows."""

    def holder() -> None: ...

    holder.__annotations__ = {"value": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["value"]
    except NameError:
        return Any
