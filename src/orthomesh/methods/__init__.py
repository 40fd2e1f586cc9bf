"""One file, one method. A new method is a file here and a line in `METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ..types import Method
from .adf import Adf
from .centralised import Centralised
from .choco import Choco
from .conlora import ConLora
from .decaf import Decaf
from .fair import Fair
from .fedalt import FedAlt
from .fedex import FedEx
from .fedsa import FedSa
from .fedsb import FedSb
from .ffa import Ffa
from .flasc import Flasc
from .flora import Flora
from .fly import Fly
from .full import Full
from .gossip_lora import GossipLora
from .hard_moe import HardMoe
from .local import Local
from .lori import Lori
from .merged import Merged
from .olora import OLora
from .rolora import Rolora
from .sampled import Sampled
from .setup import Setup
from .slora import SLora
from .soft import Soft
from .sparse_orthogonal import SparseOrthogonal
from .tad import Tad


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
    "centralised": Centralised,
    "hard_moe": HardMoe,
    "full": Full,
    "gossip_lora": GossipLora,
    "lori": Lori,
    "ffa": Ffa,
    "conlora": ConLora,
    "fedsa": FedSa,
    "rolora": Rolora,
    "adf": Adf,
    "tad": Tad,
    "decaf": Decaf,
    "merged": Merged,
    "flora": Flora,
    "fedex": FedEx,
    "fair": Fair,
    "fedalt": FedAlt,
    "slora": SLora,
    "sampled": Sampled,
    "flasc": Flasc,
    "choco": Choco,
    "fedsb": FedSb,
    "fly": Fly,
    "olora": OLora,
    "soft": Soft,
    "sparse_orthogonal": SparseOrthogonal,
}
"""Settings class of every method, by kind."""

_SERVER = "a server among the devices averages for all, over its own links to each"
TIED: Mapping[str, str] = {
    "local": "nobody talks",
    "centralised": "nobody talks: one adapter is trained on all data",
    "hard_moe": "nobody talks: each task is put to the device that has it",
    **dict.fromkeys(("flora", "fedex", "fair", "fedalt", "slora", "sampled", "flasc", "soft"), _SERVER),
    "choco": "differences only add up where whoever is in reach hears every one of them",
    "sparse_orthogonal": "devices form clusters by their collision rates and the links there are",
}
"""Why a method has no topology to choose, by kind."""
