"""orthomesh: one language model, many tasks, many devices, no server; sparse orthogonal low-rank adapters."""

from __future__ import annotations

__version__ = "0.1.0"
