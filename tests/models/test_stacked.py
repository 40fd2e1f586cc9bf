"""Devices in one forward pass against the loop over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from orthomesh.adapters.projection import projection
from orthomesh.models.base import Base
from orthomesh.models.finetune import Factors, Job, fit
from orthomesh.models.settings import TrainSettings
from orthomesh.models.stacked import fit_stacked
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.embedded import examples

TRAIN = TrainSettings(steps=3, batch_size=4, learning_rate=1e-2)
TASKS = ("zelk", "morv", "vask")


@pytest.fixture(scope="module")
def rows(small: Base) -> list[list[Row]]:
    """Per device, rows of lengths of its own."""
    made = [tokenise(small, examples(t, "train", 12, np.random.default_rng(0)), t) for t in TASKS]
    return [[row._replace(target=row.target[-2 - n :]) for row in mine] for n, mine in enumerate(made)]


def start(base: Base, seed: int, density: float | None) -> Factors:
    rng = np.random.default_rng(seed)
    active = None if density is None else rng.random(base.layout.num_expansion) < density
    b = (0.1 * rng.standard_normal(base.layout.num_expansion)).astype(np.float32)
    b = b if active is None else np.where(active, b, np.float32(0))
    return Factors(A=projection(seed, base.layout), B=b, active=active)


def jobs(rows: list[list[Row]], starts: list[Factors], train: TrainSettings) -> list[Job]:
    """Fresh draws each time."""
    return [Job(rows[n], one, train, np.random.default_rng(n)) for n, one in enumerate(starts)]


def compare(base: Base, rows: list[list[Row]], starts: list[Factors], train: TrainSettings) -> list[Factors]:
    """Assert that both ways end alike."""
    ends = fit_stacked(base, jobs(rows, starts, train))
    assert len(ends) == len(starts)
    for job, (ended, learnt) in zip(jobs(rows, starts, train), ends, strict=True):
        expected, told = fit(base, job.rows, job.start, job.settings, job.order)
        way = np.linalg.norm(expected.B - job.start.B)
        assert np.linalg.norm(ended.B - expected.B) < 1e-3 * way
        assert ended.A.tobytes() == job.start.A.tobytes()
        assert {n: m.shape for n, m in ended.moments.items()} == {n: m.shape for n, m in expected.moments.items()}
        assert (learnt.first_loss, learnt.last_loss) == pytest.approx((told.first_loss, told.last_loss), rel=1e-5)
        assert (learnt.steps, learnt.trained) == (told.steps, told.trained)
    return [ended for ended, _ in ends]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_stacked_devices_end_where_the_loop_does(
    small: Base, rows: list[list[Row]], count: int, clip_norm: float
) -> None:
    starts = [start(small, n, density) for n, density in enumerate((0.2, None, 0.6)[:count])]
    ends = compare(small, rows, starts, replace(TRAIN, clip_norm=clip_norm))
    for begun, ended in zip(starts, ends, strict=True):
        assert begun.active is None or not ended.B[~begun.active].any()


@settings(max_examples=5, phases=[Phase.generate])
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0), st.integers(1, 3))
def test_masks_and_parts_of_every_kind(
    small: Base, rows: list[list[Row]], seed: int, density: float, accumulate: int
) -> None:
    starts = [start(small, (seed + n) % 2**32, density) for n in range(2)]
    compare(small, rows, starts, replace(TRAIN, steps=1, accumulate=accumulate))


def test_going_on_with_moments_saliency_and_a_schedule(small: Base, rows: list[list[Row]]) -> None:
    zero = np.zeros(small.layout.num_expansion, dtype=np.float32)
    starts = [replace(start(small, n, None), saliency=zero) for n in range(2)]
    first = compare(small, rows, starts, replace(TRAIN, schedule="cosine", checkpointing=True))
    for n, ended in enumerate(first):
        alone, _ = fit(small, rows[n], starts[n], replace(TRAIN, schedule="cosine"), np.random.default_rng(n))
        assert ended.saliency is not None
        assert alone.saliency is not None
        np.testing.assert_allclose(ended.saliency, alone.saliency, rtol=1e-2, atol=1e-4 * alone.saliency.max())
    compare(small, rows, first, TRAIN)


def test_a_device_does_not_hear_of_the_others(small: Base, rows: list[list[Row]]) -> None:
    starts = [start(small, n, 0.3) for n in range(3)]
    three = fit_stacked(small, jobs(rows, starts, TRAIN))
    starts[2] = start(small, 9, 0.9)
    other = fit_stacked(small, jobs(rows, starts, TRAIN))
    assert [three[n][0].B.tobytes() == other[n][0].B.tobytes() for n in range(3)] == [True, True, False]
    three[0][0].B.fill(7.0)
    assert not np.any(three[1][0].B == 7.0)


def test_devices_that_cannot_share_a_pass_are_refused(small: Base, rows: list[list[Row]]) -> None:
    pair = jobs(rows, [start(small, n, 0.3) for n in range(2)], TRAIN)
    with pytest.raises(ValueError, match="at least one job"):
        fit_stacked(small, [])
    with pytest.raises(ValueError, match="the same train settings"):
        fit_stacked(small, [pair[0], replace(pair[1], settings=replace(TRAIN, steps=4))])
    with pytest.raises(ValueError, match="keep their projections frozen"):
        fit_stacked(small, [pair[0], replace(pair[1], start=replace(pair[1].start, train_projection=True))])
