"""FLASC: dense training between a sparse download and a sparse upload, against NumPy on whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orthomesh.methods.flasc import Flasc, flat, moved
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.setup import Setup
from orthomesh.types import Round


def largest(x: np.ndarray, share: float) -> np.ndarray:
    kept = np.argsort(-np.abs(x), kind="stable")[: max(1, round(share * x.size))]
    return np.where(np.isin(np.arange(x.size), kept), x, 0)


# example


def test_b_comes_down_where_it_is_ranked_apart(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """In two steps B has grown to 0.01 where entries of A are ten times that."""
    for ranking, share in (("apart", 0.25), ("together", 0.0)):
        state = play(Flasc(ranking=ranking), small(2), rounds=1).last[1]  # type: ignore[arg-type]
        assert abs((state.own["B"] != 0).mean() - share) < 0.01


# reference


def test_two_rounds_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup, settings = small(3), Flasc(up=0.1, down=0.3, ranking="together")
    method = settings.build(setup)
    played = play(settings, setup)
    states = {k: method.init(k) for k in range(3)}
    server = None
    for index in range(2):
        fitted = {k: method.fit(s, Round(0, index, 2))[0] for k, s in states.items()}
        starts = {k: flat(s.own, "start/") for k, s in fitted.items()}
        server = starts[0] if server is None else server
        changes = [largest(flat(fitted[k].own) - starts[k], 0.1) for k in range(3)]
        server = server + np.mean(changes, axis=0)
        for k in range(3):
            ours = flat(played.states[index][k].own)
            np.testing.assert_allclose(ours, largest(server, 0.3), atol=1e-3)
            assert (ours != 0).sum() == round(0.3 * ours.size)
        states = played.states[index]
        server = states[0].bank["serves/x"]


def test_with_feedback_what_was_left_out_comes_later(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """e <- (D + e) - top(D + e), against NumPy over three rounds; what has arrived and what is left add up to all."""
    setup, settings = small(3), Flasc(up=0.1, down=1.0, ranking="together", feedback=True)
    method, played = settings.build(setup), play(settings, setup, rounds=3)
    states = {k: method.init(k) for k in range(3)}
    left: dict[int, Any] = dict.fromkeys(range(3), 0.0)
    server = None
    for index in range(3):
        fitted = {k: method.fit(s, Round(0, index, 3))[0] for k, s in states.items()}
        server = flat(fitted[0].own, "start/") if server is None else server
        due = {k: flat(s.own) - flat(s.own, "start/") + left[k] for k, s in fitted.items()}
        server = server + np.mean([largest(due[k], 0.1) for k in range(3)], axis=0)
        for k, state in played.states[index].items():
            left[k] = due[k] - largest(due[k], 0.1)
            np.testing.assert_allclose(state.own["left"], left[k], atol=2e-4)
            np.testing.assert_allclose(flat(state.own), server, atol=2e-3)
            left[k] = state.own["left"]
        states, server = played.states[index], played.states[index][0].bank["serves/x"]
    assert "left" not in play(Flasc(), setup, rounds=1).last[0].own


def test_training_is_dense(small: Callable[..., Setup]) -> None:
    setup, t = small(2), Round(0, 0, 1)
    sparse, plain = Flasc().build(setup), GossipLora().build(setup)
    for name in "AB":
        np.testing.assert_array_equal(*(m.fit(m.init(0), t)[0].own[name] for m in (sparse, plain)))


def test_the_server_s_steps_are_those_of_adamw() -> None:
    import torch

    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    optimiser = torch.optim.AdamW([x], lr=0.1, weight_decay=0.0)
    held = {"x": x.detach().numpy().copy()}
    for n in range(3):
        change = np.array([0.3, -0.1 * n, 2.0], dtype=np.float32)
        held = moved(held, change, 0.1)
        x.grad = torch.from_numpy(-change)
        optimiser.step()
    np.testing.assert_allclose(held["x"], x.detach().numpy(), rtol=1e-5)


def test_whoever_serves_goes_on_serving(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Flasc(), small(3))
    serving = [[k for k, s in states.items() if "serves/x" in s.bank] for states in played.states]
    assert serving == [[0], [0]]
    centres = [{e.dst for e in info.plan.phases[0].edges} for info in played.infos]
    assert centres == [{0}, {0}]
