"""The sizes at which a table is run: embedded, on real tasks with a small model, and as the paper has it."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config import near
from ..experiment import Evaluate, Experiment
from ..models.settings import ModelSettings, TrainSettings
from ..presets import from_plain, overlaid, plain
from ..tasks.embedded import TASKS as EMBEDDED_TASKS
from ..tasks.hub import how_to_get
from ..tasks.settings import TaskSettings
from ..wireless.channel import Channel
from ..wireless.link import Radio
from .printed import TASKS as PAPER_TASKS

SMALL_TASKS = ("snips", "trec", "sst2", "agnews", "sms_spam", "clinc_domain", "boolq", "arc_easy")
"""Real tasks that a model of some million weights can learn something of."""
QWEN = "Qwen/Qwen2.5-1.5B-Instruct"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size. says: what it is, in words. counts: numbers of devices in Figure 4."""

    name: str
    says: str
    experiment: Callable[[], Experiment]
    counts: tuple[int, ...]


def tiny() -> Experiment:
    """Eight embedded tasks, one a device, as many as the paper has columns."""
    return Experiment(
        name="tiny",
        workers=_workers(),
        tasks=TaskSettings(names=tuple(EMBEDDED_TASKS)[:8], test_examples=60),
        channel=Channel(radius_m=100.0),
        radio=Radio(deadline_s=5.0),
        evaluate=Evaluate(prompts=20, devices=1),
    )


def small() -> Experiment:
    """Eight real tasks of a data directory with a small model."""
    return Experiment(
        name="small",
        workers=_workers(),
        tasks=TaskSettings(names=SMALL_TASKS, test_examples=100),
        train=TrainSettings(steps=30, batch_size=16, learning_rate=5e-3),
        channel=Channel(radius_m=100.0),
        radio=Radio(bandwidth_hz=20e6, deadline_s=5.0),
        evaluate=Evaluate(prompts=20, devices=1),
    )


def paper() -> Experiment:
    """Ten devices, r = 32, the paper's data sets; what it does not say is ours."""
    return Experiment(
        name="paper",
        devices=10,
        rounds=10,
        model=ModelSettings(source=QWEN, rank=32, max_length=512, dtype="bfloat16"),
        tasks=TaskSettings(names=PAPER_TASKS, data="hub", train_examples=4000, test_examples=1000),
        train=TrainSettings(steps=25, batch_size=32, accumulate=4, learning_rate=5e-4, schedule="cosine"),
        channel=Channel(radius_m=100.0),
        radio=Radio(bandwidth_hz=20e6, deadline_s=600.0),  # wider, and noise keeps ten devices from being one cluster
        evaluate=Evaluate(every=0, scorer="lm-eval" if harness_installed() else "own"),
    )


def harness_installed() -> bool:
    """Whether lm-evaluation-harness is there; finding out does not load it."""
    return importlib.util.find_spec("lm_eval") is not None


def scored_by(x: Experiment) -> str:
    """Who scores answers, in a sentence; at the paper's scale it should be lm-evaluation-harness."""
    if x.evaluate.scorer == "lm-eval":
        return f"answers are scored by lm-evaluation-harness {metadata.version('lm-eval')}"
    return (
        "answers are scored by our own scorer, which stands in for lm-evaluation-harness; to have that one do it: "
        "pip install 'orthomesh[eval]', then -s evaluate.scorer=lm-eval"
    )


def _workers() -> int:
    return min(2, os.cpu_count() or 1)


SCALES: Mapping[str, Scale] = {
    "tiny": Scale(
        name="tiny", says="embedded model, eight embedded tasks", experiment=tiny, counts=(2, 4, 6, 8)
    ),
    "small": Scale(
        name="small", says="a small model, eight real tasks of a data directory", experiment=small, counts=(2, 4, 6, 8)
    ),
    "paper": Scale(
        name="paper", says="Qwen2.5-Instruct, r = 32, ten devices", experiment=paper, counts=(5, 8, 10, 12, 15)
    ),
}  # fmt: skip


def scale_of(name: str) -> Scale:
    """A scale by name.

    Raises:
        ValueError: no such scale.
    """
    if name not in SCALES:
        raise ValueError(f"--scale: there is no scale {name!r}.{near(name, SCALES)}")
    return SCALES[name]


def base_experiment(
    scale: Scale, methods: Mapping[str, Any], given: Mapping[str, Any], overrides: Sequence[str]
) -> Experiment:
    """The experiment of a table before it has a seed.

    Args:
        scale: how large.
        methods: settings by label.
        given: values by dotted key that options give, such as model.source.
        overrides: `key=value`, as `--set` takes them; `methods.LABEL.key` changes one method.

    Raises:
        ValueError: whatever is wrong with settings, and data or a model that are not there.
    """
    values = plain(replace(scale.experiment(), methods=dict(methods)))
    x = from_plain(*overlaid(values, f"--scale {scale.name}", None, overrides, given))
    _there(scale, x)
    return x


def _there(scale: Scale, x: Experiment) -> None:
    """Whether what a scale needs from outside is given and lies where it should."""
    how = (
        "a data directory holds NAME/train.jsonl and NAME/test.jsonl (or .jsonl.gz) with instruction, output and, "
        "where one is chosen, answer and choices; or NAME is a copy of one of the paper's data sets as the hub has it"
    )
    if scale.name == "small" and (not x.tasks.data or x.model.source == "embedded"):
        raise ValueError(
            f"--scale small needs --data DIR and --model DIR: {how}; a model is a directory with a Hugging Face "
            f"causal language model. Tasks asked for: {', '.join(x.tasks.names)}"
        )
    if x.tasks.data in ("", "hub"):
        return
    root = Path(x.tasks.data)
    if not root.is_dir():
        raise ValueError(f"--data: there is no directory {root}; {how}.{how_to_get(x.tasks.names[0])}")
    absent = [name for name in x.tasks.names if not (root / name).is_dir()]
    if absent:
        known = sorted(p.name for p in root.iterdir() if p.is_dir())
        close = difflib.get_close_matches(absent[0], known, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"--data: {root} has no {', '.join(absent)}; {how}. It has: {', '.join(known)}.{meant} Other tasks: "
            f"--tasks A,B.{how_to_get(absent[0], known)}"
        )


def at_seed(x: Experiment, seed: int) -> Experiment:
    """The same experiment with another seed."""
    return replace(x, seed=seed)


def at_count(x: Experiment, devices: int) -> Experiment:
    """The same experiment with so many devices; task i mod their number goes to device i, tasks left over to nobody."""
    return replace(x, devices=devices)
