"""What arrives and what it costs, over an ideal and a simulated air."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from orthomesh.types import Air, Cost, Edge, Facts, Message, Phase, Round
from orthomesh.wireless.air import IdealAir, SimulatedAir
from orthomesh.wireless.channel import Channel, fading, gains
from orthomesh.wireless.link import Radio, max_power_w
from orthomesh.wireless.power import required_power_w

T = Round(seed=0, index=0, total=2)

# Gains from device 0: 1e-2, 1e-4, 1e-8. Noise 1e-9 W in 1 MHz; 125000 bytes in 1 s: 1 bit/s/Hz; at most 1 mW.
CHANNEL = Channel(
    positions_m=((0.0, 0.0), (10.0, 0.0), (-100.0, 0.0), (0.0, 1e4)),
    exponent=2.0,
    reference_loss_db=0.0,
    fading="none",
)
RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)
AIR = SimulatedAir(channel=CHANNEL, radio=RADIO, seed=0, num_devices=4)


def message(src: int, dsts: tuple[int, ...], size: int = 125_000) -> Message:
    return Message(src=src, dsts=dsts, payload=bytes(size), columns={"values": size - 8, "control": 8})


def phase(outbox: list[Message], cast: Literal["broadcast", "unicast"] = "broadcast") -> Phase:
    return Phase(name="intra", edges=tuple(Edge(m.src, j) for m in outbox for j in m.dsts), cast=cast)


def test_a_broadcast_serves_the_worst_it_can_reach_and_drops_the_rest() -> None:
    outbox = [message(0, (1, 2, 3))]
    kept, cost = AIR.transmit(outbox, phase(outbox), T)
    assert kept == [replace(outbox[0], dsts=(1, 2))]
    spend = cost.by_device[0]
    assert spend.bytes_sent == {"values": 124_992, "control": 8}
    assert spend.power_w == pytest.approx(1e-9 / 1e-4, rel=1e-12)
    assert spend.airtime_s == cost.elapsed_s == pytest.approx(1.0, rel=1e-12)
    assert spend.energy_j == pytest.approx(1e-5, rel=1e-12)
    assert spend.lost == 1


def test_a_unicast_splits_band_and_power_and_serves_the_strongest() -> None:
    outbox = [message(0, (3, 2, 1))]
    kept, cost = AIR.transmit(outbox, phase(outbox, "unicast"), T)
    assert kept[0].dsts == (2, 1)
    spend = cost.by_device[0]
    assert spend.bytes_sent == {"values": 3 * 124_992, "control": 24}
    assert spend.power_w == pytest.approx((1e-9 / 3) * 7 * (1e2 + 1e4), rel=1e-12)  # a third of the band: 3 bit/s/Hz
    assert spend.airtime_s == cost.elapsed_s == pytest.approx(1.0, rel=1e-12)
    assert spend.energy_j == pytest.approx(spend.power_w, rel=1e-12)
    assert spend.lost == 1


def test_senders_overlap_in_time_and_messages_of_one_sender_do_not() -> None:
    outbox = [message(0, (1,)), message(0, (2,), 37_500), message(1, (0,))]
    _, cost = AIR.transmit(outbox, phase(outbox), T)
    assert {i: s.airtime_s for i, s in cost.by_device.items()} == pytest.approx({0: 2.0, 1: 1.0}, rel=1e-12)
    assert cost.elapsed_s == pytest.approx(2.0, rel=1e-12)
    assert cost.by_device[0].power_w == pytest.approx(1e-9 / 1e-4 * (2**0.3 - 1), rel=1e-12)  # the higher of two


def test_who_reaches_nobody_counts_bytes_but_radiates_nothing() -> None:
    outbox = [message(0, (3,))]
    kept, cost = AIR.transmit(outbox, phase(outbox), T)
    spend = cost.by_device[0]
    assert kept[0].dsts == ()
    assert (spend.total_bytes, spend.lost) == (125_000, 1)
    assert spend.airtime_s == spend.energy_j == spend.power_w == cost.elapsed_s == 0.0


@pytest.mark.parametrize("lowest", [0.15, 0.0])
def test_announcing_costs_full_power_at_the_lowest_code(lowest: float) -> None:
    air = replace(AIR, radio=replace(RADIO, min_efficiency_bps_per_hz=lowest))
    facts = {2: Facts(id=2, public={}, columns={"codes": 1000, "control": 500}, payload_bits=8)}
    heard, cost = air.announce(facts, T)
    assert list(heard[2].gains) == [0, 1, 3]
    assert heard[2].gains[0] == pytest.approx(1e-4, rel=1e-12)
    assert heard[2].gains[1] == pytest.approx(1 / 110**2, rel=1e-12)
    assert replace(heard[2], gains={}) == facts[2]
    spend = cost.by_device[2]
    assert spend.bytes_sent == {"codes": 1000, "control": 500}
    assert spend.airtime_s == cost.elapsed_s == pytest.approx(0.08, rel=1e-12)  # 12000 bit / 150 kbit/s
    assert spend.energy_j == pytest.approx(8e-5, rel=1e-12)
    assert spend.power_w == pytest.approx(1e-3, rel=1e-12)


def test_announcing_nothing_costs_nothing() -> None:
    _, cost = AIR.announce({0: Facts(id=0, public={}, columns={}, payload_bits=0)}, T)
    assert cost.elapsed_s == cost.by_device[0].energy_j == cost.by_device[0].power_w == 0.0


def test_outage_and_energy_over_rounds_match_the_rayleigh_formulas() -> None:
    pair = Channel(positions_m=((0.0, 0.0), (10.0, 0.0)), exponent=2.0, reference_loss_db=0.0)
    radio = replace(RADIO, max_power_dbm=-38.0)
    air = SimulatedAir(channel=pair, radio=radio, seed=4, num_devices=2)
    outbox, n = [message(0, (1,))], 1500
    costs = [air.transmit(outbox, phase(outbox), Round(0, k, n))[1].by_device[0] for k in range(n)]
    theta = required_power_w(1_000_000, 1e-2, 1, radio) / max_power_w(radio)
    outage = 1 - math.exp(-theta)
    assert 0.2 < outage < 0.8
    assert abs(np.mean([s.lost for s in costs]) - outage) < 4 * math.sqrt(outage * (1 - outage) / n)
    energy_j = np.array([s.energy_j for s in costs])
    mean_j = max_power_w(radio) * theta * special.exp1(theta) * radio.deadline_s
    assert abs(energy_j.mean() - mean_j) < 4 * energy_j.std() / math.sqrt(n)


@st.composite
def who_sends_what(draw: st.DrawFn) -> list[tuple[int, tuple[int, ...], int]]:
    senders = draw(st.lists(st.integers(0, 4), unique=True))
    others = {i: st.lists(st.sampled_from([j for j in range(5) if j != i]), unique=True) for i in senders}
    return [(i, tuple(draw(others[i])), draw(st.integers(8, 400_000))) for i in senders]


@settings(max_examples=60, deadline=None)
@given(
    transfers=who_sends_what(),
    cast=st.sampled_from(["broadcast", "unicast"]),
    seed=st.integers(0, 100),
    index=st.integers(0, 9),
)
def test_laws_of_transmitting(
    transfers: list[tuple[int, tuple[int, ...], int]],
    cast: Literal["broadcast", "unicast"],
    seed: int,
    index: int,
) -> None:
    outbox = [message(*transfer) for transfer in transfers]
    t, planned = Round(0, index, 10), phase(outbox, cast)
    simulated = SimulatedAir(channel=Channel(radius_m=2000.0), radio=Radio(), seed=seed, num_devices=5)
    kept, cost = simulated.transmit(outbox, planned, t)
    all_of_them, ideal = IdealAir().transmit(outbox, planned, t)
    assert all_of_them == outbox
    for sent, got in zip(outbox, kept, strict=True):
        assert replace(got, dsts=sent.dsts) == sent
        assert set(got.dsts) <= set(sent.dsts)
        spend = cost.by_device[sent.src]
        assert spend.bytes_sent == ideal.by_device[sent.src].bytes_sent
        assert spend.lost == len(sent.dsts) - len(got.dsts)
        assert spend.power_w <= max_power_w(Radio())
        assert spend.energy_j == spend.power_w * spend.airtime_s
        assert (spend.power_w > 0.0) == bool(got.dsts)
    assert cost.elapsed_s <= Radio().deadline_s * (1 + 1e-12)
    assert ideal.elapsed_s == 0.0
    parts = [simulated.transmit([m], planned, t) for m in outbox]  # a process per device finds the same
    assert [m for part, _ in parts for m in part] == kept
    assert sum((c for _, c in parts), Cost()).by_device == cost.by_device


def test_announced_gains_are_those_of_the_channel_in_that_round() -> None:
    air = SimulatedAir(channel=Channel(), radio=Radio(), seed=9, num_devices=3)
    facts = {i: Facts(id=i, public={}, columns={"control": 4}, payload_bits=8) for i in (2, 0)}
    heard, _ = air.announce(facts, Round(0, 1, 2))
    h = gains(Channel(), 9, 1, 3)
    assert list(heard) == [0, 2]
    assert {(i, j): g for i, f in heard.items() for j, g in f.gains.items()} == {
        (i, j): h[i, j] for i in (0, 2) for j in range(3) if i != j
    }


def test_a_message_to_nobody_is_kept_and_free() -> None:
    outbox = [message(0, ())]
    for air in (AIR, IdealAir()):
        for cast in ("broadcast", "unicast"):
            kept, cost = air.transmit(outbox, Phase(name="intra", edges=(), cast=cast), T)
            assert kept == outbox
            assert cost.by_device[0].total_bytes == cost.by_device[0].lost == cost.elapsed_s == 0


def test_the_ideal_air_counts_bytes_only() -> None:
    air: Air = IdealAir()
    facts = {1: Facts(id=1, public={}, columns={"codes": 7}, payload_bits=8)}
    heard, cost = air.announce(facts, T)
    assert heard == facts
    assert cost.by_device[1].bytes_sent == {"codes": 7}
    assert cost.by_device[1].energy_j == cost.elapsed_s == 0.0
    assert air.transmit([], Phase(name="intra", edges=()), T) == ([], Cost())


def test_what_was_not_planned_is_refused() -> None:
    air: Air = AIR
    outbox = [message(0, (1,))]
    with pytest.raises(ValueError, match="no device 4"):
        air.transmit([], Phase(name="intra", edges=(Edge(0, 4),)), T)
    with pytest.raises(ValueError, match="no device -1"):
        air.announce({-1: Facts(id=-1, public={}, columns={}, payload_bits=0)}, T)
    wrong = [replace(outbox[0], columns={"values": 1})]
    for either in (air, IdealAir()):
        with pytest.raises(ValueError, match="no edge from device 0 to device 1"):
            either.transmit(outbox, Phase(name="intra", edges=(Edge(1, 0),)), T)
        with pytest.raises(ValueError, match="add up to 1 bytes, its payload has 125000"):
            either.transmit(wrong, phase(wrong), T)


def test_members_of_a_cluster_share_the_deadline_in_turns() -> None:
    near = Channel(
        positions_m=((0.0, 0.0), (10.0, 0.0), (5e4, 0.0), (50010.0, 0.0)), exponent=2.0, reference_loss_db=0.0,
        fading="none",
    )  # fmt: skip
    radio = replace(RADIO, access="tdma")
    outbox = [message(0, (1,)), message(1, (0,)), message(2, (3,))]
    air = SimulatedAir(channel=near, radio=radio, seed=0, num_devices=4)
    kept, cost = air.transmit(outbox, phase(outbox), T)
    assert kept == outbox
    assert {i: s.airtime_s for i, s in cost.by_device.items()} == pytest.approx({0: 0.5, 1: 0.5, 2: 1.0})
    assert cost.elapsed_s == pytest.approx(1.0)
    assert cost.by_device[0].power_w == pytest.approx(1e-9 / 1e-2 * 3, rel=1e-12)  # 2 bit/s/Hz in half the time
    alone = [air.transmit([m], phase(outbox), T) for m in outbox]  # a process per device finds the same
    assert [m for part, _ in alone for m in part] == kept
    reuse = SimulatedAir(channel=near, radio=replace(RADIO, access="reuse"), seed=0, num_devices=4)
    kept, cost = reuse.transmit(outbox, phase(outbox), T)
    assert kept == outbox
    assert {i: s.airtime_s for i, s in cost.by_device.items()} == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5})
    disturbing = 1e-3 / (5e4 - 10) ** 2  # device 2 at its limit of 1 mW, at the receiver 1
    assert cost.by_device[0].power_w == pytest.approx((1e-9 + disturbing) / 1e-2 * 3, rel=1e-9)
    assert cost.elapsed_s == pytest.approx(1.0)


def test_several_blocks_carry_the_mean_of_their_rates() -> None:
    pair = Channel(positions_m=((0.0, 0.0), (10.0, 0.0)), exponent=2.0, reference_loss_db=0.0, blocks=4)
    air = SimulatedAir(channel=pair, radio=RADIO, seed=3, num_devices=2)
    outbox = [message(0, (1,))]
    _, cost = air.transmit(outbox, phase(outbox), T)
    rho = fading(pair, 3, 0, (np.array([0]), np.array([1]))).powers[0]
    carried = np.mean(np.log2(1 + cost.by_device[0].power_w * 1e-2 * rho / 1e-9))
    assert carried == pytest.approx(1.0, rel=1e-9)
    facts = {0: Facts(id=0, public={}, columns={"control": 4}, payload_bits=1_000_000)}
    told = air.announce(facts, T)[0][0].gains[1]
    assert required_power_w(1_000_000, told, 1, RADIO) == pytest.approx(cost.by_device[0].power_w, rel=1e-9)


def test_an_ergodic_link_never_fades_out() -> None:
    pair = Channel(
        positions_m=((0.0, 0.0), (10.0, 0.0)), exponent=2.0, reference_loss_db=0.0, blocks="ergodic", draws="hash"
    )
    air = SimulatedAir(channel=pair, radio=RADIO, seed=3, num_devices=2)
    outbox = [message(0, (1,))]
    power_w = {air.transmit(outbox, phase(outbox), Round(0, k, 5))[1].by_device[0].power_w for k in range(5)}
    (p,) = power_w
    g = p * 1e-2 / 1e-9
    assert math.exp(1 / g) * special.exp1(1 / g) / math.log(2) == pytest.approx(1.0, rel=1e-9)


def test_packets_that_stay_missing_take_their_payload_with_them() -> None:
    radio = replace(RADIO, packet_loss=0.1, transmissions=2, packet_bytes=1250)
    air = SimulatedAir(channel=CHANNEL, radio=radio, seed=1, num_devices=4)
    outbox, n = [message(0, (1,), 12_500)], 1000
    costs = [air.transmit(outbox, phase(outbox), Round(0, k, n)) for k in range(n)]
    lost = np.array([cost.by_device[0].lost for _, cost in costs])
    expected = 1 - 0.99**10
    assert abs(lost.mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    assert all(bool(kept[0].dsts) == (not cost.by_device[0].lost) for kept, cost in costs)
    assert len({cost.by_device[0].energy_j for _, cost in costs}) == 1  # spent either way


def test_the_best_split_serves_the_same_for_less() -> None:
    outbox = [message(0, (1, 2), 40_000)]
    equal = AIR.transmit(outbox, phase(outbox, "unicast"), T)
    best = replace(AIR, radio=replace(RADIO, split="optimal")).transmit(outbox, phase(outbox, "unicast"), T)
    assert best[0] == equal[0] == outbox
    assert 0.0 < best[1].by_device[0].power_w < equal[1].by_device[0].power_w
    assert best[1].elapsed_s == equal[1].elapsed_s == pytest.approx(1.0)


def test_an_air_of_measured_links(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text("time_s,from,to,gain\n0,0,1,1e-2\n0,1,0,0\n")
    traced = Channel(trace=str(tmp_path / "links.csv"))
    air = SimulatedAir(channel=traced, radio=RADIO, seed=0, num_devices=2)
    outbox = [message(0, (1,)), message(1, (0,))]
    kept, cost = air.transmit(outbox, phase(outbox), T)
    assert [m.dsts for m in kept] == [(1,), ()]
    assert cost.by_device[0].power_w == pytest.approx(1e-9 / 1e-2, rel=1e-12)
