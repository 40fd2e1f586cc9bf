"""Questions to a finished run or to a saved bank, and the bank as files that others can load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .checkpoint import load_devices
from .config import near
from .experiment import Experiment, checkpoint_path
from .methods.sparse_orthogonal import SparseOrthogonal
from .models.settings import EMBEDDED, TINY
from .presets import of_run

LONGEST_ANSWER = 64
"""Tokens of an answer where nobody says."""


class Reply(NamedTuple):
    """One answer. why: who gave it, in words. cut: tokens the prompt lost at its beginning."""

    text: str
    why: str
    cut: int


def open_bank(directory: Path, method: str | None, device: int | None) -> Any:
    """The bank in a directory: a saved one, or what a device of a finished run answers with.

    Args:
        directory: of `orthomesh export` or of a run.
        method: label of the run's method; none: the first that keeps experts apart.
        device: whose bank; none: the first device's.

    Returns:
        A `models.bank_io.Portable`.

    Raises:
        ValueError: neither of both, no such method or device, or a run that has not got there yet.
    """
    from .models.bank_io import FILES, load_bank

    if (directory / FILES[0]).is_file():
        if method is not None or device is not None:
            raise ValueError(f"{directory} is a saved bank: it has no methods or devices to choose from")
        return load_bank(directory)
    if not (directory / "config.yaml").is_file():
        raise ValueError(f"{directory} is neither a run nor a bank of experts: no config.yaml and no {FILES[0]} in it")
    x = of_run(directory)
    return _bank_of_run(directory, x, method, device)


def _bank_of_run(directory: Path, x: Experiment, method: str | None, device: int | None) -> Any:
    from .models.attach import fingerprint  # late: the command line reads this file before it needs torch
    from .models.bank_io import Portable
    from .models.base import load_base

    apart = [label for label, m in x.methods.items() if isinstance(m, SparseOrthogonal)]
    label = method or next(iter(apart), None)
    if label is None or label not in x.methods:
        raise ValueError(f"{directory} has no method {label!r}.{near(str(label), x.methods)}")
    path = checkpoint_path(directory, label)
    if not path.is_file():
        raise ValueError(f"{directory} has no finished round of {label}; go on with: orthomesh resume {directory}")
    devices, _ = load_devices(path)
    device = min(devices) if device is None else device  # a peer's own directory holds one device, whichever it is
    if device not in devices:
        raise ValueError(f"{directory} has no device {device}; its devices are {min(devices)} to {max(devices)}")
    setup, base = x.setup(), load_base(x.model)
    bank = x.methods[label].build(setup).bank(devices[device])
    if not bank.experts:
        raise ValueError(f"device {device} of {label} has no experts yet; go on with: orthomesh resume {directory}")
    return Portable(
        bank=bank,
        labels=tuple(setup.assignment[e.owner] for e in bank.experts),
        layout=base.layout,
        scaling=base.scaling,
        base_model=x.model.source,
        fingerprint=fingerprint(base.model),
    )


def ask(portable: Any, prompts: Sequence[str], max_tokens: int | None, source: str | None = None) -> list[Reply]:
    """Answers of a bank to prompts, one after the other, each token the likeliest.

    Args:
        portable: from `open_bank`.
        prompts: as the tasks' examples have them.
        max_tokens: longest answer; none: 64, or half the context where that is less.
        source: the base model; none: where the bank found it.

    Returns:
        One reply a prompt.

    Raises:
        ValueError: an empty prompt, an answer longer than the context, or a model that does not fit the bank.
    """
    import torch

    from .models.attach import attach, said
    from .models.base import load_model

    model, tokenizer = load_model(source or portable.base_model, torch.float32)
    context = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
    longest = min(LONGEST_ANSWER, context // 2) if max_tokens is None else max_tokens
    room = context - longest
    if room < 1:
        raise ValueError(f"--max-tokens {longest} leaves no room for a prompt in a context of {context}")
    read = [tokenizer(prompt, verbose=False)["input_ids"] for prompt in prompts]
    if not all(prompt.strip() and ids for prompt, ids in zip(prompts, read, strict=True)):
        raise ValueError("an empty prompt has no answer")
    attach(portable, model)
    replies = []
    for ids in read:
        kept = torch.tensor([ids[-room:]])
        with torch.no_grad():
            out = model.generate(
                kept, attention_mask=torch.ones_like(kept), do_sample=False, max_new_tokens=longest,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )  # fmt: skip
        text = tokenizer.decode(out[0, kept.shape[1] :], skip_special_tokens=True)
        replies.append(Reply(text, _why(said(model)[0], len(portable.labels)), max(0, len(ids) - room)))
    return replies


def _why(who: Any, num_experts: int) -> str:
    outside = f"{who.distance:.2g} times as far out as its own prompts go"
    if who.label is None:
        return f"the base model answered: this prompt belongs to none of {num_experts} tasks, it is {outside}"
    if num_experts == 1:
        return f"{who.label} answered, the only expert"
    share = "" if who.weight == 1 else f", {who.weight:.0%} of the answer, the rest {who.second}'s"
    return (
        f"{who.label} answered: {who.probability:.1%} likely among {num_experts} experts, {outside}; "
        f"next is {who.second}{share}"
    )


def export(portable: Any, out: Path, peft: bool, expert: str | None) -> str:
    """Write a bank, or experts of it as a peft checkpoint.

    Args:
        portable: from `open_bank`.
        out: directory; what it holds under these names is replaced.
        peft: as a LoRA checkpoint of peft; several experts are all added up, without a choice.
        expert: label of the only expert to take; none: all.

    Returns:
        A sentence that says what was written.

    Raises:
        ValueError: no such expert, or one expert without --peft.
    """
    from .models.bank_io import save_bank
    from .models.peft_io import export_peft

    if expert is not None and expert not in portable.labels:
        raise ValueError(f"there is no expert {expert!r}.{near(expert, portable.labels)}")
    chosen = [
        e for e, name in zip(portable.bank.experts, portable.labels, strict=True) if expert is None or name == expert
    ]
    if not peft:
        if expert is not None:
            raise ValueError("one expert by itself is exported for peft: add --peft")
        size = save_bank(out, portable)
        parts = ", ".join(f"{name} {number / 1000:.1f}" for name, number in size.items())
        return f"{len(chosen)} experts in {out}: {sum(size.values()) / 1000:.1f} kB ({parts})"
    source = portable.base_model
    export_peft(chosen, portable.layout, portable.scaling, str(TINY) if source == EMBEDDED else source, out)
    rank = len(chosen) * portable.layout.rank
    together = "" if len(chosen) == 1 else ", all added up: no choice is made between them"
    return f"peft checkpoint of rank {rank} in {out}: {len(chosen)} expert{'s' * (len(chosen) > 1)}{together}"
