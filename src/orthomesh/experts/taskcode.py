"""Task codes, the vectors of eq. (26): what the base model's layers see on average when a task speaks."""

from __future__ import annotations

import math

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


def squared_error(prompt_means: Float[np.ndarray, "N K"], widths: tuple[int, ...]) -> Float[np.ndarray, " I"]:
    r"""Squared standard error of a task code, input by input: how far chance alone moves it.

    .. math::  e_i^2 = \mathrm{Tr}\, \mathrm{Cov}(x_{n,i}) / N

    Args:
        prompt_means: mean over the tokens of each prompt, inputs one after the other, at least two. [N, sum k]
        widths: k of every input, adding up to sum k.

    Returns:
        float32, >= 0. [I]

    Raises:
        ValueError: a single prompt, whose spread nobody knows.

    >>> squared_error(np.array([[0.0, 3.0, 1.0], [2.0, 3.0, 1.0]]), (2, 1)).tolist()
    [1.0, 0.0]
    """
    num = prompt_means.shape[0]
    if num < 2:
        raise ValueError(f"the error of a task code needs at least two prompts, got {num}")
    variance = prompt_means.astype(np.float64).var(axis=0, ddof=1)
    return np.array([part.sum() / num for part in _split(variance, widths)], dtype=np.float32)


def unlikeness(
    codes: tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]],
    errors: tuple[Float[np.ndarray, " I"], Float[np.ndarray, " I"]],
    widths: tuple[int, ...],
) -> float:
    r"""How much further apart two task codes are than chance would put two of one task (reading R11).

    .. math::  \frac 1I \sum_i \lVert h_i - h'_i \rVert^2 / (e_i^2 + e'^2_i)

    For two samples of one task the expectation is 1, whatever the model and the number of prompts.

    Args:
        codes: both task codes. [sum k]
        errors: their squared standard errors, from `squared_error`. [I]
        widths: k of every input, adding up to sum k.

    Returns:
        >= 0; infinite where codes without any spread differ.

    >>> unlikeness((np.array([0.0, 3.0]), np.array([2.0, 3.0])), (np.array([1.0]), np.array([1.0])), (2,))
    2.0
    """
    apart = codes[0].astype(np.float64) - codes[1].astype(np.float64)
    ratios = []
    for part, chance in zip(_split(apart * apart, widths), errors[0].astype(float) + errors[1], strict=True):
        distance = float(part.sum())
        ratios.append(distance / chance if chance > 0 else math.inf if distance > 0 else 0.0)
    return math.fsum(ratios) / len(ratios)


def _split(numbers: Array, widths: tuple[int, ...]) -> list[Array]:
    """What belongs to each input."""
    if sum(widths) != numbers.shape[0]:
        raise ValueError(f"inputs of widths {widths} need {sum(widths)} numbers, got {numbers.shape[0]}")
    return np.split(numbers, np.cumsum(widths)[:-1])


def _unit(rows: Array) -> Array:
    """Rows of norm one; a zero row stays zero and votes for nobody."""
    norm = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1.0))
