"""Which methods stand for which rows of the paper's tables, and what we put beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import near
from ..experiment import BASE, ORACLE
from ..methods import METHODS
from ..methods.centralised import Centralised
from ..methods.fedalt import FedAlt
from ..methods.fedsb import FedSb
from ..methods.flasc import Flasc
from ..methods.fly import Fly
from ..methods.full import Full
from ..methods.gossip_lora import GossipLora
from ..methods.hard_moe import HardMoe
from ..methods.local import Local
from ..methods.lori import Lori
from ..methods.merged import Merged
from ..methods.sparse_orthogonal import SparseOrthogonal, paper_reading


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    label: of the method in the run. title: as the paper has it, or in our words. settings: of the method; none where
    the run itself has the row (untouched model, oracle). printed: whether the paper has this row. note: what it is.
    """

    label: str
    title: str
    settings: Any = None
    printed: bool = False
    note: str = ""


OURS = "orthomesh"
"""Label of the proposed method in our reading; paired tests are against it."""

TABLE_1 = (
    Row(label="full", title="FPFT", settings=Full(), printed=True, note="every weight averaged among neighbours"),
    Row(label="gossip", title="LoRA", settings=GossipLora(), printed=True, note="both factors averaged (Dec-LoRA)"),
    Row(label="lori", title="LoRI", settings=Lori(), printed=True, note="masks of 10 %, random connection, `cat`"),
    Row(label="hard_moe", title="Hard-routing MoE", settings=HardMoe(), printed=True, note="oracle, every weight"),
    Row(
        label="single",
        title="Proposed (Single)",
        settings=SparseOrthogonal(masks="independent", max_collision=1.0),
        printed=True,
        note="one cluster, independent masks",
    ),
    Row(label=OURS, title="Proposed Method", settings=SparseOrthogonal(), printed=True, note="our default reading"),
    Row(
        label="clustered",
        title="Proposed, independent masks",
        settings=SparseOrthogonal(masks="independent"),
        note="clusters under S_max, masks not negotiated",
    ),
    Row(
        label="paper", title="Proposed, paper's reading", settings=paper_reading(), note="to the letter where it can be"
    ),
    Row(label=BASE, title="Untouched model", note="before anybody learns"),
    Row(label="local", title="Local only", settings=Local(), note="LoRA, nothing exchanged"),
    Row(label="centralised", title="Pooled data", settings=Centralised(), note="one LoRA on all data, nothing charged"),
    Row(label="hard_sparse", title="Hard routing, our size", settings=HardMoe(experts="sparse"), note="oracle"),
    Row(label=ORACLE, title="Oracle of the proposed", note="its own experts, perfectly chosen"),
)
"""The paper's six rows, then ours."""

TABLE_2 = (
    Row(label="full", title="FPFT", settings=HardMoe(), printed=True, note="every weight, each task alone"),
    Row(label="gossip", title="LoRA", settings=HardMoe(experts="lora"), printed=True, note="both factors"),
    Row(label="lori", title="LoRI", settings=HardMoe(experts="lori"), printed=True, note="dense run, mask, sparse run"),
    Row(label=OURS, title="Proposed Method", settings=HardMoe(experts="sparse"), printed=True, note="our default"),
    Row(label=BASE, title="Untouched model", note="before anybody learns"),
)
"""Every task by the device that learnt it, alone."""

FIGURE_4 = tuple(r for r in TABLE_1 if r.printed or r.label in ("clustered", BASE, ORACLE))
"""Accuracy over the number of devices: the paper's six lines, and what bounds them."""

TITLES = {
    "ffa": "FFA-LoRA",
    "conlora": "ConLoRA",
    "fedsa": "FedSA-LoRA",
    "rolora": "RoLoRA",
    "adf": "ADF-LoRA",
    "tad": "TAD-LoRA",
    "decaf": "DeCAF",
    "flora": "FLoRA, stacked",
    "fedex": "FedEx-LoRA",
    "fair": "LoRA-FAIR",
    "fedalt": "FedALT",
    "slora": "SLoRA",
    "sampled": "Adaptive, sampled",
    "flasc": "FLASC",
    "choco": "Top-k gossip, CHOCO",
    "fedsb": "Fed-SB",
    "fly": "FlyLoRA",
    "olora": "O-LoRA",
    "soft": "SOFT and TSFA, reconstructed",
}
"""Kinds that have one row among all methods, with their defaults."""

COMPACT = SparseOrthogonal(values="int8", mask_code="entropy", sketch_bits=8, sketch=16)
"""Ours with what costs little accuracy: values in 8 bit, masks at their entropy, small sketches."""

COMPARISON = (
    Row(label=BASE, title="Untouched model", note="before anybody learns"),
    Row(label="local", title="Local only", settings=Local(), note="LoRA, nothing exchanged"),
    Row(label="centralised", title="Pooled data", settings=Centralised(), note="one LoRA on all data, nothing charged"),
    Row(label="hard_moe", title="Hard routing, every weight", settings=HardMoe(), note="oracle"),
    Row(label="hard_sparse", title="Hard routing, our size", settings=HardMoe(experts="sparse"), note="oracle"),
    Row(label="full", title="FPFT, gossip", settings=Full()),
    Row(label="gossip", title="LoRA, gossip", settings=GossipLora(), note="Dec-LoRA; both factors, 16 bit"),
    Row(label="lori", title="LoRI, cat", settings=Lori()),
    Row(label="lori_linear", title="LoRI, linear", settings=Lori(merging="linear")),
    Row(label="merged_cat", title="Merged at the end, cat", settings=Merged(rule="cat")),
    Row(label="merged_ties", title="Merged at the end, TIES", settings=Merged()),
    Row(label="merged_dare", title="Merged at the end, DARE", settings=Merged(rule="dare")),
    Row(label="merged_knots", title="Merged at the end, KnOTS", settings=Merged(rule="knots")),
    *(Row(label=kind, title=title, settings=METHODS[kind]()) for kind, title in TITLES.items()),
    Row(
        label="topk",
        title="Top-k with error feedback, server",
        settings=Flasc(up=0.1, down=1.0, ranking="together", feedback=True),
        note="the same share of entries up as CHOCO's, all down",
    ),
    Row(
        label="flasc_together",
        title="FLASC, ranked together",
        settings=Flasc(ranking="together"),
        note="as its authors",
    ),
    Row(label="fedsb_seed", title="Fed-SB, seeded sides", settings=FedSb(start="seed"), note="no first gradients"),
    Row(label="fedalt_mixer", title="FedALT, trained mixer", settings=FedAlt(mixer="trained"), note="as its authors"),
    Row(label="fly_value", title="FlyLoRA, ranked by value", settings=Fly(ranking="value"), note="as its code ranks"),
    Row(label="paper", title="Proposed, paper's reading", settings=paper_reading()),
    Row(label=OURS, title="Ours", settings=SparseOrthogonal(), note="default reading"),
    Row(label="compact", title="Ours, compact", settings=COMPACT, note="8 bit, masks at their entropy, small sketches"),
    Row(label=ORACLE, title="Oracle of ours", note="its own experts, perfectly chosen"),
)
"""Every method there is here, at equal rank and rounds; a comparison of ours, no table of the paper."""

ROWS: Mapping[str, tuple[Row, ...]] = {
    "table1": TABLE_1,
    "table2": TABLE_2,
    "fig4": FIGURE_4,
    "methods": COMPARISON,
}


def chosen(what: str, only: Iterable[str]) -> tuple[Row, ...]:
    """Rows of a table, all or those named.

    Args:
        what: a key of `ROWS`.
        only: labels; empty for all. The untouched model and the oracle stay where they come for nothing.

    Raises:
        ValueError: no such row.
    """
    rows, wanted = ROWS[what], tuple(only)
    known = [r.label for r in rows if r.settings is not None]
    for label in wanted:
        if label not in known:
            raise ValueError(f"--only: {what} has no row {label!r}.{near(label, known)}")
    return tuple(r for r in rows if not wanted or r.label in wanted or r.settings is None)


def methods(rows: Iterable[Row]) -> dict[str, Any]:
    """Settings by label as an experiment takes them; ours first, so that the oracle asks its experts."""
    found = {r.label: r.settings for r in rows if r.settings is not None}
    return {label: found[label] for label in sorted(found, key=lambda one: one != OURS)}
