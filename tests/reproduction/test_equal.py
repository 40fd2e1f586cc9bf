"""Methods put at our bytes: fewer ranks and rounds on paper, and what a run of them really sends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh import experiment
from orthomesh.evaluation.record import Journal
from orthomesh.experiment import Experiment
from orthomesh.methods.fedsb import FedSb
from orthomesh.methods.full import Full
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.merged import Merged
from orthomesh.reproduction.comparison import compared, over_budget
from orthomesh.reproduction.equal import Equal, at_our_bytes, nearer, with_less
from orthomesh.reproduction.record import points
from orthomesh.reproduction.rows import chosen
from orthomesh.reproduction.runs import begin

from .conftest import Done

X = Experiment(rounds=5, methods={"gossip": GossipLora()})  # 16 ranks, 24 steps a round

# example


@pytest.mark.parametrize(
    ("method", "share", "left"),
    [
        (GossipLora(), 0.5, (8, 5, 24)),
        (GossipLora(), 0.1, (1, 5, 24)),
        (GossipLora(), 0.05, (1, 4, 30)),  # of 80 ranks over the run four are left
        (GossipLora(), 0.02, (1, 1, 120)),
        (GossipLora(), 0.01, None),
        (FedSb(start="seed"), 0.25, (8, 5, 24)),  # r^2 numbers a layer
        (FedSb(), 0.9, None),  # whole matrices once, whatever the rank
        (Full(), 0.5, (16, 2, 60)),
        (Full(), 0.1, None),
        (Merged(), 0.2, (3, 5, 24)),
        (Merged(), 0.05, None),  # sent once, so that fewer rounds are no help
    ],
)
def test_ranks_and_rounds_on_paper(method: Any, share: float, left: tuple[int, int, int] | None) -> None:
    less = with_less(replace(X, methods={"it": method}), share)
    assert (None if less is None else (less.model.rank, less.rounds, less.train.steps)) == left


# law


@given(st.floats(1e-4, 0.999), st.integers(1, 64), st.integers(1, 20), st.integers(1, 40))
def test_no_more_is_sent_and_nearly_as_much_trained(share: float, rank: int, rounds: int, steps: int) -> None:
    x = replace(X, rounds=rounds, model=replace(X.model, rank=rank), train=replace(X.train, steps=steps))
    less = with_less(x, share)
    if less is None:
        assert rank * rounds * share < 1
    else:
        assert less.model.rank * less.rounds <= rank * rounds * share * (1 + 1e-9)
        assert rounds * steps - less.rounds < less.rounds * less.train.steps <= rounds * steps


# reference


def test_a_run_at_our_bytes_keeps_to_them(done: Done, tmp_path: Path) -> None:
    made = at_our_bytes(done.runs, tmp_path)
    (place,) = (d for d in made.runs if d.parent == tmp_path / "gossip")
    assert {d for d in made.runs if d.parent.name == "orthomesh"} == {done.out / "orthomesh" / "seed0"}
    assert made.left == ()
    x = made.runs[place]
    titles = {r.label: r.title for r in made.rows(chosen("methods", []))}
    assert titles["gossip"] == f"LoRA, gossip (r = {x.model.rank})"
    assert titles["orthomesh"] == "Ours"
    begin(place, x)
    list(experiment.run(x, place))
    experiment.finish(x, place, [], 0.0)
    ours = max(p[0] for p in points(Journal(done.out / "orthomesh" / "seed0"), "orthomesh").values())
    before = max(p[0] for p in points(Journal(done.out / "gossip" / "seed0"), "gossip").values())
    assert ours / 3 < max(p[0] for p in points(Journal(place), "gossip").values()) <= ours < before
    rows = chosen("methods", ["gossip", "orthomesh"])
    assert over_budget(compared(rows, {d: made.runs[d] for d in (place, done.out / "orthomesh" / "seed0")})) == []
    assert over_budget(compared(rows, done.runs)) == ["LoRA, gossip"]  # as it was


def test_what_sends_more_all_the_same_is_put_at_less_again(done: Done, tmp_path: Path) -> None:
    (place,) = (d for d in done.runs if d.parent.name == "gossip")
    (ours,) = (d for d in done.runs if d.parent.name == "orthomesh")
    sent = {d: max(p[0] for p in points(Journal(d), d.parent.name).values()) for d in (place, ours)}
    unrun = tmp_path / "paper" / "seed0"
    runs = {d: done.runs[d] for d in (place, ours)} | {unrun: replace(X, methods={"paper": GossipLora()})}

    made = Equal(budget_b=sent[place], runs=runs, says={"gossip": "r = 1"}, left=())
    assert nearer(made, tmp_path) == made  # who sends the budget, or has not run yet, stays

    closer = nearer(replace(made, budget_b=sent[place] * 0.6), tmp_path)
    assert set(closer.runs) == {tmp_path / "gossip-r9-2" / "seed0", ours, unrun}  # 0.6 of 16 ranks
    assert closer.says == {"gossip": "r = 9"}

    tiny = nearer(replace(made, budget_b=sent[place] / 16 / 2 / 2, runs={place: runs[place]}), tmp_path)
    assert (tiny.runs, tiny.left) == ({}, ("gossip",))  # half of one rank once


# edge


def test_without_ours_there_are_no_bytes(done: Done, tmp_path: Path) -> None:
    others = {d: x for d, x in done.runs.items() if "orthomesh" not in x.methods}
    with pytest.raises(ValueError, match="no finished run of orthomesh"):
        at_our_bytes(others, tmp_path)
