"""Several devices fine-tuned in one forward pass over the frozen base: batches in a row, an adapter for each."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Learnt
from .base import Base
from .finetune import Factors, Job, train


def fit_stacked(base: Base, jobs: Sequence[Job]) -> list[tuple[Factors, Learnt]]:
    """`finetune.fit` of several devices at once, eq. (6), equal to the loop over them up to rounding.

    Every device has its own rows, batches, projection, mask, loss, clipped norm and optimiser; only the products with
    the frozen weights are shared. Batches are padded to the longest row of all devices.

    Args:
        base: the shared frozen model.
        jobs: one per device, all with the same settings; projections frozen.

    Returns:
        Per device, in order, its factors and the loss at both ends.

    Raises:
        ValueError: no job, settings that differ, a projection to be trained, or what `fit` refuses.
    """
    if not jobs:
        raise ValueError("no device to train: at least one job is needed")
    if any(job.settings != jobs[0].settings for job in jobs):
        raise ValueError("devices that share forward passes need the same train settings; train the others apart")
    if any(job.start.train_projection for job in jobs):
        raise ValueError("devices that share forward passes keep their projections frozen; train these one by one")
    return train(base, jobs, 0, jobs[0].settings.steps)
