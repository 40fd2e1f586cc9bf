"""A method among strangers: what it cannot read of others is put aside, and does not end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .topology.messages import check_leaf
from .types import DeviceState, Envelope, Facts, Forming, Method, Phase, Plan, Round

FAULTS = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, ArithmeticError)
"""What the parts of a neighbour that do not fit may raise in a method that reads them."""


def forgiving(method: Method, me: int, say: Callable[[str], object]) -> Method:
    """A method that puts aside what it cannot read of others, instead of ending the run.

    Args:
        method: as it is.
        me: the device that must not fall for others.
        say: takes a sentence for everything put aside.

    Returns:
        The same method; where it raises with the parts of others, those it raises with are left out: facts as if the
        device were silent, messages as if they were lost.
    """

    def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
        try:
            return method.plan(facts, t)
        except FAULTS:
            fit = [k for k in facts if k == me or _works(method.plan, {me: facts[me], k: facts[k]}, t)]
            if len(fit) == len(facts):
                raise
            say(f"facts of {sorted(facts.keys() - set(fit))} cannot be used and are left out")
            return method.plan({k: facts[k] for k in fit}, t)

    def form(facts: Mapping[int, Facts], t: Round) -> Forming | None:
        fit = [k for k in facts if k == me or _works(_priced, method, {me: facts[me], k: facts[k]}, t)]
        if len(fit) < len(facts):
            say(f"facts of {sorted(facts.keys() - set(fit))} cannot be used to find a cluster and are left out")
        return method.form({k: facts[k] for k in fit}, t)

    def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
        try:
            return method.merge(device, inbox, phase, t)
        except FAULTS as error:
            kept = [e if _works(method.merge, device, [e], phase, t) else e._replace(payload=None) for e in inbox]
            if kept == list(inbox):
                raise
            out = [e.edge.src for e, old in zip(kept, inbox, strict=True) if e != old]
            say(f"messages of {out} in phase {phase.name} cannot be used and are left out: {error}")
            return method.merge(device, kept, phase, t)

    return replace(method, plan=plan, form=form, merge=merge)


def _priced(method: Method, facts: Mapping[int, Facts], t: Round) -> None:
    """See that what devices tell can be talked about."""
    if (forming := method.form(facts, t)) is not None:
        for leaf in forming.leaves.values():
            check_leaf(leaf)
            forming.price((leaf,))


def _works(function: Callable[..., object], *args: Any) -> bool:
    try:
        function(*args)
    except FAULTS:
        return False
    return True
