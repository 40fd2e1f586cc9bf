"""The forest of gateway links and its loads, against the phases of exchange.intercluster."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.exchange.intercluster import relays
from orthomesh.planning.backbone import backbone


def test_loads_of_a_chain_on_paper() -> None:
    """Clusters {0, 1}, {2}, {3, 4} in a row with records of 1, 2 and 4 bits."""
    pairs = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4]])
    power = np.array([1.0, 9.0, 2.0, 3.0, 1.0])
    found = backbone(np.array([0, 0, 1, 2, 2]), np.array([1.0, 2.0, 4.0]), pairs, power)
    assert found.links.tolist() == [[1, 2], [2, 3]]
    assert found.load_bits.tolist() == [[1.0, 6.0], [3.0, 4.0]]
    assert found.received_bits.tolist() == [6.0, 5.0, 3.0]
    assert found.tree.tolist() == [0, 0, 0]


def test_what_radio_does_not_connect_stays_apart() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    found = backbone(np.array([0, 1]), np.array([5.0, 7.0]), none, np.zeros(0))
    assert found.links.shape == (0, 2)
    assert found.tree.tolist() == [0, 1]
    assert found.received_bits.tolist() == [0.0, 0.0]


@given(data=st.data(), m=st.integers(1, 9))
def test_same_links_and_loads_as_the_phases_that_really_travel(data: st.DataObject, m: int) -> None:
    labels = data.draw(st.lists(st.integers(0, 3), min_size=m, max_size=m))
    names = sorted(set(labels))
    home = np.array([names.index(k) for k in labels])
    clusters = [tuple(np.flatnonzero(home == c).tolist()) for c in range(len(names))]
    every = [(i, j) for i in range(m) for j in range(i + 1, m)]
    pairs = [p for p in every if data.draw(st.booleans())]
    power = [float(data.draw(st.integers(1, 5))) for _ in pairs]
    bits = np.array([float(3**c) for c in range(len(names))])
    found = backbone(home, bits, np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(power))
    needed = {p: w for p, w in zip(pairs, power, strict=True)} | {p[::-1]: w for p, w in zip(pairs, power, strict=True)}
    crossed: dict[tuple[int, int], float] = {}
    for phase in relays(clusters, needed, 10.0):
        for edge in phase.edges if phase.name == "inter" else ():
            crossed[edge.src, edge.dst] = crossed.get((edge.src, edge.dst), 0.0) + sum(bits[c] for c in edge.carries)
    loads = {}
    for (i, j), (there, back) in zip(found.links.tolist(), found.load_bits.tolist(), strict=True):
        loads |= {(i, j): there, (j, i): back}
    assert loads == crossed
