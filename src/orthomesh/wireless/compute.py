"""What fine-tuning and sending cost in time and energy, and how many parameters a limit leaves, III-A.

The paper's cost counts updated parameters times batches. It is a budget, not a time: sparsity of the
expansion saves almost no arithmetic, because activations still flow through the frozen weights.
"""

from __future__ import annotations


def compute_cost(num_parameters: int | float, num_samples: int, batch_size: int, coefficient: float) -> float:
    """Overhead of one pass of local fine-tuning, c = eps Q N / B, eq. (7).

    Args:
        num_parameters: Q, parameters updated: sum_l d_l r_l s_l; plus r_l k_l where projections train too.
        num_samples: N, rows of the device's data.
        batch_size: B, rows of one step.
        coefficient: eps, cost of one parameter in one step on this device.

    Returns:
        Cost in the unit of `coefficient`, >= 0.

    Raises:
        ValueError: a negative number of parameters, or another argument that is not positive.

    >>> compute_cost(1000, 320, 32, 0.5)
    5000.0
    """
    if num_parameters < 0:
        raise ValueError(f"the number of parameters is >= 0, got {num_parameters}")
    _check(num_samples, batch_size, coefficient)
    return coefficient * num_parameters * num_samples / batch_size


def parameter_budget(max_cost: float, num_samples: int, batch_size: int, coefficient: float) -> float:
    """How many parameters a cost limit leaves, Q_budget = c_max B / (eps N).

    Args:
        max_cost: c_max, in the unit of `coefficient`, >= 0.
        num_samples: N, rows of the device's data.
        batch_size: B, rows of one step.
        coefficient: eps, cost of one parameter in one step on this device.

    Returns:
        Parameters, >= 0, not rounded.

    Raises:
        ValueError: a negative limit, or another argument that is not positive.

    >>> parameter_budget(5000.0, 320, 32, 0.5)
    1000.0
    """
    if max_cost < 0.0:
        raise ValueError(f"the cost limit is >= 0, got {max_cost}")
    _check(num_samples, batch_size, coefficient)
    return max_cost * batch_size / (coefficient * num_samples)


def training_flops(num_weights: int, num_tokens: int) -> float:
    """Floating point operations of fine-tuning low-rank adapters on so many tokens, about 4 N a token.

    2 N forward, 2 N for the gradients of activations, which still flow through all frozen weights; the gradients of
    the adapters themselves are small, and sparsity of B saves almost nothing. Full fine-tuning takes 6 N.

    Args:
        num_weights: N, parameters of the frozen model.
        num_tokens: tokens of all steps, padding included.

    Returns:
        Operations, >= 0.

    Raises:
        ValueError: a negative number.

    >>> training_flops(1000, 10)
    40000.0
    """
    return 2.0 * inference_flops(num_weights, num_tokens)


def inference_flops(num_weights: int, num_tokens: int) -> float:
    """Floating point operations of reading or writing so many tokens, about 2 N a token.

    >>> inference_flops(1000, 10)
    20000.0
    """
    if num_weights < 0 or num_tokens < 0:
        raise ValueError(f"weights and tokens are >= 0, got {num_weights} and {num_tokens}")
    return 2.0 * num_weights * num_tokens


def compute_time_s(flops: float, peak_flops_per_s: float, utilisation: float) -> float:
    """How long so many operations take, FLOPs / (peak times utilisation).

    >>> compute_time_s(4e12, 2e12, 0.5)
    4.0
    """
    if not (flops >= 0.0 and peak_flops_per_s > 0.0 and 0.0 < utilisation <= 1.0):
        raise ValueError(
            "compute time needs operations >= 0, a peak > 0 and a utilisation in (0, 1], "
            f"got {flops}, {peak_flops_per_s} and {utilisation}"
        )
    return flops / (peak_flops_per_s * utilisation)


def compute_energy_j(flops: float, joule_per_flop: float) -> float:
    """What so many operations take, FLOPs times J/FLOP. 10 to 100 pJ a FLOP is usual on handsets and boards.

    >>> round(compute_energy_j(4e12, 2e-11), 9)
    80.0
    """
    if not (flops >= 0.0 and joule_per_flop >= 0.0):
        raise ValueError(f"compute energy needs operations and J/FLOP >= 0, got {flops} and {joule_per_flop}")
    return flops * joule_per_flop


def cycle_energy_j(bits: float, cycles_per_bit: float, frequency_hz: float, capacitance: float = 1e-27) -> float:
    """Energy of processing data on a clocked chip as wireless papers have it, kappa C D f^2; it takes C D / f s.

    Args:
        bits: D, size of the data.
        cycles_per_bit: C.
        frequency_hz: f.
        capacitance: kappa, effective switched capacitance; 1e-27 in the code of Chen et al.

    Returns:
        J, >= 0.

    Raises:
        ValueError: a negative argument.

    >>> round(cycle_energy_j(1e6, 40.0, 1e9), 9)
    0.04
    """
    if not min(bits, cycles_per_bit, frequency_hz, capacitance) >= 0.0:
        raise ValueError(
            "energy of cycles needs bits, cycles, frequency and capacitance >= 0, "
            f"got {bits}, {cycles_per_bit}, {frequency_hz} and {capacitance}"
        )
    return capacitance * cycles_per_bit * bits * frequency_hz**2


def transmit_energy_j(power_w: float, duration_s: float) -> float:
    """Radiated energy of a transfer, p l.

    >>> transmit_energy_j(0.2, 5.0)
    1.0
    """
    if not (power_w >= 0.0 and duration_s >= 0.0):
        raise ValueError(f"radiated energy needs a power and a duration >= 0, got {power_w} and {duration_s}")
    return power_w * duration_s


def _check(num_samples: int, batch_size: int, coefficient: float) -> None:
    if num_samples < 1 or batch_size < 1 or not coefficient > 0.0:
        raise ValueError(
            "cost of fine-tuning needs samples >= 1, batch size >= 1 and a coefficient > 0, "
            f"got {num_samples}, {batch_size} and {coefficient}"
        )
