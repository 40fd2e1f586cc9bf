"""CHOCO gossip with top-k: rounds against NumPy, consensus where plain top-k has none, and losses made good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from orthomesh.methods.choco import Choco, common
from orthomesh.methods.flasc import flat
from orthomesh.methods.setup import Setup
from orthomesh.types import DeviceState, Envelope, Method, Round


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
                    Envelope(e, None if (phase.name, e.src, k) in lost else sent[e.src])
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


def test_a_lost_message_is_made_good_by_the_whole_copy(small: Callable[..., Setup]) -> None:
    method, states = begun(Choco(), small(3))
    states = gossip(method, states, Round(0, 0, 9), lost=(("gossip", 1, 0),))
    assert "copy/1/copy" not in states[0].bank
    t = Round(0, 1, 9)
    refresh, _ = method.plan({k: method.describe(s, t) for k, s in states.items()}, t).phases
    assert [(e.src, e.dst) for e in refresh.edges] == [(1, 0)]
    still = gossip(method, states, t, lost=(("refresh", 1, 0),))
    assert "copy/1/copy" not in still[0].bank  # its next message alone would mean nothing
    states = gossip(method, states, t)
    for k in (1, 2):
        np.testing.assert_array_equal(states[0].bank[f"copy/{k}/copy"], states[k].own["copy"])
    after = method.plan({k: method.describe(s, t) for k, s in states.items()}, t).phases
    assert [p.name for p in after] == ["gossip"]


def test_bytes_are_a_tenth_and_a_bitmap(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Choco(density=0.1), small(3))
    size = flat(played.last[0].own).size
    assert played.sent("values") == [n for n in played.sent("values") if 0 < n < 3 * (2 * 0.1 * size + 100)]
    assert max(played.sent("mask")) < 3 * (size / 8 + 100)
