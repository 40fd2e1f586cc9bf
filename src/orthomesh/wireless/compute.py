"""What local fine-tuning costs and how many parameters a limit on it leaves, III-A.

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


def _check(num_samples: int, batch_size: int, coefficient: float) -> None:
    if num_samples < 1 or batch_size < 1 or not coefficient > 0.0:
        raise ValueError(
            "cost of fine-tuning needs samples >= 1, batch size >= 1 and a coefficient > 0, "
            f"got {num_samples}, {batch_size} and {coefficient}"
        )
