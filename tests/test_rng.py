"""Keyed random streams."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orthomesh.rng import _splitmix, key, normals, stream, uniforms

PURPOSE = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
IDS = st.lists(st.integers(0, 10**6), max_size=3)


def test_the_key_is_the_head_of_a_known_digest() -> None:
    digest = hashlib.sha256(b"7/fading/1/2").hexdigest()
    assert key(7, "fading", 1, 2) == int(digest[:16], 16)


def test_the_stream_is_philox_under_that_key() -> None:
    reference = np.random.Generator(np.random.Philox(key=key(7, "fading", 1, 2)))
    assert np.array_equal(stream(7, "fading", 1, 2).random(5), reference.random(5))


def test_first_draws_over_many_ids_are_uniform_and_uncorrelated() -> None:
    draws = np.array([stream(0, "test", i).random() for i in range(4000)])
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / math.sqrt(len(draws))


def test_another_process_with_another_hash_seed_agrees() -> None:
    code = "from orthomesh.rng import stream; print(stream(3, 'mask', 4).integers(2**62))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert int(out.stdout) == int(stream(3, "mask", 4).integers(2**62))


@given(seed=st.integers(0, 2**64), purpose=PURPOSE, ids=IDS, other=st.tuples(st.integers(0, 9), PURPOSE, IDS))
def test_keys_are_64_bit_and_differ_where_the_words_do(
    seed: int, purpose: str, ids: list[int], other: tuple[int, str, list[int]]
) -> None:
    k = key(seed, purpose, *ids)
    assert 0 <= k < 2**64
    assert k == key(seed, purpose, *ids)
    same = (seed, purpose, ids) == other
    assert (k == key(other[0], other[1], *other[2])) == same


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    first = stream(1, "a").random(3)
    stream(1, "b").random(1000)
    assert np.array_equal(stream(1, "a").random(3), first)


def test_order_number_and_grouping_of_ids_matter() -> None:
    keys = [
        key(0, "x"),
        key(0, "x", 0),
        key(0, "x", 0, 0),
        key(0, "x", 1, 2),
        key(0, "x", 2, 1),
        key(0, "x", 12),
    ]
    assert len(set(keys)) == len(keys)
    assert key(1, "x", 2) != key(12, "x") != key(1, "x", -2)


def test_hashed_numbers_are_uniform_independent_and_depend_on_their_own_ids_only() -> None:
    low, high = np.triu_indices(200, 1)
    u = uniforms(7, "test", low, high)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert len(np.unique(u)) == len(u)
    for other in (uniforms(8, "test", low, high), uniforms(7, "else", low, high), uniforms(7, "test", high, low)):
        assert abs(np.corrcoef(u, other)[0, 1]) < 4 / np.sqrt(len(u))
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 4 / np.sqrt(len(u))
    assert np.array_equal(uniforms(7, "test", low[5:7], high[5:7]), u[5:7])


def test_hashed_normal_numbers_are_normal() -> None:
    z = normals(1, "test", np.arange(20_000), 3)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert normals(1, "test", 5, 3)[0] == z[5]


def test_one_step_of_splitmix_is_the_published_one() -> None:
    """First output of the reference generator with state 0."""
    state = np.array([0x9E3779B97F4A7C15], dtype=np.uint64)
    assert int(_splitmix(state)[0]) == 0xE220A8397B1DCDAF
