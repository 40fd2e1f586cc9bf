"""One file, one method. A new method is a file here and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ..types import Method
from .gossip_lora import GossipLora
from .local import Local
from .setup import Setup
from .sparse_orthogonal import SparseOrthogonal


@runtime_checkable
class MethodSettings(Protocol):
    """Settings of a method: a frozen record that knows how to build the method's functions for a run."""

    @property
    def kind(self) -> str:
        """The method's name in `METHODS`."""
        ...

    def build(self, setup: Setup) -> Method:
        """The functions."""
        ...


METHODS: Mapping[str, type[Any]] = {
    "local": Local,
    "gossip_lora": GossipLora,
    "sparse_orthogonal": SparseOrthogonal,
}
"""Settings class of every method, by kind."""
