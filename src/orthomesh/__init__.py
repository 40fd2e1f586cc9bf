"""orthomesh: one language model, many tasks, many devices, no server; sparse orthogonal low-rank adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models.attach import load, said

__version__ = "0.1.0"
__all__ = ["__version__", "load", "said"]


def __getattr__(name: str) -> Any:
    """`load` and `said`, which bring torch, only when they are asked for."""
    if name not in ("load", "said"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .models import attach

    return getattr(attach, name)
