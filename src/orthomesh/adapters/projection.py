"""The frozen projection A, eq. (16): drawn from a 64-bit seed, never trained, never sent (reading R1).

Devices rebuild each other's A from the seed alone, on other processors and with other versions of NumPy, so
every bit must follow from the seed. Only what standards fix is used: the raw words of the Philox generator
(its stream is guaranteed by NumPy's NEP 19), integers, frexp, and single elementwise + - * / sqrt in IEEE
double precision, each correctly rounded. There is no BLAS, no LAPACK, no logarithm of a C library, none of
NumPy's distributions, and no sum whose order is left to NumPy.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from ..rng import stream
from .lowrank import Layout, matrices_a

Kind = Literal["orthonormal", "gaussian", "unit", "sparse"]
BLOCK = 8192
"""Points of the polar method worked on at a time, so that they stay in cache; changes no bit."""
ENTRIES = 2**19
"""Most entries of equally wide layers made orthonormal together; changes no bit."""
KEPT, SMALL, KEPT_SMALL = 16, 2**16, 512
"""Projections that are kept: whoever trains or answers asks for the same again and again. More of those of at most so
many numbers, so that many simulated devices with a small model find theirs."""
THREADS = 4
"""Batches of a large model's layers drawn side by side at most; each has streams and places of its own, so that
this changes no bit."""
LN_2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476


def projection(seed: int, layout: Layout, kind: Kind = "orthonormal") -> Float[np.ndarray, " rk"]:
    r"""All projections of one device from its seed alone, eq. (16); (28) holds for them in expectation.

    .. math::  A_l = Q^T, \quad QR = G_l^T, \quad [G_l]_{xy} \sim \mathcal N(0, 1)

    The same float32 numbers on every machine: see the top of this file. Each layer has a stream of its own,
    whatever other layers there are. Rows are orthonormal by default, so that the magnitude of an entry of B is its
    weight in the update and A_i A_j^T is small for independent seeds: sqrt(r/k) of A_i A_i^T in root mean square.

    Reading R1: the paper draws N(0, 1) entries (`unit`); `gaussian` is that divided by sqrt(k), the same
    mathematics with 1/sqrt(k) folded into the scaling, at a usable learning rate. The theorem the paper cites is
    proved for `sparse`: max(1, round(k/4)) entries of every row are N(0, 1/r^2), the others zero.

    Args:
        seed: 64-bit seed of the device's projection; what its neighbours are told instead of A.
        layout: the adapted layers.
        kind: `orthonormal` rows spanning those of G; `gaussian` G / sqrt(k); `unit` G; `sparse`.

    Returns:
        The matrices A_l, [r, k_l], flat one after the other, float32. [sum r k]

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind {kind!r} of a projection is unknown; known are {', '.join(get_args(Kind))}")
    return (_small if layout.num_projection <= SMALL else _large)(seed, layout, kind).copy()


def num_kept(num_projection: int) -> int:
    """How many projections of so many numbers a process keeps at most."""
    return KEPT_SMALL if num_projection <= SMALL else KEPT


def _drawn(seed: int, layout: Layout, kind: Kind) -> Float[np.ndarray, " rk"]:
    flat = np.empty(layout.num_projection, dtype=np.float32)
    matrices = matrices_a(flat, layout)

    def draw(layers: Sequence[int]) -> None:
        width = layout.shapes[layers[0]].in_features
        for layer, drawn in zip(layers, _draw(seed, layers, (layout.rank, width), kind), strict=True):
            matrices[layer][:] = drawn

    if layout.num_projection <= SMALL:
        for layers in _batches(layout):
            draw(layers)
        return flat
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(draw, _batches(layout)))
    return flat


_large = functools.lru_cache(maxsize=KEPT)(_drawn)
_small = functools.lru_cache(maxsize=KEPT_SMALL)(_drawn)


def ln(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    r"""Natural logarithm by the four operations alone, the same bits everywhere.

    .. math::  \ln(2^e m) = e \ln 2 + 2 (z + z^3/3 + \dots + z^{19}/19), \quad z = (m - 1) / (m + 1)

    With m between sqrt(1/2) and sqrt(2), z^2 is below 0.03, and what is left out of the series below 1e-17.

    Args:
        x: positive normal numbers, float64. [n]

    Returns:
        Their logarithms, relative error below 1e-15. [n]

    >>> ln(np.array([1.0, 0.5])).tolist()
    [0.0, -0.6931471805599453]
    """
    m, e = np.frexp(x)
    low = m < SQRT_HALF
    m = np.where(low, m + m, m)
    z = (m - 1.0) / (m + 1.0)
    square = z * z
    series = np.full_like(square, 2.0 / 19)
    for power in range(17, 0, -2):
        series *= square
        series += 2.0 / power
    return np.asarray((e - low) * LN_2 + z * series)


def _batches(layout: Layout) -> Iterator[list[int]]:
    """Layers of one width, several at a time where they are small: they take the same steps."""
    widths: dict[int, list[int]] = {}
    for layer, shape in enumerate(layout.shapes):
        widths.setdefault(shape.in_features, []).append(layer)
    for width, layers in widths.items():
        step = max(1, ENTRIES // (layout.rank * width))
        yield from (layers[start : start + step] for start in range(0, len(layers), step))


def _draw(seed: int, layers: Sequence[int], shape: tuple[int, int], kind: Kind) -> Float[np.ndarray, "n r k"]:
    """The projections of some layers of one width."""
    r, k = shape
    if kind == "sparse":
        held = max(1, round(k / 4))
        a = np.zeros((len(layers), r, k))
        a[_support(seed, layers, shape, held)] = _normals(seed, layers, r * held).ravel() / r
        return a
    g = _normals(seed, layers, r * k).reshape(-1, r, k)
    if kind == "unit":
        return g
    return _orthonormal(g) if kind == "orthonormal" else g / math.sqrt(k)


def _normals(seed: int, layers: Sequence[int], count: int) -> Float[np.ndarray, "n count"]:
    r"""Standard normal entries of every layer by Marsaglia's polar method, two a point.

    .. math::  (u, v) \sqrt{-2 \ln(s) / s}, \quad s = u^2 + v^2 < 1
    """
    num_points = (count + 1) // 2
    streams = [stream(seed, "projection", layer).bit_generator for layer in layers]
    points = np.concatenate([_inside(bits, num_points) for bits in streams])
    for start in range(0, len(points), BLOCK):
        part = points[start : start + BLOCK]
        s = _square(part)
        part *= np.sqrt(-2.0 * ln(s) / s)[:, None]
    return points.reshape(len(layers), -1)[:, :count]


def _inside(bits: np.random.BitGenerator, count: int) -> Float[np.ndarray, "count 2"]:
    """The first points of a stream that lie inside the unit circle; however many are drawn at a time."""
    found = [np.empty((0, 2))]
    missing = count
    while missing > 0:
        words = bits.random_raw(min(BLOCK, missing * 4 // 3 + 32)).astype("<u8", copy=False)
        halves = words.view("<u4").reshape(-1, 2)  # the low 32 bits are u, the high ones v
        points = halves * 2.0**-31 + (2.0**-32 - 1.0)  # odd multiples of 2^-32 in (-1, 1): exact, never zero
        found.append(points[_square(points) < 1.0])
        missing -= len(found[-1])
    return np.concatenate(found)[:count]


def _square(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Squared distance from the centre."""
    u, v = points.T
    return np.asarray(u * u + v * v)


def _orthonormal(g: Float[np.ndarray, "n r k"]) -> Float[np.ndarray, "n r k"]:
    r"""Orthonormal rows spanning those of `g`, each with a positive share of its own: modified Gram-Schmidt.

    .. math::  q_j = g_j / \lVert g_j \rVert, \quad
               g_m \leftarrow g_m - \frac{g_m \cdot g_j}{g_j \cdot g_j} g_j, \quad m > j

    Off by about the condition number of g times 2^-53: far below float32 even where r = k.
    """
    rows = np.ascontiguousarray(np.moveaxis(g, 0, -1))  # layers last, so that single steps run over all of them
    work = np.empty_like(rows)
    for j in range(len(rows)):
        row, later, products = rows[j], rows[j + 1 :], work[j:]
        np.multiply(rows[j:], row, out=products)
        dots = _fold(products)
        np.multiply(row, dots[1:] / dots[0], out=products[1:])
        later -= products[1:]
        row /= np.sqrt(dots[0])
    return np.moveaxis(rows, -1, 0)


def _fold(x: Float[np.ndarray, "m k n"]) -> Float[np.ndarray, "m 1 n"]:
    """Sums over the middle axis in a fixed order: the second half onto the first until one is left. Overwrites x."""
    size = x.shape[1]
    while size > 1:
        half = size // 2
        x[:, :half] += x[:, size - half : size]  # the middle one of an odd number waits
        size -= half
    return x[:, :1].copy()


def _support(seed: int, layers: Sequence[int], shape: tuple[int, int], held: int) -> Bool[np.ndarray, "n r k"]:
    """Where sparse rows are not zero: at their smallest keys, which end in the position and so are all different."""
    r, k = shape
    place = np.arange(k, dtype=np.uint64)
    high = ~np.uint64(2 ** k.bit_length() - 1)
    streams = [stream(seed, "projection-support", layer).bit_generator for layer in layers]
    keys = np.stack([bits.random_raw(r * k).reshape(r, k) & high | place for bits in streams])
    return np.asarray(keys <= np.partition(keys, held - 1)[..., held - 1 : held])
