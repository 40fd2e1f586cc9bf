"""A network planned: clusters, links, powers, delays, energy and bytes of a round, gateways, and who is left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backbone import backbone
from .hearing import Outsider, hear, outsiders, problem_of, twins
from .network import network
from .reach import pair_powers_w
from .records import ClusterPlan, DevicePlan, LinkPlan, Relay
from .settings import PlanSettings
from .solve import solve
from .tally import clusters_of, devices_of, links_of, record_bits, relayed, relays_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything there is to show of a plan.

    parts: clusters and lone devices that radio connects, largest first, as numbers of devices. bound: no partition has
    fewer clusters, lone devices counted; bound_by: what says so.
    """

    settings: PlanSettings
    devices: tuple[DevicePlan, ...]
    clusters: tuple[ClusterPlan, ...]
    links: tuple[LinkPlan, ...]
    relays: tuple[Relay, ...]
    outsiders: tuple[Outsider, ...]
    twins: tuple[tuple[int, ...], ...]
    parts: tuple[int, ...]
    mean_collision: float
    num_groups: int
    bound: int
    bound_by: str
    gap: float


def plan(settings: PlanSettings) -> Plan:
    """Plan a network: problem (11) solved, and what the answer costs.

    Args:
        settings: places, channel, budgets, rules.

    Returns:
        The plan.

    Raises:
        ValueError: whatever is wrong with the settings or the file of devices, or too much for the solver.
    """
    net = network(settings)
    heard = hear(settings, net)
    problem = problem_of(settings, net, heard)
    solution = solve(problem, settings.rules.solver)
    groups = solution.clusters
    home = np.empty(len(net), dtype=np.int64)
    for c, members in enumerate(groups):
        home[list(members)] = c
    records = record_bits(net, groups, settings)
    spine = backbone(home, records, problem.links.pairs, pair_powers_w(problem).max(axis=1))
    devices = devices_of(net, problem, solution, home, relayed(problem, solution, spine))
    return Plan(
        settings=settings, devices=devices, relays=relays_of(net, problem, spine), links=links_of(net, problem, home),
        clusters=clusters_of(net, problem, solution, devices, records),
        outsiders=outsiders(settings, net, heard), twins=twins(net),
        parts=tuple(sorted(np.bincount(spine.tree[home]).tolist(), reverse=True)),
        mean_collision=solution.mean_rate, num_groups=solution.num_clusters,
        bound=solution.bound, bound_by=solution.bound_by, gap=solution.gap,
    )  # fmt: skip
