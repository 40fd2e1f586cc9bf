"""How settings are checked: typed, nothing unknown, and a sentence instead of a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
"""For `pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)`, beside what it configures."""

T = TypeVar("T")


def near(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: ` Did you mean 'rank'?`, or the known words when none is near.

    >>> near("rnak", ["rank", "steps"])
    " Did you mean 'rank'?"
    """
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(words)}."


def parse(kind: type[T], values: Mapping[Any, Any], where: str) -> T:
    """Build a settings record from plain values, or say in one sentence what is wrong and where.

    Args:
        kind: a pydantic dataclass made with `STRICT`.
        values: nested plain values, as read from YAML.
        where: what to call the place, e.g. "radio" or "run.yaml".

    Returns:
        The record.

    Raises:
        ValueError: unknown key (with the nearest known one), wrong type, or a value out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise ValueError(_sentence(kind, error, where)) from None


def _sentence(kind: type[Any], error: ValidationError, where: str) -> str:
    """The first thing pydantic found, in words a user can act on."""
    first = error.errors()[0]
    path = ".".join([where, *(str(p) for p in first["loc"])])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{path}: there is no such setting.{near(str(first['loc'][-1]), _keys(kind, first['loc'][:-1]))}"
    got = first.get("input")
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    hint = ""
    if first["type"] == "literal_error":
        known = re.findall("'([^']*)'", first["ctx"]["expected"])
        hint = near(str(got), known) if difflib.get_close_matches(str(got), known, n=1) else ""
    return f"{path}: {message}, got {got!r}.{hint}"


def _keys(kind: type[Any], path: tuple[Any, ...]) -> list[str]:
    """Names of the settings at a place inside `kind`."""
    for step in path:
        field = getattr(kind, "__pydantic_fields__", {}).get(step)
        inner = () if field is None else (field.annotation, *get_args(field.annotation))
        records = [a for a in inner if hasattr(a, "__pydantic_fields__")]
        if not records:
            return []
        kind = records[0]
    return list(getattr(kind, "__pydantic_fields__", {}))
