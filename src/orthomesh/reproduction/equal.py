"""Every method with no more bytes than ours: at fewer ranks, then with fewer exchanges, for as much training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..evaluation.record import Journal
from ..evaluation.wording import count
from ..experiment import Experiment
from ..methods.fedsb import FedSb
from ..methods.full import Full
from ..methods.merged import Merged
from .record import points
from .rows import OURS, Row
from .runs import there


@dataclass(frozen=True, kw_only=True)
class Equal:
    """How all methods are put at our bytes.

    budget_b: what ours sent in a run, in the mean over seeds.
    runs: by directory, of one method and seed each; those of methods that sent no more anyway are where they were.
    says: what was taken from a method, by label. left: labels of those of which nothing is small enough.
    """

    budget_b: float
    runs: Mapping[Path, Experiment]
    says: Mapping[str, str]
    left: tuple[str, ...]

    def rows(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows of a table with what was taken beside their titles."""
        return tuple(
            replace(r, title=f"{r.title} ({self.says[r.label]})" if r.label in self.says else r.title) for r in rows
        )


def at_our_bytes(done: Mapping[Path, Experiment], out: Path) -> Equal:
    """What to run so that every method sends no more than ours did, in the mean over seeds and if ranks say how much.

    Args:
        done: finished runs at equal rank and rounds, of one method and seed each.
        out: where the others go.

    Raises:
        ValueError: ours is not among them.
    """
    sent = _sent_b(done)
    if OURS not in sent:
        raise ValueError(f"bytes are ours to say: there is no finished run of {OURS} to say how many they are")
    start = Equal(budget_b=sent[OURS], runs=done, says={}, left=())
    return _put_at_less(start, sent, lambda label, _: out / label)


def nearer(made: Equal, out: Path) -> Equal:
    """The same, with less again of those whose finished runs sent more than ours all the same.

    What a method sends need not shrink with its ranks. The same runs come back where all keep to our bytes.

    Args:
        made: how they were put at our bytes before.
        out: where the new runs go, in a directory for each number of ranks and rounds.
    """
    sent = _sent_b(there(made.runs))
    return _put_at_less(made, sent, lambda label, less: out / f"{label}-r{less.model.rank}-{less.rounds}")


def _sent_b(done: Mapping[Path, Experiment]) -> dict[str, float]:
    """Bytes a device sent in a finished run, by label, means over seeds."""
    sent: dict[str, list[float]] = {}
    for directory, x in done.items():
        (label,) = x.methods
        sent.setdefault(label, []).append(max(p[0] for p in points(Journal(directory), label).values()))
    return {label: float(np.mean(each)) for label, each in sent.items()}


def _put_at_less(made: Equal, sent_b: Mapping[str, float], place: Callable[[str, Experiment], Path]) -> Equal:
    """Those that sent more than the budget at their share of it; where what they run then goes, `place` says."""
    runs, says, left = dict[Path, Experiment](), dict(made.says), list(made.left)
    for directory, x in made.runs.items():
        (label,) = x.methods
        share = made.budget_b / max(sent_b.get(label, 0.0), 1.0)
        if share >= 1:
            runs[directory] = x
        elif (less := with_less(x, share)) is not None:
            runs[place(label, less) / f"seed{x.seed}"], says[label] = less, _said(less, x)
        elif label not in left:
            left.append(label)
    return replace(made, runs=runs, says=says, left=tuple(left))


def with_less(x: Experiment, share: float) -> Experiment | None:
    """The same run of one method with at most a share of its bytes.

    Messages are taken to be as long as there are ranks, those of Fed-SB as their square. Where one rank is still too
    much there are fewer rounds, of more steps, so that as many are trained. None where one round is too much; where
    every weight is sent and where all is sent once, ranks or rounds are no help, and neither is to Fed-SB's start from
    gradients.

    >>> from ..methods.gossip_lora import GossipLora
    >>> less = with_less(Experiment(rounds=5, methods={"gossip": GossipLora()}), 0.05)  # of 16 ranks and 5 rounds
    >>> less.model.rank, less.rounds, less.train.steps
    (1, 4, 30)
    """
    (method,) = x.methods.values()
    if isinstance(method, FedSb) and method.start == "gradients":
        return None
    ranks = x.model.rank * (math.sqrt(share) if isinstance(method, FedSb) else share)
    if isinstance(method, Full):
        rank, rounds = x.model.rank, math.floor(x.rounds * share)
    elif ranks >= 1:
        rank, rounds = math.floor(ranks), x.rounds
    else:
        rank, rounds = 1, 0 if isinstance(method, Merged) else math.floor(x.rounds * x.model.rank * share)
    if rounds < 1:
        return None
    train = replace(x.train, steps=x.rounds * x.train.steps // rounds)
    return replace(x, rounds=rounds, model=replace(x.model, rank=rank), train=train)


def _said(less: Experiment, x: Experiment) -> str:
    rank = f"r = {less.model.rank}"
    return rank if less.rounds == x.rounds else f"{rank}, {count(less.rounds, 'round')}"
