"""A bank of experts on disk: safetensors for the numbers, JSON for the rest; nothing that could be executed.

An expert is stored as the bits of its mask and its active values; its projection as the seed it was drawn from, or
whole where it came from elsewhere. Where experts that share a position agree on its value, as they do in a bank read
from a joined expansion (24), values are stored once for all (`union`); else each expert has its own (`whole`). Task
codes and sketches are in 16 bit, as they travel. One SHA-256 covers both files, so that neither goes with another's
counterpart.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..adapters.lowrank import Layout, Shape
from ..adapters.projection import Kind, projection
from ..config import STRICT, parse
from ..experts.sketch import pack, unpack
from ..types import Array, Bank, Choice, Expert, TaskSketch

SCHEMA = "orthomesh bank 1"
FILES = ("bank.json", "bank.safetensors")
KINDS = {
    "mask": ("uint8",),
    "values": ("float16", "float32"),
    "A": ("float32",),
    "code": ("float16",),
    "sketch": ("float16",),
    "bias": ("float32",),
}
"""Types of the parts of a stored bank."""
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Portable:
    """A bank with what it takes to put it on a model again.

    labels: what each expert is called, in their order. base_model: name or directory of the model it was trained on.
    fingerprint: of that model's weights (`fingerprint`).
    """

    bank: Bank
    labels: tuple[str, ...]
    layout: Layout
    scaling: float
    base_model: str
    fingerprint: str

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.bank.experts):
            raise ValueError(f"{len(self.bank.experts)} experts need as many labels, got {len(self.labels)}")
        wanted = (self.layout.num_projection, self.layout.num_expansion)
        for e, label in zip(self.bank.experts, self.labels, strict=True):
            if e.weights is not None:
                raise ValueError(f"expert {label} changes every weight of the base; a bank holds adapters only")
            if e.beside is not None:
                raise ValueError(f"expert {label} is weighed by a trained mixer, for which a bank has no place")
            if (e.A.size, e.B.size) != wanted:
                raise ValueError(f"expert {label} has {e.A.size} and {e.B.size} numbers, its layers need {wanted}")


@checked(frozen=True, kw_only=True, config=STRICT)
class _Rules:
    """How a prompt finds its expert, as in `Bank`."""

    choice: Choice
    blocks: Count
    soft: bool
    refuses: bool
    top_k: Count
    scope: Literal["joint", "expert", "signed"]
    gated: bool


@checked(frozen=True, kw_only=True, config=STRICT)
class _Row:
    """One expert; its projection lies in the other file where it has no seed."""

    owner: int
    label: str
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None
    kind: Kind | None

    def __post_init__(self) -> None:
        if self.seed is not None and self.kind is None:
            raise ValueError("a projection drawn from a seed needs its kind")


@checked(frozen=True, kw_only=True, config=STRICT)
class _Note:
    """What bank.json holds."""

    schema: str
    base_model: str
    fingerprint: str
    rank: Size
    scaling: Annotated[float, Field(gt=0)]
    layers: tuple[tuple[str, Size, Size], ...]
    rules: _Rules
    form: Literal["union", "whole"]
    experts: tuple[_Row, ...]


class _Parts(NamedTuple):
    """What bank.safetensors holds, for which layers, and what to call the bank."""

    arrays: Mapping[str, Array]
    layout: Layout
    where: str


def save_bank(directory: Path, portable: Portable) -> dict[str, int]:
    """Write a bank; files that were there are replaced one by one, each whole.

    Args:
        directory: made if it is missing.
        portable: the bank.

    Returns:
        Bytes by purpose: values, masks, projections, choice.

    Raises:
        OSError: nothing can be written.
        ValueError: numbers that are not finite, or that 16 bit cannot hold.
    """
    arrays, form = _arrays(portable.bank.experts)
    unfit = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if unfit:
        raise ValueError(f"part {unfit[0]} of a bank holds values that are not finite, or that 16 bit cannot hold")
    note = json.dumps(asdict(_note_of(portable, form)), indent=1).encode()
    data = save(arrays, metadata={"sha256": _digest(note, arrays)})
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in zip(FILES, (note, data), strict=True):
        attempt = directory / f".{name}.new"
        attempt.write_bytes(content)
        os.replace(attempt, directory / name)
    return stored_bytes(arrays)


def _note_of(portable: Portable, form: str) -> _Note:
    rows = zip(portable.bank.experts, portable.labels, strict=True)
    plain = {
        "schema": SCHEMA,
        "base_model": portable.base_model,
        "fingerprint": portable.fingerprint,
        "rank": portable.layout.rank,
        "scaling": portable.scaling,
        "layers": [tuple(shape) for shape in portable.layout.shapes],
        "rules": {rule.name: getattr(portable.bank, rule.name) for rule in fields(_Rules)},
        "form": form,
        "experts": [{"owner": e.owner, "label": label, "seed": e.seed, "kind": e.kind} for e, label in rows],
    }
    return parse(_Note, plain, "bank")


def stored_bytes(arrays: Mapping[str, Array]) -> dict[str, int]:
    """What the parts of a stored bank take, in bytes."""
    purpose = {
        "values": "values",
        "mask": "masks",
        "A": "projections",
        "code": "choice",
        "sketch": "choice",
        "bias": "choice",
    }
    total = dict.fromkeys(("values", "masks", "projections", "choice"), 0)
    for name, array in arrays.items():
        total[purpose[name.split("/")[1]]] += array.nbytes
    return total


def _arrays(experts: Sequence[Expert]) -> tuple[dict[str, Array], str]:
    """Named arrays of a bank, and whether values are stored once for all."""
    arrays: dict[str, Array] = {}
    for n, e in enumerate(experts):
        arrays |= {f"{n}/{part}": array for part, array in _parts(e).items()}
    joined = np.zeros_like(experts[0].B) if experts else np.zeros(0, dtype=np.float32)
    for e in experts:
        joined = np.where(e.B != 0, e.B, joined)
    if all(np.array_equal(np.where(e.B != 0, joined, 0), e.B) for e in experts):
        arrays["all/values"] = _shortest(joined[joined != 0])
        return arrays, "union"
    for n, e in enumerate(experts):
        arrays[f"{n}/values"] = _shortest(e.B[e.B != 0])
    return arrays, "whole"


def _parts(e: Expert) -> dict[str, Array]:
    """All of an expert but its values."""
    parts = {"mask": np.packbits(e.B != 0)}
    if e.seed is None:
        parts["A"] = e.A.astype(np.float32)
    if e.code is not None:
        with np.errstate(over="ignore"):
            parts["code"] = e.code.astype(np.float16)
    if e.sketch is not None:
        parts["sketch"] = pack(e.sketch)
    if e.bias is not None:
        parts["bias"] = e.bias.astype(np.float32)
    return parts


def _shortest(values: Array) -> Array:
    """16 bit where that loses nothing."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float16)
    return short if np.array_equal(short.astype(np.float32), values) else values.astype(np.float32)


def _digest(note: bytes, arrays: Mapping[str, Array]) -> str:
    total = hashlib.sha256(note)
    for name in sorted(arrays):
        total.update(f"|{name}|{arrays[name].dtype.str}|{arrays[name].shape}|".encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def load_bank(directory: Path) -> Portable:
    """Read a bank back, checking every part.

    Args:
        directory: written by `save_bank`.

    Returns:
        The bank.

    Raises:
        ValueError: no bank, another version, truncated, altered, of wrong types or sizes, or not finite.
    """
    where = f"bank {directory}"
    note, arrays = _read(directory, where)
    try:
        layout = Layout(tuple(Shape(*layer) for layer in note.layers), note.rank)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if len(set(layout.names)) < len(layout.names):
        raise ValueError(f"{where}: a layer is named twice among {', '.join(layout.names)}")
    parts, count = _Parts(arrays, layout, where), range(len(note.experts))
    stray = sorted(arrays.keys() - {f"{n}/{part}" for n in count for part in KINDS} - {"all/values"})
    if stray:
        raise ValueError(f"{where} holds {stray[0]}, which belongs to none of its {len(count)} experts")
    masks = [_mask(parts, n) for n in count]
    joint = np.logical_or.reduce(masks) if note.form == "union" and masks else None
    experts = [_expert(parts, n, row, masks[n], joint) for n, row in enumerate(note.experts)]
    return Portable(
        bank=Bank(experts=tuple(experts), **asdict(note.rules)),
        labels=tuple(row.label for row in note.experts),
        layout=layout,
        scaling=note.scaling,
        base_model=note.base_model,
        fingerprint=note.fingerprint,
    )


def _read(directory: Path, where: str) -> tuple[_Note, dict[str, Array]]:
    """Both files, if they belong together."""
    try:
        raw = (directory / FILES[0]).read_bytes()
        note = json.loads(raw.decode())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{directory} is no bank of experts: {FILES[0]} cannot be read ({error})") from None
    found = note.get("schema") if isinstance(note, dict) else type(note).__name__
    if found != SCHEMA:
        raise ValueError(f"{where} is of version {found!r}, this code reads {SCHEMA!r}")
    try:
        with safe_open(directory / FILES[1], framework="numpy") as file:
            told = (file.metadata() or {}).get("sha256")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{where}: {FILES[1]} cannot be read, it may be truncated: {error}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {FILES[1]} holds a type that NumPy does not know: {error}") from None
    if told != _digest(raw, arrays):
        raise ValueError(f"{where} was altered or half replaced since it was written: its SHA-256 does not match")
    return parse(_Note, note, f"{where}: {FILES[0]}"), arrays


def _part(parts: _Parts, name: str) -> Array:
    """An array of the right type, in one row, finite."""
    if name not in parts.arrays:
        raise ValueError(f"{parts.where} lacks {name}")
    array, wanted = parts.arrays[name], KINDS[name.split("/")[1]]
    if array.dtype.name not in wanted or array.ndim != 1:
        found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{parts.where}: {name} must be a row of {' or '.join(wanted)}, it is {found}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{parts.where}: {name} holds values that are not finite")
    return array


def _mask(parts: _Parts, n: int) -> Array:
    bits, num = _part(parts, f"{n}/mask"), parts.layout.num_expansion
    if bits.size != -(-num // 8):
        raise ValueError(f"{parts.where}: the mask of expert {n} has {bits.size} bytes, {num} bits belong there")
    return np.unpackbits(bits, count=num).astype(bool)


def _expert(parts: _Parts, n: int, row: _Row, mask: Array, joint: Array | None) -> Expert:
    """One expert; `joint` is the support of all where values are stored once."""
    support = mask if joint is None else joint
    values = _part(parts, f"{n}/values" if joint is None else "all/values")
    if values.size != support.sum():
        raise ValueError(f"{parts.where}: {values.size} values of expert {n} do not fit a support of {support.sum()}")
    B = np.zeros(parts.layout.num_expansion, dtype=np.float32)
    B[support] = values
    B[~mask] = 0
    if row.seed is None or row.kind is None:
        A = _part(parts, f"{n}/A")
    else:
        A = projection(row.seed, parts.layout, row.kind)
    needed = parts.layout.num_projection
    if A.size != needed:
        raise ValueError(f"{parts.where}: A of expert {n} has {A.size} numbers, the layers need {needed}")
    code = _part(parts, f"{n}/code").astype(np.float32) if f"{n}/code" in parts.arrays else None
    told = Expert(owner=row.owner, A=A, B=B, code=code, sketch=_sketch(parts, n), seed=row.seed, kind=row.kind)
    return replace(told, bias=_bias(parts, n)) if f"{n}/bias" in parts.arrays else told


def _bias(parts: _Parts, n: int) -> Array:
    bias, needed = _part(parts, f"{n}/bias"), len(parts.layout.shapes) * parts.layout.rank
    if bias.size != needed:
        raise ValueError(f"{parts.where}: {bias.size} biases of expert {n} do not fit its {needed} ranks")
    return bias


def _sketch(parts: _Parts, n: int) -> TaskSketch | None:
    if f"{n}/sketch" not in parts.arrays:
        return None
    try:
        return unpack(_part(parts, f"{n}/sketch"))
    except ValueError as error:
        raise ValueError(f"{parts.where}: expert {n}: {error}") from None


def memory_bytes(portable: Portable) -> dict[str, int]:
    """What a bank takes: stored, dense in memory as 32 bit, and how many experts.

    Returns:
        `experts`, `stored_bytes`, `dense_bytes`.
    """
    arrays, _ = _arrays(portable.bank.experts)
    dense = sum(e.A.nbytes + e.B.nbytes for e in portable.bank.experts)
    stored = sum(stored_bytes(arrays).values())
    return {"experts": len(portable.bank.experts), "stored_bytes": stored, "dense_bytes": dense}
