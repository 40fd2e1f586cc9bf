"""What two devices that may not run together do not agree on, in words."""

from __future__ import annotations

import json
from typing import Any


def difference(mine: bytes, theirs: bytes) -> str:
    """What two devices do not agree on, in words, from the stories they tell of themselves: JSON of all settings.

    >>> difference(b'{"train": {"steps": 5}}', b'{"train": {"steps": 9}}')
    'train.steps is 5 here and 9 there'
    """
    try:
        here, there = flat(json.loads(mine)), flat(json.loads(theirs))
    except (ValueError, RecursionError):
        return "its settings cannot be read"
    apart = [k for k in sorted({*here, *there}) if here.get(k) != there.get(k)]
    words = [f"{k} is {here.get(k, 'absent')} here and {there.get(k, 'absent')} there" for k in apart[:3]]
    more = f", and {len(apart) - 3} more" if len(apart) > 3 else ""
    return (", ".join(words) + more)[:600] or "nothing differs that is told"


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted name."""
    if not isinstance(value, dict):
        return {place: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= flat(inner, f"{place}.{name}" if place else str(name))
    return found
