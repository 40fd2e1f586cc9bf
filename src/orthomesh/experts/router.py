"""Which expert answers a prompt: one choice per prompt, from what devices told of their tasks (reading R7).

Eq. (29) chooses ranks per token by magnitude, which does not choose an expert; the vectors the paper already shares
choose one when the choice is made once per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ..types import TaskSketch
from .sketch import Metric, mean_distance, metric, squared_distance
from .taskcode import similarity

OWN_SHARE = 0.3
"""How much a task's own covariance weighs against the mean of all; 0 is linear, 1 quadratic discriminant analysis."""
TAIL = 3.0
"""Degrees of freedom of the t-densities: far out, what counts is how much farther one task is than another."""
TEMPERATURE = 2.0
"""What log-likelihoods are divided by: prompts of a task are no such density, and undivided they claim too much."""
SHARED_FROM = 0.2
"""A second expert takes part from this probability on."""
SLACK = 1.3
"""A prompt this much farther out than a task's own prompts go is not of the task."""


class Verdict(NamedTuple):
    """Who should answer each prompt, and how sure that is.

    best, second: indices of experts; equal where there is one only. [N]  probability: of the best. (0, 1] [N]
    weight: share of the best in the answer, the rest is the second's. [1/2, 1] [N]
    strange: too far even from its best task, the base should answer. [N]
    distance: from each task over how far its own prompts go; above 1 is outside. [N, M]
    """

    best: Int[np.ndarray, " N"]
    second: Int[np.ndarray, " N"]
    probability: Float[np.ndarray, " N"]
    weight: Float[np.ndarray, " N"]
    strange: Bool[np.ndarray, " N"]
    distance: Float[np.ndarray, "N M"]


class Classes(NamedTuple):
    """Tasks made ready to be told apart.

    means: [M, m]. metrics: one a task. inside: largest d^2 that counts as a task's own. [M]  spread: ln |C_i|. [M]
    """

    means: Float[np.ndarray, "M m"]
    metrics: tuple[Metric, ...]
    inside: Float[np.ndarray, " M"]
    spread: Float[np.ndarray, " M"]


def classes(tasks: Sequence[TaskSketch]) -> Classes:
    r"""What `discriminate` needs of the tasks, worked out once for a bank.

    .. math::  C_i = \gamma \Sigma_i + (1 - \gamma) \bar\Sigma, \qquad
               \text{inside}_i = 1.3 \; \text{reach}_i \; \mathrm{tr}(C_i^{-1} \Sigma_i)

    Args:
        tasks: what the experts' devices told, in the order of the experts.

    Raises:
        ValueError: no tasks, or sketches of different sizes.
    """
    sizes = sorted({t.mean.size for t in tasks})
    if len(sizes) != 1:
        raise ValueError(f"tasks are told apart by sketches of one size, these have {sizes or 'none'}")
    own = [t.covariance.astype(np.float64) for t in tasks]
    pooled = np.mean(own, axis=0)
    metrics = tuple(metric(OWN_SHARE * covariance + (1 - OWN_SHARE) * pooled) for covariance in own)
    usual = [SLACK * t.reach * mean_distance(t.covariance, c) for t, c in zip(tasks, metrics, strict=True)]
    return Classes(
        means=np.stack([t.mean for t in tasks]).astype(np.float64),
        metrics=metrics,
        inside=np.array([d if d > 0 else 1.0 for d in usual]),
        spread=np.array([np.log(c.variances).sum() for c in metrics]),
    )


def discriminate(points: Float[np.ndarray, "N m"], known: Classes) -> Verdict:
    r"""Regularised discriminant analysis on task sketches under t-densities, with a second opinion and a way out.

    .. math::  p_{ni} \propto \exp\big( -\tfrac{1}{2T} ( (\nu + m) \ln (1 + d_{ni}^2 / \nu) + \ln |C_i| ) \big), \quad
               d_{ni}^2 = (z_n - \mu_i)^\top C_i^{-1} (z_n - \mu_i)

    gamma = 0.3, T = 2, nu = 3. Gaussian densities (nu without end) do as well on prompts like those of a device, but
    send what lies far from all tasks, a new wording say, to the task that scatters most. The second best takes part
    with its share of the two where it has at least a fifth. A prompt is strange if it is outside its best task: d^2
    beyond 1.3 times the reach which that task's device measured on its own prompts, times tr(C_i^{-1} Sigma_i), what
    d^2 is on average inside.

    Args:
        points: sketches of prompts. [N, m]
        known: the tasks, from `classes`.

    Returns:
        The verdict for every prompt.

    Raises:
        ValueError: sketches of another size.

    Source: J. H. Friedman, Regularized Discriminant Analysis, JASA 84 (1989); C. Liu and D. B. Rubin, ML estimation of
    the t distribution using EM and its extensions, Statistica Sinica 5 (1995).
    """
    if points.shape[1] != known.means.shape[1]:
        raise ValueError(f"a prompt of {points.shape[1]} numbers meets task sketches of {known.means.shape[1]}")
    pairs = zip(known.means, known.metrics, strict=True)
    distance = np.stack([squared_distance(points, mean, scatter) for mean, scatter in pairs], axis=1)
    fit = (TAIL + points.shape[1]) * np.log1p(distance / TAIL) + known.spread
    return _verdict(-fit / (2 * TEMPERATURE), distance / known.inside)


def nearest(prompts: Float[np.ndarray, "N K"], codes: Float[np.ndarray, "M K"], widths: tuple[int, ...]) -> Verdict:
    """The expert whose task code is most similar to each prompt, by a vote of the layers; the earlier one on a tie.

    Probabilities are a softmax of the similarities, which are cosines and hardly differ: they rank, no more. No prompt
    is strange, and the best answers alone.

    Args:
        prompts: mean layer inputs of prompts under the base model. [N, sum k]
        codes: task codes of the experts. [M, sum k]
        widths: k of every layer.

    Returns:
        The verdict; `distance` is one minus the similarity.
    """
    votes = similarity(prompts, codes, widths)
    verdict = _verdict(votes, 1 - votes)
    alone = np.ones_like(verdict.weight)
    return verdict._replace(weight=alone, strange=np.zeros_like(verdict.strange))


def _verdict(scores: Float[np.ndarray, "N M"], distance: Float[np.ndarray, "N M"]) -> Verdict:
    """From scores that are logarithms of unnormalised probabilities."""
    rows = np.arange(scores.shape[0])
    best = scores.argmax(axis=1)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    others = likely.copy()
    others[rows, best] = -1.0
    second = others.argmax(axis=1) if scores.shape[1] > 1 else best
    first = likely[rows, best]
    rival = np.where(second == best, 0.0, likely[rows, second])
    weight = np.where(rival >= SHARED_FROM, first / (first + rival), 1.0)
    return Verdict(best, second, first, weight, distance[rows, best] > 1.0, distance)
