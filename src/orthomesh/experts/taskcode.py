"""Task codes, the vectors of eq. (26): what the base model's layers see on average when a task speaks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..types import Array


def task_code(prompt_means: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " K"]:
    r"""Mean input of every layer over a small batch of a device's prompts under the base model, H of (26).

    .. math::  h_l = \frac 1N \sum_n \frac 1{T_n} \sum_{t \le T_n} x_{n,t,l}

    Args:
        prompt_means: mean over the tokens of each prompt, layers one after the other. [N, sum k]

    Returns:
        The code, float32, layers one after the other. [sum k]
    """
    return np.asarray(prompt_means.mean(axis=0), dtype=np.float32)


def similarity(
    prompts: Float[np.ndarray, "N K"], codes: Float[np.ndarray, "M K"], widths: tuple[int, ...]
) -> Float[np.ndarray, "N M"]:
    r"""How near each prompt is to each task code: centred cosine, averaged over the layers.

    .. math::  v_{nm} = \frac 1L \sum_l \cos(x_{nl} - \bar h_l,\; h_{ml} - \bar h_l), \quad
               \bar h_l = \frac 1M \sum_m h_{ml}

    Hidden states of a language model share a large common mean, so raw cosines are all near one; the mean over
    the known codes is taken off first. A single code has nothing to be told from: its similarity is 1.

    Args:
        prompts: mean layer inputs of prompts. [N, sum k]
        codes: task codes of the experts. [M, sum k]
        widths: k of every layer, adding up to sum k.

    Returns:
        Similarity in [-1, 1]. [N, M]

    Raises:
        ValueError: widths that do not add up.
    """
    if sum(widths) != codes.shape[1]:
        raise ValueError(f"layers of widths {widths} need codes of {sum(widths)} numbers, got {codes.shape[1]}")
    if codes.shape[0] == 1:
        return np.ones((prompts.shape[0], 1))
    centre = codes.mean(axis=0)
    votes = np.zeros((prompts.shape[0], codes.shape[0]))
    start = 0
    for width in widths:
        cut = slice(start, start + width)
        votes += _unit(prompts[:, cut] - centre[cut]) @ _unit(codes[:, cut] - centre[cut]).T
        start += width
    return votes / len(widths)


def _unit(rows: Array) -> Array:
    """Rows of norm one; a zero row stays zero and votes for nobody."""
    norm = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1.0))
