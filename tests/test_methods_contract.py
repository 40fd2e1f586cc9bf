"""What every method owes: a new line in METHODS is admitted by passing this file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orthomesh.checkpoint import digest, load_devices, save_devices
from orthomesh.engines.inprocess import InProcess
from orthomesh.evaluation.accuracy import same_answers
from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.methods import METHODS
from orthomesh.methods.fedalt import FedAlt
from orthomesh.methods.fedsb import FedSb
from orthomesh.methods.fly import Fly
from orthomesh.methods.lori import Lori
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from orthomesh.methods.trained import as_trained
from orthomesh.models.base import load_base
from orthomesh.round import run_round
from orthomesh.types import (
    Air,
    DeviceState,
    Envelope,
    Facts,
    Forming,
    Learnt,
    Message,
    Method,
    Phase,
    Plan,
    Round,
    RoundInfo,
)
from orthomesh.wireless.air import IdealAir, SimulatedAir
from orthomesh.wireless.channel import Channel

SETTINGS = {
    **{kind: made() for kind, made in METHODS.items()},
    "lori": Lori(dense_share=0.25, learning_rate=0.03),  # its sparse run starts anew; eight steps are few for two runs
    "fedsb": FedSb(learning_rate=0.02),  # few numbers, which have far to go
    "fly": Fly(learning_rate=0.02),  # sparse rows are shorter
    "fedalt_mixer": FedAlt(mixer="trained"),
    "paper": paper_reading(),
    "two_clusters": SparseOrthogonal(density=0.5),
    "pooled": SparseOrthogonal(pool=4.0, refinement="elementwise"),
    "gradient_global_entropy": SparseOrthogonal(score="gradient", level="global", allocation="entropy"),
    "stack_refined": SparseOrthogonal(aggregation="stack", refinement="elementwise", max_collision=0.5, density=0.4),
    "common_mean": SparseOrthogonal(seeds="common", aggregation="mean", masks="independent", max_collision=1.0),
}
PAIRED = ("pooled",)
"""Settings under which two devices have each task."""
ROUNDS = 2
DEVICES = 4
States = Mapping[int, DeviceState]


@dataclass(frozen=True)
class Flaky:
    """An air that erases one transfer in two, keyed by what is transferred; `lost=1` erases all."""

    lost: float = 0.5

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        return IdealAir().announce(facts, t)

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        return [replace(m, dsts=tuple(j for j in m.dsts if self._gets(m.src, j, t.index))) for m in sent], cost

    def _gets(self, src: int, dst: int, index: int) -> bool:
        return np.random.default_rng((src, dst, index)).random() >= self.lost


@dataclass
class Watch:
    """All that went in and out of a method while it was run, beside the states after each round."""

    method: Method
    states: list[dict[int, DeviceState]] = field(default_factory=list)
    infos: list[RoundInfo] = field(default_factory=list)
    fitted: dict[tuple[int, int], tuple[DeviceState, Learnt]] = field(default_factory=dict)  # by round and device
    described: list[dict[int, Facts]] = field(default_factory=list)
    talked: Counter[tuple[int, int]] = field(default_factory=Counter)  # bytes by (round, device)
    planned: list[tuple[Mapping[int, Facts], Round, Plan]] = field(default_factory=list)
    sent: list[tuple[int, Phase, Message]] = field(default_factory=list)
    merged: list[tuple[DeviceState, Sequence[Envelope], Phase, Round, DeviceState]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    weights: tuple[str, str] = ("", "")

    def watched(self) -> Method:
        """The same method; arguments that a function changes are noted."""
        m = self.method

        def fit(device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
            before = digest({device.id: device})
            out = m.fit(device, t)
            self.changed += ["fit"] if digest({device.id: device}) != before else []
            self.fitted[t.index, device.id] = out
            return out

        def describe(device: DeviceState, t: Round) -> Facts:
            self.described[t.index][device.id] = m.describe(device, t)
            return self.described[t.index][device.id]

        def form(facts: Mapping[int, Facts], t: Round) -> Forming | None:
            forming = m.form(facts, t)
            said = InProcess(DEVICES).form(forming, t).told if forming else {}
            self.talked.update({(t.index, k): n for k, n in said.items()})
            return forming

        def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
            self.planned.append((facts, t, m.plan(facts, t)))
            return self.planned[-1][2]

        def send(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
            before = digest({device.id: device})
            messages = m.send(device, phase, t)
            self.changed += ["send"] if digest({device.id: device}) != before else []
            self.sent += [(t.index, phase, message) for message in messages]
            return messages

        def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
            before = digest({device.id: device})
            out = m.merge(device, inbox, phase, t)
            self.changed += ["merge"] if digest({device.id: device}) != before else []
            self.merged.append((device, inbox, phase, t, out))
            return out

        return replace(m, fit=fit, describe=describe, form=form, plan=plan, send=send, merge=merge)


def run(setup: Setup, method: Method, air: Air, start: States | None = None, first: int = 0) -> Iterator[States]:
    """States after each round from `first` on."""
    engine = InProcess(setup.num_devices)
    devices = dict(start) if start else {k: method.init(k) for k in engine.hosted}
    for index in range(first, ROUNDS):
        devices, _ = run_round(Round(setup.seed, index, ROUNDS), devices, method, air, engine)
        yield devices


def simulated(setup: Setup) -> SimulatedAir:
    """An air over which some links are too weak for a payload, and others become so in the second round."""
    channel = Channel(radius_m=600.0)
    return SimulatedAir(channel=channel, radio=setup.radio, seed=setup.seed + 1, num_devices=setup.num_devices)


def goes_by(device: DeviceState) -> set[int]:
    """Whose name the device's own expert may bear: its own, or that of one it shares an adapter with."""
    return {device.id, *np.atleast_1d(device.own.get("group", device.id)).tolist()}


def weights_hash(setup: Setup) -> str:
    base = load_base(setup.model)
    assert all(slot.held is None for slot in base.slots.values())
    total = hashlib.sha256()
    for name, weight in sorted(base.model.state_dict().items()):
        total.update(name.encode())
        total.update(weight.numpy().tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module", params=SETTINGS)
def label(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def setup(label: str, tiny_setup: Setup) -> Setup:
    return replace(tiny_setup, assignment=("zelk", "morv", "morv", "zelk")) if label in PAIRED else tiny_setup


@pytest.fixture(scope="module")
def method(label: str, setup: Setup) -> Method:
    return SETTINGS[label].build(setup)


@pytest.fixture(scope="module")
def watch(method: Method, setup: Setup) -> Watch:
    """Two rounds on four devices over the simulated air, looked at from all sides."""
    watch = Watch(method, described=[{} for _ in range(ROUNDS)])
    before, engine, watched = weights_hash(setup), InProcess(DEVICES), watch.watched()
    devices = {k: method.init(k) for k in engine.hosted}
    for index in range(ROUNDS):
        print_ = digest(devices)
        after, info = run_round(Round(0, index, ROUNDS), devices, watched, simulated(setup), engine)
        watch.changed += ["run_round"] if digest(devices) != print_ else []
        devices = after
        watch.states.append(devices)
        watch.infos.append(info)
    watch.weights = (before, weights_hash(setup))
    return watch


def test_states_and_losses_are_finite(watch: Watch) -> None:
    for device in watch.states[-1].values():
        for name, array in {**device.own, **device.bank}.items():
            assert array.dtype.kind in "fub", name
            assert np.isfinite(array).all(), name
    for info in watch.infos:
        assert sorted(info.learnt) == list(range(DEVICES))
        assert all(np.isfinite([i.first_loss, i.last_loss]).all() for i in info.learnt.values())
        assert all(i.steps == 4 and i.trained > 0 for i in info.learnt.values())


def test_a_second_run_interrupted_by_a_checkpoint_is_bitwise_the_same(
    watch: Watch, setup: Setup, tmp_path: Path
) -> None:
    """In each round one device trains again; the others start from the same states, which digests say."""

    def fit(device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
        return watch.method.fit(device, t) if device.id == 1 + t.index else watch.fitted[t.index, device.id]

    again = replace(watch.method, fit=fit)
    first = next(run(setup, again, simulated(setup)))
    assert digest(first) == digest(watch.states[0])
    path = tmp_path / "half.safetensors"
    save_devices(path, first, 1)
    loaded, done = load_devices(path)
    assert digest(loaded) == digest(watch.states[0])
    last = list(run(setup, again, simulated(setup), loaded, done))[-1]
    assert digest(last) == digest(watch.states[-1])
    assert digest(watch.states[0]) != digest(watch.states[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_devices_begin_a_second_round_where_they_do_on_a_cpu(label: str, watch: Watch, setup: Setup) -> None:
    there = SETTINGS[label].build(replace(setup, model=replace(setup.model, device="cuda")))
    engine = InProcess(DEVICES)
    devices: States = {k: there.init(k) for k in engine.hosted}
    for index in range(ROUNDS):
        devices, info = run_round(Round(0, index, ROUNDS), devices, there, simulated(setup), engine)
        for k, learnt in info.learnt.items():
            assert learnt.first_loss == pytest.approx(watch.infos[index].learnt[k].first_loss, rel=0.02)


def test_under_another_seed_a_device_learns_something_else(label: str, watch: Watch, setup: Setup) -> None:
    other = SETTINGS[label].build(replace(setup, seed=1))
    device, _ = other.fit(other.init(1), Round(1, 0, ROUNDS))
    assert digest({1: device}) != digest({1: watch.fitted[0, 1][0]})


def test_the_base_model_stays_as_it_was_loaded(watch: Watch) -> None:
    before, after = watch.weights
    assert before == after


def test_no_function_changes_its_arguments(watch: Watch) -> None:
    assert watch.changed == []


def test_bytes_charged_are_bytes_framed(watch: Watch) -> None:
    for index, info in enumerate(watch.infos):
        owed: dict[int, Counter[str]] = {k: Counter(f.columns) for k, f in watch.described[index].items()}
        for k in owed:
            owed[k]["control"] += watch.talked[index, k]
        for round_, phase, message in watch.sent:
            if round_ == index:
                assert sum(message.columns.values()) == len(message.payload)
                copies = len(message.dsts) if phase.cast == "unicast" else 1
                owed[message.src].update({c: copies * n for c, n in message.columns.items()})
        charged = {k: Counter(info.cost.by_device[k].bytes_sent) for k in range(DEVICES)}
        assert {k: +c for k, c in charged.items()} == {k: +c for k, c in owed.items()}
        assert all(c.total() == info.cost.by_device[k].total_bytes for k, c in charged.items())


def test_at_most_one_message_reaches_a_receiver_in_a_phase(watch: Watch) -> None:
    ways = Counter((r, id(phase), m.src, j) for r, phase, m in watch.sent for j in m.dsts)
    assert set(ways.values()) <= {1}
    for _, phase, m in watch.sent:
        assert {(m.src, j) for j in m.dsts} <= {(e.src, e.dst) for e in phase.edges}


def test_what_is_announced_is_enough_for_the_device_s_own_parts(watch: Watch) -> None:
    for index, phase, message in watch.sent:
        if phase.name in ("gossip", "masks", "intra"):
            assert 8 * len(message.payload) <= watch.described[index][message.src].payload_bits


def test_all_a_device_keeps_can_travel_and_comes_back_bitwise(watch: Watch) -> None:
    for device in watch.states[-1].values():
        arrays = {**{f"own {n}": a for n, a in device.own.items()}, **{f"bank {n}": a for n, a in device.bank.items()}}
        back = decode(encode([Section("values", name, a) for name, a in arrays.items()]).payload)
        for name, a in arrays.items():
            assert (back[name].dtype, back[name].shape) == (a.dtype, a.shape), name
            assert back[name].tobytes() == a.tobytes(), name


def test_loss_falls_in_a_few_steps(watch: Watch) -> None:
    first = np.mean([i.first_loss for i in watch.infos[0].learnt.values()])
    last = np.mean([i.last_loss for i in watch.infos[-1].learnt.values()])
    assert last < first / 2


def test_a_plan_is_a_function_of_the_facts_and_not_of_their_order(watch: Watch) -> None:
    for facts, t, made in watch.planned:
        assert watch.method.plan({k: facts[k] for k in reversed(facts)}, t) == made
        assert watch.method.plan({k: facts[k] for k in (2, 0, 3, 1)}, t) == made


def test_a_merge_does_not_depend_on_who_came_first(watch: Watch) -> None:
    for device, inbox, phase, t, made in watch.merged:
        orders = {tuple(range(len(inbox)))[::-1], (*range(1, len(inbox)), *range(min(1, len(inbox))))}
        for order in orders - {tuple(range(len(inbox)))}:
            other = watch.method.merge(device, [inbox[n] for n in order], phase, t)
            assert digest({0: other}) == digest({0: made})


@pytest.fixture(scope="module")
def quick(label: str, setup: Setup) -> Method:
    """The method with one step a round, which is done once where two runs are still alike."""
    method, done = SETTINGS[label].build(replace(setup, train=replace(setup.train, steps=1))), {}

    def fit(device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
        key = (digest({device.id: device}), t.index)
        done[key] = done.get(key) or method.fit(device, t)
        return done[key]

    return replace(method, fit=fit)


@pytest.mark.parametrize("lost", [0.5, 1.0])
def test_lost_messages_are_survived(quick: Method, setup: Setup, lost: float) -> None:
    states = list(run(setup, quick, Flaky(lost)))[-1]
    for device in states.values():
        assert all(np.isfinite(a).all() for a in (*device.own.values(), *device.bank.values()))
        owners = [e.owner for e in quick.bank(device).experts]
        assert goes_by(device) & set(owners)
        assert owners == sorted(set(owners))
        assert lost < 1.0 or owners == [device.id]


def test_a_bank_fits_the_model(watch: Watch, setup: Setup) -> None:
    base = load_base(setup.model)
    layout = base.layout
    for device in watch.states[-1].values():
        bank = watch.method.bank(device)
        assert goes_by(device) & {e.owner for e in bank.experts}
        for expert in bank.experts:
            if expert.weights is not None:
                assert expert.weights.shape == (base.num_parameters,)
                assert np.isfinite(expert.weights).all()
                assert expert.weights.any()
                assert (expert.A.size, expert.B.size) == (0, 0)
                continue
            assert expert.A.shape == (layout.num_projection,)
            assert expert.B.shape == (layout.num_expansion,)
            assert np.isfinite(expert.A).all()
            assert np.isfinite(expert.B).all()
            assert expert.B.any()


def test_as_trained_a_device_answers_with_what_it_has_trained(label: str, watch: Watch, setup: Setup) -> None:
    """Nobody else's expert, and what others have sent before makes no difference."""
    bank, size = as_trained(SETTINGS[label], watch.method, setup), load_base(setup.model).layout
    for k in range(DEVICES):
        device, _ = watch.fitted[0, k]
        (expert,) = bank(device).experts
        assert expert.owner == k
        assert expert.weights is not None or (expert.A.size, expert.B.size) == (size.num_projection, size.num_expansion)
        told = bank(replace(device, bank=watch.states[-1][k].bank))
        assert same_answers(device, lambda _, held=told: held) == same_answers(device, bank)


def test_before_the_first_round_the_base_answers(method: Method) -> None:
    assert method.bank(method.init(3)).experts == ()
    assert method.init(3).id == 3
