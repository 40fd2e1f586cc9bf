"""What a task asks of every layer: the spectrum of W0 C~ under the untouched base, eqs. (20)-(21), reading R4.

Without truncation SVD(W0 C) C^-1 is W0 again, whatever the task; what depends on the task are the singular values
of W0 C~, and they are taken here, as CorDA does. C is the second moment of a layer's input over single tokens (the
average input that the text speaks of would leave one direction), damped so that it is regular.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..adapters.density import spectral_entropy
from .base import Base
from .tokens import Row, collate

DAMPING = 0.01
"""lambda of C~ = C + lambda mean(diag C) I, CorDA's."""
ROWS = 8
"""Prompts a forward pass reads at a time; of its activations only the sampled tokens are kept."""


class Inputs(NamedTuple):
    """One layer input, [k], on n sampled tokens.

    kept: the vectors X, [n k] float32, or, where `folded`, X^T X, [k k] float64. num_tokens: n.
    """

    kept: Tensor
    folded: bool
    num_tokens: int


def layer_entropies(
    base: Base, rows: Sequence[Row], damping: float = DAMPING, max_tokens: int = 1024
) -> Float[np.ndarray, " L"]:
    r"""Spectral entropy of every adapted layer under a task's prompts, eqs. (20)-(21).

    .. math::  H_l = H(\sigma(W_{0,l} \tilde C_l)), \quad
               \tilde C_l = C_l + \lambda \overline{\mathrm{diag}\,C_l} I, \quad C_l = X_l^T X_l / n

    Neither a rotation nor a scaling of a layer's inputs changes its entropy. Beside what `accumulator_bytes` says,
    one layer at a time takes W0, the product and its smaller Gram matrix in float64.

    Args:
        base: the shared frozen model, its slots empty.
        rows: prompts of the device's own data; targets are not read.
        damping: lambda, above zero.
        max_tokens: real tokens taken at most, evenly spread over all prompts, the same for every layer.

    Returns:
        H in nats for every layer of the layout, in [0, ln min(d, k)]. [L]

    Raises:
        ValueError: no rows, damping not above zero, no token to take, or a layer, by name, whose product W0 C~ is
            zero or not finite.
    """
    if not (damping > 0.0 and math.isfinite(damping)):
        raise ValueError(f"damping must be a finite number above 0, or C~ of (20) need not be regular; got {damping}")
    seen = layer_inputs(base, rows, max_tokens)
    entropies = []
    for name, slot in base.slots.items():
        inputs = seen[base.source[name]]
        sigma = singular_values(slot.base.weight, inputs, damping)
        if not np.isfinite(sigma).all() or not sigma.any():
            what = "is zero" if np.isfinite(sigma).all() else "is not finite"
            raise ValueError(
                f"layer {name}: W0 C of (20) {what} over {inputs.num_tokens} tokens of the task, so it has no spectral "
                f"entropy; leave the layer out of model.layers, or take uniform densities"
            )
        entropies.append(spectral_entropy(sigma))
    return np.array(entropies)


@torch.no_grad()
def layer_inputs(base: Base, rows: Sequence[Row], max_tokens: int) -> dict[str, Inputs]:
    """Every distinct layer input on sampled prompt tokens, gathered in one pass over the rows.

    Args:
        base: the shared frozen model, its slots empty.
        rows: prompts; padding is never read.
        max_tokens: real tokens taken at most, evenly spread over all of them.

    Returns:
        By the name of the first slot that reads the input, as in `Base.inputs`.

    Raises:
        ValueError: no rows, or no token to take.
    """
    total = sum(len(row.prompt) for row in rows)
    if total == 0 or max_tokens < 1:
        raise ValueError(
            f"covariances need at least one prompt and one token, got {len(rows)} rows, {max_tokens} tokens"
        )
    num_tokens = min(total, max_tokens)
    picked = np.arange(num_tokens) * total // num_tokens
    seen = {name: _empty(base.slots[name].base.weight, num_tokens) for name in base.inputs}
    before = 0
    for first in range(0, len(rows), ROWS):
        group = rows[first : first + ROWS]
        start, end = np.searchsorted(picked, (before, before + sum(len(row.prompt) for row in group)))
        if start < end:
            _read(base, group, seen, picked[start:end] - before, int(start))
        before += sum(len(row.prompt) for row in group)
    return seen


def singular_values(weight: Tensor, inputs: Inputs, damping: float) -> Float[np.ndarray, " R"]:
    r"""Singular values of W0 C~, eq. (20), from the smaller of its two Gram matrices, Z Z^T or Z^T Z.

    .. math::  Z = W_0 \tilde C = (W_0 X^T) X / n + \mu W_0, \quad \mu = \lambda \lVert X \rVert_F^2 / (n k)

    No k x k matrix is made where d < k and n < k. Squaring leaves half of float64's digits: a value is off by at
    most some 1e-8 of the largest one, so that those which matter to the entropy are right to better than 1e-6 of it.

    Args:
        weight: W0, of any floating type. [d k]
        inputs: the layer's inputs.
        damping: lambda.

    Returns:
        Ascending, >= 0; not a number where weight or inputs are not. [min(d, k)]
    """
    w, x = weight.detach().double(), inputs.kept.double()
    num_rows, width = w.shape
    power = float(x.trace() if inputs.folded else x.square().sum()) / (inputs.num_tokens * width)
    left = w if inputs.folded else w @ x.T
    z = torch.addmm(w, left, x, beta=damping * power, alpha=1.0 / inputs.num_tokens)
    gram = z.T @ z if width <= num_rows else z @ z.T
    if not torch.isfinite(gram).all():
        return np.full(gram.shape[0], np.nan)
    sigma: np.ndarray = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt().cpu().numpy()
    return sigma


def accumulator_bytes(widths: Sequence[int], num_tokens: int) -> int:
    """Most bytes `layer_inputs` holds: 4 n k for every distinct input of width k while n < k, else 8 k^2.

    Qwen2.5-7B (28 blocks of three inputs of 3,584 and one of 18,944) at 1,024 tokens:

    >>> accumulator_bytes((3584, 3584, 3584, 18944) * 28, 1024)
    3405774848
    """
    return sum(4 * num_tokens * k if num_tokens < k else 8 * k * k for k in widths)


def _empty(weight: Tensor, num_tokens: int) -> Inputs:
    """Room for `num_tokens` inputs of a layer, where its weight lies."""
    width = weight.shape[1]
    if num_tokens < width:
        return Inputs(torch.zeros(num_tokens, width, dtype=torch.float32, device=weight.device), False, num_tokens)
    return Inputs(torch.zeros(width, width, dtype=torch.float64, device=weight.device), True, num_tokens)


def _read(base: Base, rows: Sequence[Row], seen: dict[str, Inputs], picked: np.ndarray, start: int) -> None:
    """Read prompts once and add the picked ones of their real tokens, which are tokens `start`.. of all taken."""
    batch = collate(base, [(row.prompt, ()) for row in rows])
    real = torch.ones_like(batch.ids) if batch.mask is None else batch.mask
    places = real.flatten().nonzero()[torch.from_numpy(picked).to(real.device), 0]

    def take(name: str, x: Tensor) -> None:
        vectors, into = x.flatten(0, 1)[places.to(x.device)], seen[name]
        if into.folded:
            into.kept.addmm_(vectors.double().T, vectors.double())
        else:
            into.kept[start : start + len(vectors)] = vectors.float()

    hooks = [
        base.slots[name].register_forward_pre_hook(lambda _, args, name=name: take(name, args[0])) for name in seen
    ]
    keep = {"logits_to_keep": 1} if base.keeps_logits else {}
    try:
        base.model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False, **keep
        )
    finally:
        for hook in hooks:
            hook.remove()
