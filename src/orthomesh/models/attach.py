"""A bank of experts on a Hugging Face model: a prompt finds its expert when it is read, `generate` does the rest."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.lowrank import matrices_a, matrices_b
from ..experts.router import Classes, Verdict, classes, discriminate
from ..experts.sketch import sketch
from ..types import Array, TaskSketch
from .bank_io import Portable, load_bank
from .cache import cache_of
from .folding import FOLD_AFTER, Fold, fold, holds
from .inject import Adapter, Held, adapt
from .reading import block_number, columns_that_count, read_prompts, reading_points, token_shares, widths

Model = TypeVar("Model", bound=nn.Module)

SAMPLE = 64
"""Weights of every parameter that a fingerprint looks at."""


class Said(NamedTuple):
    """Who answered one prompt and why.

    label: of the expert, none where the base answered. probability: of the likeliest expert, (0, 1]. weight: share in
    the answer of who answered, [1/2, 1]. second: label of who had the rest, or was next; none where there is one
    expert. distance: from the likeliest task over how far its own prompts go; above 1 is outside.
    """

    label: str | None
    probability: float
    weight: float
    second: str | None
    distance: float


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and a sample of the weights of a model: other weights, another fingerprint.

    The sample is up to 64 evenly spaced numbers of every parameter in bfloat16, so that a model of billions is done in
    seconds and is the same one in float32 and in bfloat16; float16 rounds otherwise and is another model.
    """
    total = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].to(torch.bfloat16).float().cpu().numpy()
        total.update(f"{name.replace('.base.', '.')}|{tuple(weight.shape)}|".encode())
        total.update(np.ascontiguousarray(some, dtype="<f4").tobytes())
    return total.hexdigest()


def load(directory: str | Path, model: Model, *, folded: bool = False) -> Model:
    """Put a saved bank of experts on a model, which then answers every prompt with the expert of its task.

    Args:
        directory: written by `save_bank` or `orthomesh export`.
        model: the causal language model the bank was trained on, loaded with transformers; changed in place.
        folded: whether an expert that answers all rows of a batch is worked into a copy of the adapted weights from
            the fifth token of an answer on, and kept there until another one is: tokens then cost what the base's do,
            for as much memory as the adapted weights take again, whatever the number of experts.

    Returns:
        The same model; `generate`, batches of mixed tasks, padding on either side and the key-value cache work as
        before. `said(model)` tells who answered. Of a prompt that is read in pieces (`prefill_chunk_size`) the first
        piece chooses. A prompt longer than the context is refused when it is read. `save_pretrained` saves the base
        model alone.

    Raises:
        ValueError: a bank that cannot be read, or was trained on another model.

    Example:
        model = AutoModelForCausalLM.from_pretrained(NAME)
        model = orthomesh.load(DIR, model)
        model.generate(**tokenizer(PROMPTS, return_tensors="pt", padding=True))
    """
    return attach(load_bank(Path(directory)), model, folded=folded)


def attach(portable: Portable, model: Model, *, folded: bool = False) -> Model:
    """Put a bank on a model; what `load` does once it is read.

    Raises:
        ValueError: another base model, a bank without experts, a model that has a bank already, or a choice per token,
            which is for evaluation only.
    """
    if getattr(model, "orthomesh", None) is not None:
        raise ValueError("this model has a bank of experts already; load the model afresh for another")
    if not portable.bank.experts:
        raise ValueError("a bank without experts has nothing to answer with")
    if portable.bank.choice not in ("only", "discriminant"):
        raise ValueError(
            f"a bank chosen by {portable.bank.choice!r} cannot be put on a model for generation; "
            "export it from a run whose choice is `discriminant`"
        )
    found = fingerprint(model)
    if found != portable.fingerprint:
        name = getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__
        raise ValueError(
            f"the bank was trained on {portable.base_model} (fingerprint {portable.fingerprint[:12]}), "
            f"this model is {name} in {next(model.parameters()).dtype} (fingerprint {found[:12]})"
        )
    model.orthomesh = _Chooser(portable, model, folded)  # type: ignore[assignment]
    return model


def said(model: nn.Module) -> tuple[Said, ...]:
    """Who answered the prompts read last, one entry a row of the batch; empty before the first.

    Raises:
        ValueError: a model without a bank.
    """
    chooser = getattr(model, "orthomesh", None)
    if not isinstance(chooser, _Chooser):
        raise ValueError("this model has no bank of experts; put one on it with orthomesh.load")
    return chooser.said()


class _Layer(NamedTuple):
    """All experts of one layer, alpha / r in A. A: [M, r, k]  B: [M, d, r]"""

    A: Tensor
    B: Tensor


@final
class _Chooser:
    """What a model with a bank remembers: its experts, and who answers the prompts at hand."""

    def __init__(self, portable: Portable, model: nn.Module, folded: bool) -> None:
        bank = portable.bank
        self.bank, self.labels, self.model = bank, portable.labels, model
        layers = _layers(portable, model)  # whatever is refused is refused before the model changes
        self.known: Classes | None = None
        self.points: tuple[str, ...] = ()
        if bank.choice == "discriminant" and (len(bank.experts) > 1 or bank.refuses):
            self.known = classes(_sketches(portable))
            self.points = reading_points(model, bank.blocks)
        self.widths = widths(model, self.points)
        self.slots = adapt(model, portable.layout.names)
        self.layers = dict(zip(self.slots, layers, strict=True))
        self.verdict: Verdict | None = None
        self.read: Tensor | None = None
        self.columns = self.grown = 0
        self.folds, self.fold = folded, cast("Fold | None", None)
        self.cache: weakref.ref[Any] | None = None
        self.share: Tensor | None = None
        self.seen: dict[str, Tensor] = {}
        # no expert sits before the last point that is read: the pass that reads a prompt can go on with its expert
        places = [block_number(name) for name in self.slots]
        self.in_flight = all(place is not None and place >= bank.blocks for place in places)
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)
        model.register_state_dict_post_hook(_base_names)  # type: ignore[no-untyped-call]
        for name in self.points if self.in_flight else ():
            model.get_submodule(name).register_forward_pre_hook(partial(self._look, name))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "cache": None, "fold": None}  # a copy has not filled them

    def said(self) -> tuple[Said, ...]:
        """The verdict in words."""
        v = self.verdict
        if v is None:
            return ()
        refused = self._refused(v)
        return tuple(
            Said(
                label=None if refused[n] else self.labels[int(v.best[n])],
                probability=float(v.probability[n]),
                weight=float(v.weight[n]) if self.bank.soft and not refused[n] else 1.0,
                second=self.labels[int(v.second[n])] if v.second[n] != v.best[n] else None,
                distance=float(v.distance[n, v.best[n]]),
            )
            for n in range(len(refused))
        )

    def _refused(self, v: Verdict) -> Any:
        return v.strange & self.bank.refuses

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Choose when prompts are read; while an answer grows, whoever was chosen goes on."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        cache = cache_of(kwargs)
        if cache is not None and cache.get_seq_length() > 0:
            if self.cache is None or self.cache() is not cache:
                raise ValueError("this cache is not of the prompts that the bank read last: pass whole prompts")
            self._grow()
            return
        if ids is None:
            raise ValueError("a bank of experts reads tokens: pass input_ids, not inputs_embeds")
        if cache is not None or not self._continues(ids):
            self.verdict = self.read = None  # whoever was chosen goes, even if what follows is refused
            self.cache = None if cache is None else weakref.ref(cache)
            self.grown = 0
            counted = columns_that_count(kwargs.get("attention_mask"), ids)
            _fits(self.model, ids, counted)
            self._choose(ids, counted)
            self.read = ids
        else:
            self._grow()
        self.columns = ids.shape[1]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _after(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        """Know a cache again that the model made itself."""
        parts = out.values() if isinstance(out, Mapping) else out
        made = [part for part in parts if hasattr(part, "get_seq_length")]
        if made:
            self.cache = weakref.ref(made[0])

    def _grow(self) -> None:
        """Count the tokens of an answer; one that gets long is worth a copy of the weights with its expert in them."""
        self.grown += 1
        if not self.folds or self.grown != FOLD_AFTER:
            return
        alone = self._alone()
        if alone is None:
            return
        kept = self.fold
        if kept is None or not holds(kept, alone, self.slots):
            self.fold = kept = fold(alone, self.slots, self._own(alone), kept)
        self._fill(kept.held)

    def _alone(self) -> int | None:
        """The one expert that answers all rows, if there is one."""
        v = self.verdict
        if v is None or self._refused(v).any() or len(set(v.best.tolist())) > 1:
            return None
        return None if self.bank.soft and (v.weight < 1).any() else int(v.best[0])

    def _own(self, expert: int) -> dict[str, Adapter]:
        return {name: Adapter(layer.A[expert], layer.B[expert]) for name, layer in self._here().items()}

    def _continues(self, ids: Tensor) -> bool:
        """Whether an answer grows without a cache: one token more, after the prompts that were read."""
        if self.read is None or len(ids) != len(self.read) or ids.shape[1] != self.columns + 1:
            return False
        return torch.equal(ids[:, : self.read.shape[1]], self.read)

    def _choose(self, ids: Tensor, mask: Tensor | None) -> None:
        self._fill({name: None for name in self.slots})
        if self.known is None:
            first, ones = np.zeros(len(ids), dtype=int), np.ones(len(ids))
            self._settle(Verdict(first, first, ones, ones, np.zeros(len(ids), dtype=bool), np.zeros((len(ids), 1))))
        elif self.in_flight:
            self.share, self.seen = token_shares(ids, mask), {}
        else:
            self._judge(read_prompts(self.model, self.points, ids, mask))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _look(self, name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Collect what a prompt's own pass shows, and choose as soon as it is enough."""
        if self.share is None:
            return
        self.seen[name] = (args[0].detach().float() * self.share.to(args[0].device)).sum(1)
        if len(self.seen) == len(self.points):
            self.share = None
            self._judge(torch.cat([self.seen[n] for n in self.points], dim=1).cpu().numpy())

    def _judge(self, means: Array) -> None:
        assert self.known is not None
        self._settle(discriminate(sketch(means, self.widths, self.known.means.shape[1]), self.known))

    def _settle(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self._fill(self._held(verdict))

    def _fill(self, held: Mapping[str, Held]) -> None:
        for name, slot in self.slots.items():
            slot.held = held[name]

    def _held(self, v: Verdict) -> Mapping[str, Held]:
        """One adapter for all rows where they agree, else one a row."""
        refused = self._refused(v)
        weight = np.where(refused, 0.0, v.weight if self.bank.soft else 1.0)
        rest = np.where(refused | ~np.bool_(self.bank.soft), 0.0, 1 - v.weight)
        if refused.all():
            return dict.fromkeys(self.slots)
        alone = self._alone()
        if alone is not None:
            return self.fold.held if self.fold and holds(self.fold, alone, self.slots) else self._own(alone)
        parts = [(v.best, weight), (v.second, rest)][: 2 if rest.any() else 1]
        return {name: _rows(layer, parts) for name, layer in self._here().items()}

    def _here(self) -> dict[str, _Layer]:
        """The experts where the model is now and in its type; it may have moved since."""
        kind = next(self.model.parameters()).dtype
        for name, slot in self.slots.items():
            A, B = self.layers[name]
            self.layers[name] = _Layer(A.to(slot.base.weight.device, kind), B.to(slot.base.weight.device, kind))
        return self.layers


def _fits(model: nn.Module, ids: Tensor, counted: Tensor | None) -> None:
    """Whether prompts are within the model's context; what lies beyond it was never trained and answers nonsense."""
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    longest = ids.shape[1] if counted is None else int((counted > 0).sum(1).max())
    if context and longest > context:
        raise ValueError(
            f"a prompt of {longest} tokens exceeds the model's context of {context}; shorten it, e.g. "
            f"tokenizer(..., truncation=True, max_length={context // 2}), to leave room for an answer"
        )


def _base_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Weights under the names they had before the slots, so that the base model can still be saved."""
    for name in list(state):
        state[name.replace(".base.", ".")] = state.pop(name)


def _rows(layer: _Layer, parts: Sequence[tuple[Array, Array]]) -> Adapter:
    """An adapter a row: the ranks of its experts one after the other, their weights folded into B."""
    picked = [torch.from_numpy(index) for index, _ in parts]
    shares = [torch.from_numpy(share).to(layer.B)[:, None, None] for _, share in parts]
    return Adapter(
        A=torch.cat([layer.A[index] for index in picked], dim=1),
        B=torch.cat([share * layer.B[index] for index, share in zip(picked, shares, strict=True)], dim=2),
    )


def _sketches(portable: Portable) -> list[TaskSketch]:
    """Of all experts; a choice needs every one's."""
    told = [e.sketch for e in portable.bank.experts]
    lacking = [label for label, one in zip(portable.labels, told, strict=True) if one is None]
    if lacking:
        raise ValueError(f"expert {lacking[0]} has no task sketch, and this bank chooses by task sketch")
    return [one for one in told if one is not None]


def _layers(portable: Portable, model: nn.Module) -> list[_Layer]:
    """The experts' matrices per layer, where the model has all of these layers."""
    experts, layout, modules = portable.bank.experts, portable.layout, dict(model.named_modules())
    for name, *shape in layout.shapes:
        linear = modules.get(name)
        if not isinstance(linear, nn.Linear):
            found = "nothing" if linear is None else f"a layer of type {type(linear).__name__}"
            raise ValueError(f"the bank adapts the linear layer {name}, this model has {found} of that name")
        size = [linear.out_features, linear.in_features]
        if size != shape:
            raise ValueError(f"layer {name} of this model is {size[0]} x {size[1]}, the bank's {shape[0]} x {shape[1]}")
    a = [matrices_a(np.float32(portable.scaling) * e.A, layout) for e in experts]
    b = [matrices_b(e.B, layout) for e in experts]
    stacks = [[np.stack(m) for m in zip(*factor, strict=True)] for factor in (a, b)]
    return [_Layer(torch.from_numpy(A), torch.from_numpy(B)) for A, B in zip(*stacks, strict=True)]
