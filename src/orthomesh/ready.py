"""What a device finds out about its model and its data before it meets the others, in a process that ends before that.

So whoever waits holds neither torch nor a model: they are loaded when there is something to train.

    python -m orthomesh.ready < QUESTION > ANSWER
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import NamedTuple

from .experiment import Experiment
from .methods.setup import device_rows
from .presets import from_plain, plain


class Found(NamedTuple):
    """What was found. base: digest of the base model. layers: that adapters are attached to. notes: for a user."""

    base: str
    layers: int
    notes: tuple[str, ...] = ()


def find(x: Experiment, device: int) -> Found:
    """Load the model and read the device's own data, so that nothing is found wrong after others have begun to wait.

    Raises:
        ValueError: whatever is wrong with the model, the data or a method's settings; data that are empty.
    """
    from .models.base import load_base
    from .models.weights import weights_digest

    setup, task = x.setup(), x.setup().assignment[device]
    for label, method in x.methods.items():
        try:
            method.build(setup)
        except ValueError as error:
            raise ValueError(f"methods.{label}: {error}") from None
    rows = device_rows(setup, device)
    if not rows:
        raise ValueError(
            f"this device has no training examples of its task {task!r}: nothing can be learnt from nothing"
        )
    cut = sum(row.cut for row in rows)
    notes = (f"{cut} training prompts of {task} exceed the context; their beginnings are cut",) if cut else ()
    base = load_base(x.model)
    return Found(weights_digest(base.model), len(base.slots), notes)


def find_apart(x: Experiment, device: int) -> Found:
    """The same in a process of its own, unless this one has loaded torch already and would spare nothing.

    Raises:
        ValueError: as `find`; or that process was ended.
    """
    if "torch" in sys.modules:
        return find(x, device)
    question = json.dumps({"experiment": plain(x), "device": device})
    done = subprocess.run([sys.executable, "-m", __name__], input=question, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(
            f"the model and the data were not read to the end: that process ended with code {done.returncode}; "
            "where it was killed, memory is too small for the model"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "wrong" in answer:
        raise ValueError(answer["wrong"])
    return Found(answer["base"], answer["layers"], tuple(answer["notes"]))


def main() -> None:
    """Answer one question."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once and says nothing: who asked does
    question = json.loads(sys.stdin.read())
    try:
        answer = find(from_plain(question["experiment"], "experiment"), question["device"])._asdict()
    except ValueError as error:
        answer = {"wrong": str(error)}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
