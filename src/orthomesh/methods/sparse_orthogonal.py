"""The paper's method: frozen projections, sparse expansions, clusters, and an implicit mixture of experts.

Sections IV-B (16)-(19), IV-C steps 1-4 (24)(25), IV-D (26)(29). Defaults take our readings R1-R7, R9, R12;
`paper_reading` takes the paper's side of each. How a device learns: learning.py; how a cluster finds its masks:
agreement.py; what travels: telling.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.mask import Level
from ..adapters.projection import Kind, projection
from ..adapters.refinement import Refinement, refine
from ..config import STRICT
from ..exchange.quantise import Precision
from ..exchange.union import Rule
from ..experts.bank import ClusterRecord, each, newest, read
from ..experts.sketch import unpack
from ..planning.problem import Solver
from ..types import Bank, DeviceState, Expert, Method
from ..wireless.infeasible import Answer
from .parts import cluster_record, cuts_of, made_of
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SparseOrthogonal:
    """Settings of sparse and orthogonal low-rank adapters."""

    kind: Literal["sparse_orthogonal"] = "sparse_orthogonal"
    density: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Share of B that is active at most, over all layers (the paper's sparsity rate s)."""
    allocation: Literal["uniform", "entropy", "softmax"] = "uniform"
    """R4: how active entries are shared among layers: the same density everywhere, by spectral entropy with a
    temperature, or by plain softmax of it (20)-(22)."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """R4: of `entropy` and `softmax`, in nats; none: 2 and 1."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """R4: largest cost of one pass over a device's data (7), in the unit of `cost_per_parameter`; none: no limit."""
    cost_per_parameter: Annotated[float, Field(gt=0)] = 1.0
    """R4: epsilon of (7), cost of one parameter in one step."""
    link_gain_db: float | None = None
    """R4: gain of the worst link that a first exchange, mask and task code included, must fit within the deadline at
    full power (11a), dB; none: no limit."""
    projection: Kind = "orthonormal"
    """R1: rows of A orthonormal, or independent Gaussian entries of variance 1/k or 1, or sparse ones."""
    seeds: Literal["own", "common"] = "own"
    """R5: a projection for every device, or one for all; with `mean` the latter is FFA with masks."""
    refinement: Refinement = "none"
    """R6: the task code in A (26): nowhere, element by element, or as a matrix of rank one."""
    score: Literal["magnitude", "gradient", "random", "signed"] = "magnitude"
    """R2: what the mask (18) keeps most of after the warm-up: magnitude of B, absolute gradient summed over the
    steps, anything (control), or signed values, the formula to the letter."""
    level: Level = "matrix"
    """R2: whether each matrix has a quota, each transformer block, or all together (LoRI)."""
    run: Annotated[int, Field(ge=1, le=4096)] = 1
    """R8: neighbouring entries of a row of B that are active or not together; mask and bids shrink by as much."""
    bid_levels: Literal[7, 1] = 7
    """R3: how finely a device tells which positions it wants; one level says which are in the quota or half as much
    again, in two fifths of the bits."""
    warmup_steps: Annotated[int, Field(ge=1)] | None = None
    """R2: dense steps that decide on the mask, or on the bid for a negotiated one, which comes with the exchange: until
    then the round goes on densely; none: the whole first round."""
    masks: Literal["negotiated", "independent"] = "negotiated"
    """R3: agreed on inside a cluster so that none collide where densities allow, or each device for itself."""
    max_collision: Annotated[float, Field(ge=0, le=1)] = 0.1
    """S_max: largest collision rate a cluster may reach."""
    clustering: Solver = "local-search"
    """R10: fewest clusters by local search, by best-fit decreasing, or exactly (few devices); or the paper's greedy
    mergers (`agnes`)."""
    aggregation: Rule = "union"
    """R5: entries divided by the number of their holders and read through masks; plain mean (24); or experts kept
    whole (`stack`)."""
    pool: Annotated[float, Field(gt=0)] | None = None
    """R11: devices whose task codes differ by at most so many times what chance explains share projection and mask and
    average B every round; one task comes to about 1, two to above 10, so that 4 tells them apart. None: nobody."""
    exchange: Literal["changed", "every", "last"] = "changed"
    """R12: values travel when they have changed enough, and in the last round; or every round; or in the last only."""
    change: Annotated[float, Field(ge=0)] = 0.5
    """R12: enough is this relative change since they were last sent."""
    values: Precision = "float16"
    """R8: how entries of B travel. `int8` and `int4` share a scale among 64, `int3` (eleven codes, at their entropy)
    among 256; groups of `pool` make up for what one telling left out in the next."""
    deltas: Precision | None = None
    """R8: how the change since the last telling travels inside a cluster, where all who are told have that; none:
    values travel whole. Between clusters they do in any case."""
    mask_code: Literal["raw", "entropy"] = "entropy"
    """R8: masks and bids as bitmaps, or at their entropy, which loses nothing."""
    sketch_bits: Literal[16, 8] = 16
    """R8: of the covariance in a task sketch."""
    detour: bool = False
    """R12: in the last round, values that a fade keeps from a member of the cluster go to it over another one."""
    inter_every: Annotated[int, Field(ge=1)] = 1
    """Rounds from one exchange between clusters to the next; they also exchange in the last round."""
    overhear: bool = False
    """What one gateway tells another is for all of that one's cluster who can hear it, and not spread to them again."""
    cast: Literal["broadcast", "unicast"] = "broadcast"
    """R9: one transmission to the whole cluster, or one to each member."""
    on_infeasible: Answer = "drop_link"
    """What a device tells its cluster when a fade leaves no room for its values: nothing to whom they do not reach,
    only those that changed most (lower_sparsity), all in fewer bits (quantise), or a part now and the rest later
    (partial)."""
    choice: Literal["discriminant", "nearest", "topk"] = "discriminant"
    """R7: one expert per prompt by task sketches or by the nearest task code, or top-k over ranks per token (29)."""
    sketch: Annotated[int, Field(ge=8, le=512)] = 64
    """R7: numbers m that a prompt is sketched in; devices tell m + m (m + 1) / 2 of their task."""
    sketch_blocks: Annotated[int, Field(ge=0)] = 1
    """R7: transformer blocks of the base that are read for a sketch; 0: the embeddings only."""
    soft: bool = False
    """R7: a prompt that is hard to tell is shared by the two likeliest experts (`discriminant`); it was below the hard
    choice where it was measured."""
    refuses: bool = True
    """R7: a prompt far from every task is answered by the base (`discriminant`)."""
    top_k: Annotated[int, Field(ge=0)] = 16
    """R7: ranks kept per token by `topk`; 0 keeps all."""
    scope: Literal["joint", "expert", "signed"] = "joint"
    """R7: largest by magnitude among all experts' ranks together or within each expert, or by value, the letter of
    (29)."""
    gated: bool = False
    """R6: under `topk`, scale each expert's ranks by the cosine with its task code (27)."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """The method's functions for one run.

        Raises:
            ValueError: a warm-up longer than a round, limits that leave a layer without an entry, or pooling that
                could not tell who shares what.
        """
        from . import learning, telling  # late: they read these settings

        if (self.warmup_steps or 0) > setup.train.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} exceed the {setup.train.steps} steps of a round (train.steps)"
            )
        if self.pool is not None and (self.seeds == "common" or self.masks == "independent"):
            raise ValueError("pool needs seeds: own and masks: negotiated, since a group is known by its projection")
        if self.pool is not None and self.on_infeasible != "drop_link":
            raise ValueError("pool needs on_infeasible: drop_link, since a group averages exactly what was sent")
        if self.overhear and self.cast == "unicast":
            raise ValueError("overhear needs cast: broadcast, in unicast nobody hears what is meant for others")
        if self.pool is not None and self.deltas is not None:
            raise ValueError("pool needs deltas: null, since a group averages whole values")
        if self.bid_levels != 7 and self.mask_code == "raw":
            raise ValueError("bid_levels other than 7 need mask_code: entropy, three bits are what raw bids have")
        coarse = self.values != "float16" or self.deltas is not None or self.sketch_bits == 8
        if self.on_infeasible != "drop_link" and coarse:
            raise ValueError("values, deltas and sketch_bits other than plain need on_infeasible: drop_link")
        if setup.radio.access == "reuse" and self.on_infeasible != "drop_link":
            raise ValueError("radio.access: reuse needs on_infeasible: drop_link, a plan cannot tell who will disturb")
        if self.max_cost is not None or self.link_gain_db is not None:
            for device in range(setup.num_devices):
                learning.entries(device, self, setup)
        return Method(
            init=partial(learning.init, c=self, setup=setup),
            fit=partial(learning.fit, c=self, setup=setup),
            describe=partial(telling.describe, c=self),
            plan=partial(telling.plan, c=self, setup=setup),
            send=partial(telling.send, c=self),
            merge=partial(telling.merge, c=self),
            bank=partial(bank, c=self, setup=setup),
            form=partial(telling.form, c=self, setup=setup),
            made_of=made_of,
        )


def paper_reading() -> SparseOrthogonal:
    """The paper's side of every reading, wherever it is well-formed."""
    return SparseOrthogonal(
        allocation="softmax",
        projection="gaussian",
        score="signed",
        warmup_steps=1,
        masks="independent",
        max_collision=0.25,
        clustering="agnes",
        aggregation="mean",
        exchange="every",
        mask_code="raw",
        cast="unicast",
        choice="topk",
        gated=True,
    )


def bank(device: DeviceState, c: SparseOrthogonal, setup: Setup) -> Bank:
    """All experts the device holds, eq. (24): its own cluster's and those of the records it received.

    Devices of one group (R11) are one expert, which goes by the first of them and by the mean of their codes.
    """
    from ..models.base import load_base
    from .coding import read_record  # late: it reads these settings

    if "mask" not in device.own:
        return Bank(experts=())
    base, sizes = load_base(setup.model), device.own["sizes"]
    records = [read_record(parts, sizes, c) for parts in each(device.bank, "cluster").values()]
    records.append(cluster_record(device, c.aggregation))  # last: of its own cluster it knows most
    rows = newest(records)
    rows[device.id] = (records[-1], records[-1].members.index(device.id))  # others may know an earlier life of it
    alike: dict[int, list[int]] = {}
    for k in sorted(rows):
        record, n = rows[k]
        alike.setdefault(k if c.pool is None else int(record.seeds[n]), []).append(k)
    experts = tuple(_expert(ks[0], [rows[k] for k in ks], base, c) for ks in alike.values())
    return Bank(
        experts=experts,
        choice=c.choice,
        blocks=c.sketch_blocks,
        soft=c.soft,
        refuses=c.refuses,
        top_k=c.top_k,
        scope=c.scope,
        gated=c.gated,
    )


def _expert(owner: int, rows: Sequence[tuple[ClusterRecord, int]], base: Any, c: SparseOrthogonal) -> Expert:
    """The expert of devices that share an adapter, each as its cluster's record and its row in it."""
    from .coding import read_sketch  # late: it reads these settings

    record, n = rows[0]
    drawn = c.refinement == "none"  # else a seed alone does not make A again
    told = [read_sketch(r.sketches[m]) for r, m in rows]
    A = projection(int(record.seeds[n]), base.layout, c.projection)
    whole = [read(r, r.members[m]) for r, m in (rows if c.aggregation == "stack" else rows[:1])]
    return Expert(
        owner=owner,
        A=refine(A, record.codes[n], base.layout, cuts_of(base), c.refinement),
        B=record.joined[0] if c.aggregation == "mean" else whole[0] if len(whole) == 1 else np.mean(whole, axis=0),
        code=np.mean([r.codes[m] for r, m in rows], axis=0) if record.codes.size else None,
        sketch=unpack(np.mean(told, axis=0)) if told[0].size else None,
        seed=int(record.seeds[n]) if drawn else None,
        kind=c.projection if drawn else None,
    )


def unjoined(device: DeviceState, c: SparseOrthogonal, setup: Setup) -> Bank:
    """Only what the device itself has trained, as it trained it: what an oracle answers with."""
    from ..models.base import load_base

    if "B" not in device.own:
        return Bank(experts=())
    base = load_base(setup.model)
    A = projection(int(device.own["seed"]), base.layout, c.projection)
    A = refine(A, device.own["code"], base.layout, cuts_of(base), c.refinement)
    return Bank(experts=(Expert(owner=device.id, A=A, B=device.own["B"]),))
