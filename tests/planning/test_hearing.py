"""Who hears whom, and what would bring in those whom nobody hears."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.planning import hearing
from orthomesh.planning.hearing import hear, outsiders, twins
from orthomesh.planning.network import network
from orthomesh.planning.settings import Adapter, PlanSettings, Rules
from orthomesh.units import from_db
from orthomesh.wireless.channel import Channel, gains
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import is_feasible


def line(*x_m: float, **changes: object) -> PlanSettings:
    """Devices on a line; at 20 dBm of power, -90 dBm of noise and one bit/s/Hz, 110 dB of loss are bridged: 100 m."""
    channel = Channel(positions_m=tuple((x, 0.0) for x in x_m), exponent=3.0, reference_loss_db=50.0, fading="none")
    radio = Radio(bandwidth_hz=1e6, noise_dbm_per_hz=-150.0, noise_figure_db=0.0, max_power_dbm=20.0)
    adapter = Adapter(blocks=1, widths=(125_000,), rank=4, density=0.125, density_spread=1, entropy_spread=0)
    base = PlanSettings(channel=channel, radio=radio, adapter=adapter, rules=Rules(margin_db=0.0))
    return replace(base, **changes)  # type: ignore[arg-type]


def links(settings: PlanSettings) -> list[list[int]]:
    pairs: list[list[int]] = hear(settings, network(settings)).links.pairs.tolist()
    return pairs


def test_reach_on_paper() -> None:
    """1e6 bits in 1 s over 1 MHz need 0 dB of SNR: 20 dBm - (50 + 30 log10 d) >= -90 dBm up to d = 100 m."""
    assert links(line(0.0, 99.9, 200.0)) == [[0, 1]]
    assert links(line(0.0, 99.9, 199.8)) == [[0, 1], [1, 2]]
    assert links(line(0.0, 99.9, rules=Rules(margin_db=3.0))) == []


def test_links_are_those_that_lemma_1_allows_both_ways() -> None:
    settings = PlanSettings(devices=25, seed=3, channel=Channel(fading="rayleigh", radius_m=300.0))
    net = network(settings)
    h = gains(replace(settings.channel, positions_m=tuple(map(tuple, net.xy_m.tolist()))), 3, 0, 25) * from_db(-10.0)
    wanted = [
        [i, j]
        for i, j in combinations(range(25), 2)
        if all(is_feasible(int(net.payload_bits[a]), [float(h[i, j])], settings.radio, "broadcast") for a in (i, j))
    ]
    found = hear(settings, net)
    assert found.links.pairs.tolist() == wanted
    assert 0 < len(wanted) < 300
    assert found.best.tolist() == h.argmax(axis=1).tolist()
    assert found.best_gain.tolist() == pytest.approx(h.max(axis=1).tolist())


@given(m=st.integers(0, 40), chunk=st.integers(1, 300))
def test_pairs_come_whole_and_in_order_whatever_the_chunk(m: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hearing, "CHUNK", chunk)
        parts = list(hearing._chunks(m))
    i = np.concatenate([p[0] for p in parts] + [np.zeros(0, dtype=np.int64)])
    j = np.concatenate([p[1] for p in parts] + [np.zeros(0, dtype=np.int64)])
    assert [i.tolist(), j.tolist()] == [x.tolist() for x in np.triu_indices(m, 1)]


def test_each_remedy_brings_an_outsider_in_and_a_hair_less_does_not() -> None:
    settings = line(0.0, 50.0, 200.0)
    (out,) = outsiders(settings, network(settings), hear(settings, network(settings)))
    assert (out.device, out.nearest, out.distance_m) == (2, 1, 150.0)
    assert out.deadline_s is not None
    assert out.density is not None
    for factor, wanted in ((1.0001, True), (0.9999, False)):
        power = replace(settings, radio=replace(settings.radio, max_power_dbm=out.power_dbm + 10 * np.log10(factor)))
        deadline = replace(settings, radio=replace(settings.radio, deadline_s=out.deadline_s * factor))
        density = replace(settings, adapter=replace(settings.adapter, density=out.density / factor))
        for changed in (power, deadline, density):
            assert ([1, 2] in links(changed)) is wanted


def test_where_the_lowest_code_fails_only_power_or_a_place_nearer_helps() -> None:
    settings = line(0.0, 50.0, 5000.0)
    (out,) = outsiders(settings, network(settings), hear(settings, network(settings)))
    assert out.deadline_s is None
    assert out.density is None
    assert 60.0 < out.power_dbm < 80.0  # 4950 m cost 30 log10(49.5) = 50.8 dB more than 100 m


def test_nobody_is_an_outsider_in_an_empty_world_and_no_power_is_no_link() -> None:
    alone = line(0.0)
    assert outsiders(alone, network(alone), hear(alone, network(alone))) == ()
    weak = line(0.0, 1.0, radio=replace(alone.radio, max_power_dbm=-400.0))
    assert links(weak) == []
    assert len(outsiders(weak, network(weak), hear(weak, network(weak)))) == 2


def test_too_much_is_refused_in_a_sentence() -> None:
    crowd = line(*[0.0] * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hearing, "MOST_LINKS", 100)
        with pytest.raises(ValueError, match="40 devices have more than 100 links within reach"):
            links(crowd)


def test_devices_on_one_point_are_found() -> None:
    assert twins(network(line(0.0, 7.0, 0.0, 3.0, 7.0, 0.0))) == ((0, 2, 5), (1, 4))
