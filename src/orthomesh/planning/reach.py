"""Lemma 1 for whole clusters: the power every member needs, and which pairs of devices can be members at all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from ..wireless.power import required_powers_w
from .problem import Problem, power_limits_w


def power_per_loss_w(
    problem: Problem, devices: Int[np.ndarray, " N"], receivers: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    r"""What (25) needs for a loss 1/h of 1: sigma_n^2 (2^(Q n / (W Gamma)) - 1).

    Times the sum of the losses to all receivers it is the power of a sender. In broadcast the band is not split,
    whatever the number of receivers, and the worst loss counts alone.

    Args:
        problem: payloads, radio, cast.
        devices: senders. [N]
        receivers: how many each sends to, >= 1. [N]

    Returns:
        W, >= 0; infinite beyond the fastest code. [N]
    """
    share = np.ones_like(receivers) if problem.limits.cast == "broadcast" else receivers
    return required_powers_w(problem.payload_bits[devices], np.ones(len(devices)), problem.radio, share)


def pair_powers_w(problem: Problem) -> Float[np.ndarray, "E 2"]:
    """Power both ends of every link need to reach each other alone, (25) with one receiver. [E 2], may be infinite."""
    alone = power_per_loss_w(problem, every := np.arange(len(problem.densities)), np.ones_like(every))
    with np.errstate(divide="ignore", invalid="ignore"):
        power = alone[problem.links.pairs] / problem.links.gains
    return np.where(alone[problem.links.pairs] == 0.0, 0.0, power)


def usable(problem: Problem) -> Bool[np.ndarray, " E"]:
    """Which links both ends can use within deadline and power limit, (11a)(11b): who may share a cluster. [E]"""
    return np.asarray((pair_powers_w(problem) <= power_limits_w(problem)[problem.links.pairs]).all(axis=1))
