"""A plan as a whole: what it says agrees with the radio's own functions, and with itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.adapters.collision import mean_rate, negotiated_rate
from orthomesh.planning.network import network
from orthomesh.planning.plan import Plan, plan
from orthomesh.planning.settings import Adapter, PlanSettings, Rules
from orthomesh.units import from_db, from_dbm
from orthomesh.wireless.channel import Channel, gains
from orthomesh.wireless.power import broadcast_power_w, unicast_powers_w

BASE = PlanSettings(devices=30, seed=5, channel=Channel(fading="none", radius_m=300.0),
                    rules=Rules(solver="agnes"))  # fmt: skip


@pytest.fixture(scope="module", params=["broadcast", "unicast"])
def planned(request: pytest.FixtureRequest) -> Plan:
    return plan(replace(BASE, rules=replace(BASE.rules, cast=request.param)))


def test_every_device_is_in_one_cluster_or_alone(planned: Plan) -> None:
    assert sorted(i for c in planned.clusters for i in c.members) == [
        d.index for d in planned.devices if d.cluster is not None
    ]
    assert all(planned.devices[i].cluster == c.index for c in planned.clusters for i in c.members)
    assert planned.num_groups == len(planned.clusters) + sum(d.cluster is None for d in planned.devices)


def test_powers_are_those_of_lemma_1(planned: Plan) -> None:
    """Against wireless.power, device by device, with the margin for fades taken off the gains."""
    s = planned.settings
    places = tuple((d.x_m, d.y_m) for d in planned.devices)
    h = gains(replace(s.channel, positions_m=places), s.seed, 0, 30) * from_db(-s.rules.margin_db)
    for c in planned.clusters:
        for i in c.members:
            others = [float(h[i, j]) for j in c.members if j != i]
            bits, d = 8 * planned.devices[i].payload_bytes, planned.devices[i]
            needed = (
                broadcast_power_w(bits, others, s.radio)
                if s.rules.cast == "broadcast"
                else math.fsum(unicast_powers_w(bits, others, s.radio))
            )
            assert d.power_dbm is not None
            assert d.margin_db is not None
            assert from_dbm(d.power_dbm) == pytest.approx(needed, rel=1e-9)
            assert d.power_dbm + d.margin_db == pytest.approx(23.0)
            assert d.margin_db >= -1e-9
            assert d.energy_j == pytest.approx(needed * d.airtime_s)
            assert d.worst == min((j for j in c.members if j != i), key=lambda j: h[i, j])
            assert d.sent_bytes == d.payload_bytes * (1 if s.rules.cast == "broadcast" else len(others))


def test_clusters_sum_their_members_and_keep_the_limits(planned: Plan) -> None:
    net = network(planned.settings)
    for c in planned.clusters:
        own = [planned.devices[i] for i in c.members]
        assert c.collision == pytest.approx(mean_rate(negotiated_rate(net.density[list(c.members)]), net.sizes))
        assert c.collision <= planned.settings.rules.max_collision
        assert c.sent_bytes == sum(d.sent_bytes for d in own)
        assert c.energy_j == pytest.approx(sum(d.energy_j for d in own))
        assert c.delay_s == max(d.airtime_s for d in own) <= planned.settings.radio.deadline_s + 1e-9
        assert c.margin_db == min(d.margin_db for d in own if d.margin_db is not None)
        assert c.record_bytes <= sum(d.payload_bytes for d in own)
    inside = sum(len(c.members) * (len(c.members) - 1) // 2 for c in planned.clusters)
    assert len(planned.links) == inside  # a cluster is a clique of usable links


def test_two_devices_on_paper() -> None:
    """100 m at 38 + 30 lg 100 = 98 dB and 10 dB for fades; 0.486 bit/s/Hz over -92 dBm of noise."""
    s = replace(BASE, channel=Channel(positions_m=((0.0, 0.0), (100.0, 0.0)), fading="none"),
                adapter=Adapter(density_spread=1, entropy_spread=0))  # fmt: skip
    p = plan(s)
    (c,) = p.clusters
    bits = 24 * 25344 * 16  # an eighth of 202,752 entries in each of 24 blocks
    noise_dbm = -174.0 + 9.0 + 10 * math.log10(20e6)
    snr_db = 10 * math.log10(2 ** (bits / 20e6) - 1)
    assert p.devices[0].payload_bytes == bits // 8
    assert p.devices[0].power_dbm == pytest.approx(98.0 + 10.0 + noise_dbm + snr_db)
    assert (c.members, c.collision, c.distance_m, c.delay_s) == ((0, 1), 0.0, 100.0, 1.0)
    assert (p.outsiders, p.relays, p.parts, p.twins) == ((), (), (2,), ())


def test_relays_cross_the_forest_and_are_charged_to_gateways() -> None:
    """Two pairs of devices and S_max = 0 with half densities: two clusters, one gateway link, records cross it once."""
    places = ((0.0, 0.0), (10.0, 0.0), (60.0, 0.0), (70.0, 0.0))
    s = replace(BASE, channel=Channel(positions_m=places, fading="none"), rules=Rules(max_collision=0.0),
                adapter=Adapter(density=0.5, density_spread=1, entropy_spread=0))  # fmt: skip
    p = plan(replace(s, radio=replace(s.radio, bandwidth_hz=60e6)))
    assert [c.members for c in p.clusters] == [(0, 1), (2, 3)]
    (relay,) = p.relays
    assert relay.ends == (1, 2)
    assert relay.bytes == sum(c.record_bytes for c in p.clusters)
    assert p.clusters[0].record_bytes == 2 * p.devices[0].payload_bytes  # S = 0: nothing in common
    for gateway, other in ((1, 0), (2, 3)):
        d = p.devices[gateway]
        assert d.relay_bytes == 2 * p.clusters[0].record_bytes  # its own cluster's outwards, the other's inwards
        assert p.devices[other].relay_bytes == 0
    assert relay.energy_j < sum(d.relay_energy_j for d in p.devices)  # telling the own cluster costs too
    assert relay.airtime_s == pytest.approx(2.0 * s.radio.deadline_s)


def test_limits_at_their_ends() -> None:
    everybody = replace(BASE, devices=12, channel=Channel(radius_m=20.0, fading="none"))
    assert [len(c.members) for c in plan(replace(everybody, rules=Rules(max_collision=1.0))).clusters] == [12]
    dense = replace(everybody, adapter=Adapter(density=1.0, density_spread=1, entropy_spread=0),
                    rules=Rules(max_collision=0.0), radio=replace(BASE.radio, bandwidth_hz=100e6))  # fmt: skip
    p = plan(dense)
    assert p.clusters == ()
    assert p.outsiders == ()  # alone by S_max, not by reach
    assert p.mean_collision == 0.0


def test_a_device_alone_in_the_world_and_one_that_nobody_hears() -> None:
    alone = plan(replace(BASE, devices=1))
    assert (alone.clusters, alone.outsiders, alone.parts) == ((), (), (1,))
    assert alone.devices[0].power_dbm is None
    far = plan(replace(BASE, channel=Channel(positions_m=((0, 0), (5, 0), (9000, 0), (5, 0)), fading="none")))
    assert [o.device for o in far.outsiders] == [2]
    assert far.twins == ((1, 3),)
    assert far.parts == (3, 1)


@settings(max_examples=4)
@given(turn=st.floats(0, 6.28), shift=st.floats(-1e4, 1e4))
def test_turning_and_shifting_the_map_changes_no_cluster(turn: float, shift: float) -> None:
    first = plan(replace(BASE, devices=12))
    moved = tuple(
        (shift + d.x_m * math.cos(turn) - d.y_m * math.sin(turn), d.x_m * math.sin(turn) + d.y_m * math.cos(turn))
        for d in first.devices
    )
    again = plan(replace(BASE, devices=12, channel=replace(BASE.channel, positions_m=moved)))
    assert [c.members for c in again.clusters] == [c.members for c in first.clusters]
