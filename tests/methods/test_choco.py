"""CHOCO gossip with top-k: rounds against NumPy, consensus where plain top-k has none, and losses made good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.exchange.sparse import most_bits
from orthomesh.methods import choco
from orthomesh.methods.choco import Choco, common, piece, refreshed, refreshes
from orthomesh.methods.flasc import flat
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import DeviceState, Edge, Envelope, Facts, Method, Round
from orthomesh.wireless.air import IdealAir
from orthomesh.wireless.link import Radio, max_power_w
from orthomesh.wireless.power import required_power_w


def largest(x: np.ndarray, share: float) -> np.ndarray:
    least = np.sort(np.abs(x))[-max(1, round(share * x.size))]
    return np.where(np.abs(x) >= least, x, 0).astype(np.float16).astype(np.float32)


def gossip(
    method: Method, states: dict[int, DeviceState], t: Round, lost: tuple[tuple[str, int, int], ...] = ()
) -> dict[int, DeviceState]:
    """A round without training, some transfers of which are lost: (phase, sender, receiver)."""
    for phase in method.plan({k: method.describe(s, t) for k, s in states.items()}, t).phases:
        sent = {m.src: m.payload for s in states.values() for m in method.send(s, phase, t)}
        states = {
            k: method.merge(
                s,
                [
                    Envelope(e, None if (phase.name, e.src, k) in lost else sent.get(e.src))
                    for e in phase.edges
                    if e.dst == k
                ],
                phase,
                t,
            )
            for k, s in states.items()
        }
    return states


def begun(settings: Choco, setup: Setup) -> tuple[Method, dict[int, DeviceState]]:
    """After a round of training, with entries that are all different, so that no ranking hangs on a rounding."""
    method, rng = settings.build(setup), np.random.default_rng(0)
    states = {k: method.fit(method.init(k), Round(0, 0, 1))[0] for k in range(setup.num_devices)}
    drawn = {k: {n: rng.standard_normal(s.own[n].size).astype(np.float32) for n in "AB"} for k, s in states.items()}
    return method, {k: replace(s, own={**s.own, **drawn[k]}) for k, s in states.items()}


# reference


def test_three_rounds_of_gossip_alone(small: Callable[..., Setup]) -> None:
    setup, share, step = small(3), 0.2, 0.4
    method, states = begun(Choco(density=share, step=step), setup)
    x = np.stack([flat(states[k].own) for k in range(3)])
    copies = np.stack([common(states[0].own, setup)] * 3)
    for n in range(3):
        states = gossip(method, states, Round(0, n, 3))
        copies = copies + np.stack([largest(x[k] - copies[k], share) for k in range(3)])
        x = x + step * (copies.mean(axis=0) - copies)  # all three in reach: weights 1/3
        np.testing.assert_allclose(np.stack([flat(states[k].own) for k in range(3)]), x, atol=1e-3)  # 16 bit


# law


def test_devices_come_to_the_mean(small: Callable[..., Setup]) -> None:
    setup = small(3)
    method, states = begun(Choco(density=0.3, step=0.6), setup)
    x = np.stack([flat(s.own) for s in states.values()])
    for n in range(20):
        states = gossip(method, states, Round(0, n, 20))
    now = np.stack([flat(s.own) for s in states.values()])
    np.testing.assert_allclose(now.mean(axis=0), x.mean(axis=0), atol=1e-4)  # the mean is kept
    assert np.linalg.norm(now - now.mean(axis=0)) < 0.2 * np.linalg.norm(x - x.mean(axis=0))


# edge


def test_a_lost_message_is_made_good_by_what_has_changed(small: Callable[..., Setup]) -> None:
    method, states = begun(Choco(), small(3))
    states = gossip(method, states, Round(0, 0, 9), lost=(("gossip", 1, 0),))
    assert "copy/1/copy" not in states[0].bank
    t = Round(0, 1, 9)
    refresh, _ = method.plan({k: method.describe(s, t) for k, s in states.items()}, t).phases
    assert [(e.src, e.dst) for e in refresh.edges] == [(1, 0)]
    still = gossip(method, states, t, lost=(("refresh-1", 1, 0),))
    assert "copy/1/copy" not in still[0].bank  # its next message alone would mean nothing
    states = gossip(method, states, t)
    for k in (1, 2):
        np.testing.assert_array_equal(states[0].bank[f"copy/{k}/copy"], states[k].own["copy"])
    after = method.plan({k: method.describe(s, Round(0, 2, 9)) for k, s in states.items()}, Round(0, 2, 9)).phases
    assert [p.name for p in after] == ["gossip"]


class Weak:
    """Two devices whose link carries a message twice as large as theirs; the first of device 1 is lost."""

    def __init__(self, setup: Setup, bits: int) -> None:
        self.radio = setup.radio
        self.gain = required_power_w(2 * bits, 1.0, 1, self.radio) / max_power_w(self.radio)

    def announce(self, facts: Any, t: Round) -> Any:
        told, cost = IdealAir().announce(facts, t)
        return {i: replace(f, gains=dict.fromkeys(told.keys() - {i}, self.gain)) for i, f in told.items()}, cost

    def transmit(self, outbox: Any, phase: Any, t: Round) -> Any:
        kept, cost = IdealAir().transmit(outbox, phase, t)
        limit_w = max_power_w(self.radio)
        heard = [required_power_w(8 * len(m.payload), self.gain, 1, self.radio) <= limit_w for m in kept]
        lost = [t.index == 0 and m.src == 1 for m in kept]
        return [m if h and not x else replace(m, dsts=()) for m, h, x in zip(kept, heard, lost, strict=True)], cost


def test_a_link_that_carries_messages_but_no_copy_comes_back_after_a_loss(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """A refresh of one message takes three bits an entry more than the message; one of a whole copy 32 an entry."""
    setup = small(2, steps=1)
    size = load_base(setup.model).layout.num_projection + load_base(setup.model).layout.num_expansion
    for density, pieces in ((0.1, 1), (0.9, 2)):
        settings = Choco(density=density)
        air = Weak(setup, round(most_bits(size, density) / (1.0 if density < 0.5 else 2.0)))
        played = play(settings, setup, rounds=3, air=air)
        links = [[(x.phase, x.src, x.arrived) for x in info.links] for info in played.infos]
        assert links[0] == [("gossip", 1, False), ("gossip", 0, True)]
        told = [(f"refresh-{n + 1}", 1, True) for n in range(pieces)]
        assert links[1:] == [[*told, ("gossip", 1, True), ("gossip", 0, True)], links[2]]
        assert {(phase, arrived) for phase, _, arrived in links[2]} == {("gossip", True)}
        assert agreeing(played.last) == 2


def agreeing(states: dict[int, DeviceState]) -> int:
    """Copies whose version is that of the device they are of; they must be equal to the bit."""
    count = 0
    for k in states:
        for s in (s for s in states.values() if f"copy/{k}/version" in s.bank):
            if int(s.bank[f"copy/{k}/version"]) == int(states[k].own["version"]):
                np.testing.assert_array_equal(s.bank[f"copy/{k}/copy"], states[k].own["copy"])
                count += 1
    return count


@pytest.mark.parametrize("seed", range(2))
def test_copies_are_equal_whatever_is_lost_and_whoever_starts_afresh(seed: int, small: Callable[..., Setup]) -> None:
    setup = small(3, steps=1)
    method, states = begun(Choco(density=0.05), setup)
    anew = begun(Choco(density=0.05), setup)[1]
    rng, agreed = np.random.default_rng(seed), 0
    for n in range(7):
        t = Round(0, n, 7)
        if n == 3:  # device 2 has lost everything
            fresh = {**anew[2].own, **{x: np.array(n, dtype=np.uint32) for x in ("began", "round")}}
            states[2] = replace(anew[2], own=fresh)
        names = ("gossip", "refresh-1")
        lost = [(name, i, j) for name in names for i in range(3) for j in range(3) if rng.random() < 0.3]
        states = gossip(method, states, t, lost=tuple(lost))
        agreed += agreeing(states)
    assert agreed > 10
    states = gossip(method, states, Round(0, 7, 8))
    assert agreeing(states) == 6


def test_a_copy_of_an_earlier_life_is_never_taken_for_one_of_this(small: Callable[..., Setup]) -> None:
    """Two messages, a fresh start, two more that device 0 does not hear: as many, but not the same."""
    method, states = begun(Choco(density=0.05), small(3, steps=1))
    anew = states[2]
    for n in range(4):
        if n == 2:
            states[2] = replace(anew, own={**anew.own, **{x: np.array(n, dtype=np.uint32) for x in ("began", "round")}})
        deaf = tuple((name, 2, 0) for name in ("gossip", "refresh", "refresh-1")) if n >= 2 else ()
        states = gossip(method, states, Round(0, n, 9), lost=deaf)
    states = gossip(method, states, Round(0, 4, 9))
    np.testing.assert_array_equal(states[0].bank["copy/2/copy"], states[2].own["copy"])


def test_who_has_been_away_makes_losses_good_from_the_start_on(small: Callable[..., Setup]) -> None:
    """What was told before a round it missed may not be what it remembers, so all that has ever changed goes out."""
    method, states = begun(Choco(density=0.05), small(3, steps=1))
    for n in range(3):
        states = gossip(method, states, Round(0, n, 9), lost=(("gossip", 1, 0),) if n == 2 else ())
    states[1] = replace(states[1], own={**states[1].own, "began": np.array(4, dtype=np.uint32)})
    t = Round(0, 4, 9)
    facts = {k: method.describe(s, t) for k, s in states.items()}
    assert [int(f.public.get("began", 0)) for f in facts.values()] == [0, 4, 0]
    refresh, _ = method.plan(facts, t).phases
    assert [(e.src, e.dst, e.held) for e in refresh.edges] == [(1, 0, 0)]
    states = gossip(method, states, t)
    assert agreeing(states) == 6


def test_a_device_that_nobody_is_to_hear_keeps_its_copy_and_no_link_goes_stale(small: Callable[..., Setup]) -> None:
    method, states = begun(Choco(), small(3))
    t = Round(0, 0, 9)
    apart = {k: dict.fromkeys({0, 1, 2} - {k}, 1e-30) for k in range(3)}
    apart[0][1] = apart[1][0] = 1.0
    facts = {k: replace(method.describe(s, t), gains=apart[k]) for k, s in states.items()}
    (phase,) = method.plan(facts, t).phases
    alone = method.merge(states[2], [], phase, t)
    np.testing.assert_array_equal(alone.own["copy"], states[2].own["copy"])
    assert int(alone.own["version"]) == 0
    after = gossip(method, {2: states[2]}, t)  # nobody else is there
    assert int(after[2].own["version"]) == 0
    said = {m.src: m.payload for s in states.values() for m in method.send(s, phase, t)}
    heard = method.merge(states[0], [Envelope(phase.edges[1], said[1])], phase, t)
    assert int(heard.own["version"]) == int(heard.bank["copy/1/version"]) == 1


def test_whom_a_refresh_would_not_reach_is_left_out(small: Callable[..., Setup], monkeypatch: Any) -> None:
    method, states = begun(Choco(), small(3))
    states = gossip(method, states, Round(0, 0, 9), lost=(("gossip", 1, 0), ("gossip", 2, 0)))
    t = Round(0, 1, 9)
    facts = {k: method.describe(s, t) for k, s in states.items()}
    monkeypatch.setattr(choco, "unheard", lambda bits, *_: {e: 0.0 for e in bits if e[:2] == (1, 0)})
    refresh, last = method.plan(facts, t).phases
    assert [e[:2] for e in refresh.edges] == [(2, 0)]
    assert sorted(e[:2] for e in last.edges) == [(0, 1), (0, 2), (1, 2), (2, 0), (2, 1)]
    assert {e.weight for e in last.edges} == {1 / 3}  # what is left out stays at home


def test_a_refresh_is_cut_where_links_carry_no_more_than_a_message() -> None:
    """Of 3,200 entries a message of density 0.1 has 320, a piece 160 in twice as many bits; whole: all 640 at once."""
    radio = Radio(min_efficiency_bps_per_hz=0.0)
    bits = most_bits(3200, 0.1)
    gain = {
        n: required_power_w(n, 1.0, 1, radio) / max_power_w(radio) for n in (bits - 1, bits, 2048 + 3200 + 640 * 32)
    }
    facts = {k: Facts(id=k, public={}, columns={}, payload_bits=bits) for k in range(3)}
    for h, phases in zip(gain.values(), (0, 4, 1), strict=True):
        near = {k: replace(f, gains=dict.fromkeys({0, 1, 2} - {k}, h * (1 + 1e-12))) for k, f in facts.items()}
        made = refreshes([Edge(0, 1), Edge(0, 2)], {0: 640}, near, 3200, radio)
        assert [p.name for p in made] == [f"refresh-{n + 1}" for n in range(phases)]
        assert all([e[:2] for e in p.edges] == [(0, 1), (0, 2)] for p in made)


def test_pieces_count_in_order_only() -> None:
    own = {"copy": np.arange(1.0, 7.0, dtype=np.float32), "changed": np.array([0, 1, 2, 2, 2, 2], dtype=np.uint32)}
    own |= {"version": np.array(2, dtype=np.uint32)}
    edges = [Edge(0, 1, room_bits=2048 + 6 + 64, held=1)]  # two entries
    one, two = piece(own, edges, 1), piece(own, edges, 2)
    assert (one["values"].tolist(), two["values"].tolist(), piece(own, edges, 3)) == ([3.0, 4.0], [5.0, 6.0], {})
    known = {"copy": np.array([1.0, 2.0, 0, 0, 0, 0], dtype=np.float32), "version": np.array(1, dtype=np.uint32)}
    start = np.zeros(6, dtype=np.float32)
    half = refreshed(known, one, start, 0)
    assert (int(half["version"]), half["copy"].tolist()) == (1, [1, 2, 3, 4, 0, 0])
    whole = refreshed(half, two, start, 0)
    assert (int(whole["version"]), whole["copy"].tolist()) == (2, own["copy"].tolist())
    assert refreshed(known, two, start, 0) == known
    assert refreshed({**known, "version": np.array(0)}, one, start, 0)["copy"].tolist() == known["copy"].tolist()
    anew = piece(own, [edges[0]._replace(held=0)], 1)  # from the common start on, whatever was there
    assert anew["piece"].tolist() == [1, 3, 0]
    assert refreshed({**known, "version": np.array(5)}, anew, start, 0)["copy"].tolist() == [0, 2, 3, 0, 0, 0]
    for bad in ({"piece": np.zeros(2, dtype=np.uint32)}, {"values": np.array([np.nan, 0.0], dtype=np.float32)}):
        with pytest.raises(ValueError, match="device 0 sent"):
            refreshed(known, {**one, **bad}, start, 0)


def test_who_was_away_says_since_when(small: Callable[..., Setup]) -> None:
    method = Choco().build(small(3, steps=1))
    state = method.init(0)
    for index, began in ((0, 0), (1, 0), (3, 3), (4, 3)):
        state, _ = method.fit(state, Round(0, index, 5))
        assert int(state.own["began"]) == began


def test_bytes_are_a_tenth_and_a_bitmap(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Choco(density=0.1), small(3))
    size = flat(played.last[0].own).size
    assert played.sent("values") == [n for n in played.sent("values") if 0 < n < 3 * (2 * 0.1 * size + 100)]
    assert max(played.sent("mask")) < 3 * (size / 8 + 100)
