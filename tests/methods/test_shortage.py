"""Values that do not fit on the air: what is told instead, and what receivers make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.experts.bank import get
from orthomesh.methods.setup import Setup
from orthomesh.methods.shortage import Telling, room_of, telling, whole, with_room
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.types import Edge, Facts, Phase
from orthomesh.wireless.air import SimulatedAir
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.infeasible import Answer
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import payload_limit_bits

ANSWERS = get_args(Answer)
HALF = st.lists(st.floats(-9, 9, width=16), min_size=1, max_size=30).map(lambda v: np.array(v, dtype=np.float16))


@settings(max_examples=80, deadline=None)
@given(now=HALF, room=st.floats(0, 600), answer=st.sampled_from(ANSWERS), start=st.integers(0, 40), known=st.booleans())
def test_receivers_hold_what_the_sender_notes(
    now: np.ndarray, room: float, answer: Answer, start: int, known: bool
) -> None:
    own = {"start": np.array(start), **({"sent": np.ones_like(now)} if known else {})}
    told = telling(own, now, room, answer)
    size = now.size + 3
    mask = np.packbits(np.arange(size) < now.size)
    held = {"mask": mask, **({"values": np.ones_like(now)} if known else {})}
    heard = whole(7, {**told.parts, "version": np.array(1)}, held, size)
    assert set(heard) == {"values", "version"}
    assert heard["values"].dtype == np.float16
    assert np.array_equal(heard["values"], told.sent)
    if 16 * now.size <= room or answer == "drop_link":
        assert np.array_equal(told.sent, now)
    if told.parts.keys() != {"values"}:
        assert 8 * sum(a.nbytes for a in told.parts.values()) <= room + 7 + 64  # the grid takes 128 bits


def test_a_part_now_and_the_rest_later() -> None:
    now, own = np.arange(1, 11, dtype=np.float16), {}
    for expected in ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10]):
        told = telling(own, now, 64 + 16 * 4, "partial")
        before = own.get("sent", np.zeros(10))
        assert (told.sent != before).nonzero()[0].tolist() == [k - 1 for k in expected]
        own = {"sent": told.sent, "start": np.array(told.start)}
    assert np.array_equal(own["sent"], now)
    assert int(own["start"]) == 0


def test_room_is_what_lemma_1_leaves_to_the_receivers_worth_it() -> None:
    edges = tuple(Edge(0, j, fresh=j == 2) for j in (1, 2, 3))
    facts = {0: Facts(id=0, public={}, columns={}, payload_bits=10**6, gains={1: 1e-10, 2: 2e-10, 3: 1e-18})}
    planned = with_room(Phase(name="intra", edges=edges), facts, Radio())
    limit = payload_limit_bits([1e-10], Radio(), "broadcast")
    assert {e.room_bits for e in planned.edges} == {limit}
    assert room_of(0, planned, 1000) == limit - 4096 - 1000
    assert room_of(1, planned, 1000) == float("inf")
    shared = with_room(Phase(name="intra", edges=(*edges, Edge(1, 0))), {**facts, 1: facts[0]}, Radio(access="tdma"))
    half = payload_limit_bits([1e-10], Radio(deadline_s=0.5), "broadcast")
    assert {e.room_bits for e in shared.edges if e.src == 0} == {half}
    unheard = Facts(id=0, public={}, columns={}, payload_bits=8)
    assert with_room(Phase(name="intra", edges=edges), {0: unheard}, Radio()).edges == edges  # an ideal air


def test_a_fade_costs_the_transfer_or_only_part_of_it(
    play: Callable[..., Any], small: Callable[..., Setup], tmp_path: Path
) -> None:
    """Two devices; after the second round the link carries about six tenths of their values."""
    setup = small(2, steps=1)
    ideal = play(SparseOrthogonal(exchange="every"), setup, rounds=3).last[0].own["sent"]
    assert 16 * ideal.size > 3 * 4096
    bits = 0.6 * 16 * ideal.size + 4096
    radio = Radio(bandwidth_hz=bits / 0.5, noise_dbm_per_hz=-60.0 - 10 * np.log10(bits / 0.5), noise_figure_db=0.0)
    faded = (2**0.5 - 1) * 1e-9 / 0.1995  # half a bit/s/Hz at 23 dBm over -60 dBm
    links = [(t, i, 1 - i, h) for t, h in ((0, 1.0), (120, faded)) for i in (0, 1)]
    rows = ["time_s,from,to,gain", *(",".join(map(str, link)) for link in links)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    air = SimulatedAir(channel=Channel(trace=str(tmp_path / "t.csv")), radio=radio, seed=0, num_devices=2)
    for answer in ANSWERS:
        c = SparseOrthogonal(exchange="every", on_infeasible=answer)
        played = play(c, replace(setup, radio=radio), rounds=3, air=air)
        lost = [sum(not link.arrived for link in info.links if link.phase == "intra") for info in played.infos]
        now, then = (get(played.states[r][1].bank, "member/0")["values"] for r in (2, 1))
        if answer == "drop_link":
            assert lost == [0, 0, 2]
            assert np.array_equal(now, then)
        else:
            assert lost == [0, 0, 0]
            assert np.array_equal(now, played.last[0].own["sent"])
            assert 0.0 < np.linalg.norm(now - ideal) < np.linalg.norm(then - ideal)


@pytest.mark.parametrize("answer", ["lower_sparsity", "partial"])
def test_who_missed_what_a_part_counts_from_is_not_up_to_date(answer: Answer) -> None:
    """Twelve values, a part of which fits; all turn their sign in round 1, which is lost."""
    mask, room = np.packbits(np.ones(12, dtype=bool)), 12 + 16 * 5.0
    own: dict[str, np.ndarray] = {"sent": np.ones(12, np.float16), "version": np.array(1, np.uint32)}
    held = {"mask": mask, "values": own["sent"], "version": own["version"]}
    heard = []
    for index in (1, 2):
        now = np.full(12, -1.0, np.float16)
        told = telling(own, now, room, answer)
        parts = {**told.parts, "version": np.array(index + 1, np.uint32)}
        heard.append({**held, **whole(7, parts, held, 12)})
        own = {**own, "sent": told.sent, "version": parts["version"], "start": np.array(told.start)}
    assert int(heard[0]["version"]) == 2  # who hears the first has all that the sender thinks
    assert int(heard[1]["version"]) == 1  # who hears only the second does not, and says so
    assert (heard[1]["values"] == -1).any()
    assert (heard[1]["values"] != own["sent"]).any()
    again = whole(7, {"values": own["sent"], "version": own["version"]}, heard[1], 12)
    assert int(again["version"]) == 3
    missing = {k: a for k, a in told.parts.items() if k != "base"}
    with pytest.raises(ValueError, match="device 7 sent a part of its values that does not fit"):
        whole(7, {**missing, "version": own["version"]}, held, 12)


def test_parts_that_do_not_fit_are_refused() -> None:
    held = {"mask": np.packbits(np.ones(8, dtype=bool))}
    for parts in (
        {"packed": np.zeros(3, dtype=np.uint8), "grid": np.array([1.0, 4.0])},
        {"packed": np.zeros(4, dtype=np.uint8), "grid": np.array([1.0, 99.0])},
        {"packed": np.zeros(4, dtype=np.uint8)},
        {"kept": np.array([255], dtype=np.uint8), "values": np.zeros(3, dtype=np.float16)},
        {"span": np.array([6, 9], dtype=np.uint32), "values": np.zeros(3, dtype=np.float16)},
        {"span": np.array([3, 1], dtype=np.uint32), "values": np.zeros(3, dtype=np.float16)},
    ):
        with pytest.raises(ValueError, match="device 7 sent a part of its values that does not fit"):
            whole(7, {"version": np.array(1), "base": np.array(0), **parts}, held, 8)
    assert whole(7, {"kept": np.zeros(1, dtype=np.uint8)}, {}, 8).keys() == {"kept"}
    assert Telling({}, np.zeros(1)).start == 0


def test_what_cannot_be_combined_is_refused(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="pool needs on_infeasible: drop_link"):
        SparseOrthogonal(pool=4.0, on_infeasible="quantise").build(tiny_setup)
