"""Banks on disk: what comes back, what it takes, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save

from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.adapters.projection import projection
from orthomesh.experts.sketch import pack, task_sketch, unpack
from orthomesh.models.bank_io import FILES, Portable, load_bank, memory_bytes, save_bank, stored_bytes
from orthomesh.types import Bank, Expert

JSON, TENSORS = FILES
PAIR = Layout((Shape("deep.q_proj", 4, 3), Shape("deep.down_proj", 3, 5)), 2)  # 14 entries of B, 16 of A
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]


def expansion(*places: int, value: float = 1.0) -> np.ndarray:
    """Active at some places: `value` times one more than the place."""
    B = np.zeros(14, dtype=np.float32)
    B[list(places)] = value * (1 + np.array(places))
    return B


def seeded(owner: int, B: np.ndarray, **told: Any) -> Expert:
    return Expert(owner=owner, A=projection(owner, PAIR), B=B, seed=owner, kind="orthonormal", **told)


def portable(*experts: Expert, **rules: Any) -> Portable:
    return Portable(
        bank=Bank(experts=experts, **rules),
        labels=tuple(f"task {e.owner}" for e in experts),
        layout=PAIR,
        scaling=2.0,
        base_model="somewhere/small",
        fingerprint="ab" * 32,
    )


def three() -> Portable:
    """Experts of a joined expansion, with all that can be stored of them; the last one was imported."""
    points = np.random.default_rng(0).standard_normal((20, 5))
    first = seeded(3, expansion(0, 1, 5), sketch=unpack(pack(task_sketch(points))))
    second = seeded(2**64 - 1, expansion(5, 13), code=np.array([1.0, -2.5], dtype=np.float32))
    last = Expert(owner=7, A=np.arange(16, dtype=np.float32) / 7, B=expansion(2))
    return portable(first, replace(second, owner=4), last, choice="discriminant", blocks=2, soft=True, refuses=True)


def digest(note: bytes, arrays: Mapping[str, np.ndarray]) -> str:
    """As the code has it, so that a changed bank looks like one that was written so."""
    total = hashlib.sha256(note)
    for name in sorted(arrays):
        total.update(f"|{name}|{arrays[name].dtype.str}|{arrays[name].shape}|".encode() + arrays[name].tobytes())
    return total.hexdigest()


def rewritten(place: Path, change: Change) -> Path:
    """A bank changed by somebody who knows how to sign it."""
    note, arrays = json.loads((place / JSON).read_text()), load_file(place / TENSORS)
    change(note, arrays)
    raw = json.dumps(note).encode()
    (place / JSON).write_bytes(raw)
    (place / TENSORS).write_bytes(save(arrays, metadata={"sha256": digest(raw, arrays)}))
    return place


def same(one: Portable, other: Portable) -> None:
    """All equal, numbers bit for bit."""
    assert (one.labels, one.layout, one.scaling) == (other.labels, other.layout, other.scaling)
    assert (one.base_model, one.fingerprint) == (other.base_model, other.fingerprint)
    assert replace(one.bank, experts=()) == replace(other.bank, experts=())
    for a, b in zip(one.bank.experts, other.bank.experts, strict=True):
        assert (a.owner, a.seed, a.kind) == (b.owner, b.seed, b.kind)
        assert (a.code is None, a.sketch is None) == (b.code is None, b.sketch is None)
        parts = [(a.A, b.A), (a.B, b.B), (a.code, b.code)]
        if a.sketch is not None and b.sketch is not None:
            parts += [(a.sketch.mean, b.sketch.mean), (a.sketch.covariance, b.sketch.covariance)]
            assert a.sketch.reach == b.sketch.reach
        for x, y in parts:
            np.testing.assert_array_equal(x, y)
            assert x is None or y is None or x.dtype == y.dtype == np.float32


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_bank(tmp_path / "bank", three())
    return tmp_path / "bank"


# example


def test_sizes_on_paper(tmp_path: Path) -> None:
    # 14 mask bits are 2 bytes; places 0, 1, 2, 5 and 13 are held by somebody, each value once in 16 bit; one
    # projection is whole, 16 numbers of 4 bytes; a sketch of 5 numbers has 21 of 2 bytes, the task code has 2
    expected = {"values": 10, "masks": 6, "projections": 64, "choice": 42 + 4}
    assert save_bank(tmp_path, three()) == expected
    assert stored_bytes(load_file(tmp_path / TENSORS)) == expected
    assert memory_bytes(three()) == {"experts": 3, "stored_bytes": 126, "dense_bytes": 3 * 4 * (16 + 14)}
    assert sorted(load_file(tmp_path / TENSORS)) == [
        "0/mask", "0/sketch", "1/code", "1/mask", "2/A", "2/mask", "all/values",
    ]  # fmt: skip
    assert load_file(tmp_path / TENSORS)["all/values"].tolist() == [1, 2, 3, 6, 14]


def test_what_does_not_agree_is_stored_whole(tmp_path: Path) -> None:
    bank = portable(seeded(0, expansion(0, 1, 5)), seeded(1, expansion(5, 13, value=2)))  # they disagree on 5
    assert save_bank(tmp_path, bank) == {"values": 2 * 5, "masks": 4, "projections": 0, "choice": 0}
    arrays = load_file(tmp_path / TENSORS)
    assert (arrays["0/values"].tolist(), arrays["1/values"].tolist()) == ([1, 2, 6], [12, 28])
    same(load_bank(tmp_path), bank)


def test_values_keep_their_bits(tmp_path: Path) -> None:
    fine = portable(seeded(0, expansion(0, 1, value=1 / 3)))  # no 16-bit number
    assert save_bank(tmp_path, fine)["values"] == 8
    same(load_bank(tmp_path), fine)
    for value in (2.0**-24, 65504.0):
        bank = portable(seeded(0, expansion(0, value=value)))
        assert save_bank(tmp_path, bank)["values"] == 2
        same(load_bank(tmp_path), bank)
    for value in (2.0**-25, 65536.0):  # below and beyond 16 bit
        bank = portable(seeded(0, expansion(0, value=value)))
        assert save_bank(tmp_path, bank)["values"] == 4
        same(load_bank(tmp_path), bank)


# reference


def test_a_bank_comes_back(saved: Path) -> None:
    same(load_bank(saved), three())
    assert sorted(path.name for path in saved.iterdir()) == [JSON, TENSORS]
    with safe_open(saved / TENSORS, framework="numpy") as file:
        assert file.metadata() == {"sha256": digest((saved / JSON).read_bytes(), load_file(saved / TENSORS))}


def test_biases_of_ranks_come_back(tmp_path: Path) -> None:
    bias = np.linspace(-1, 1, three().layout.rank * len(three().layout.shapes)).astype(np.float32)
    biased = replace(seeded(0, expansion(0)), bias=bias)
    assert save_bank(tmp_path, portable(biased, seeded(1, expansion(0))))["choice"] == bias.nbytes
    first, second = load_bank(tmp_path).bank.experts
    np.testing.assert_array_equal(first.bias, bias)
    assert second.bias is None
    place = rewritten(tmp_path, lambda _, arrays: arrays.update({"0/bias": arrays["0/bias"][1:]}))
    with pytest.raises(ValueError, match="biases of expert 0 do not fit"):
        load_bank(place)


def test_nothing_in_it_can_be_executed(saved: Path) -> None:
    raw = (saved / TENSORS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])  # a size, JSON, and numbers: that is all there is to safetensors
    held = sum(last - first for first, last in (v["data_offsets"] for k, v in header.items() if k != "__metadata__"))
    assert len(raw) == 8 + size + held
    assert json.loads((saved / JSON).read_text())["schema"] == "orthomesh bank 1"


def test_a_second_bank_replaces_the_first(saved: Path) -> None:
    other = portable(seeded(9, expansion(4)))
    save_bank(saved, other)
    same(load_bank(saved), other)
    save_bank(saved, other)
    same(load_bank(saved), other)


def test_files_of_two_banks_do_not_go_together(saved: Path, tmp_path: Path) -> None:
    seeds = three()
    moved = replace(seeds.bank.experts[0], seed=5, A=projection(5, PAIR))  # nothing but a seed differs
    save_bank(tmp_path / "other", replace(seeds, bank=replace(seeds.bank, experts=(moved, *seeds.bank.experts[1:]))))
    assert load_file(saved / TENSORS).keys() == load_file(tmp_path / "other" / TENSORS).keys()
    (saved / JSON).write_bytes((tmp_path / "other" / JSON).read_bytes())  # as a writer leaves it that is stopped midway
    with pytest.raises(ValueError, match="altered or half replaced since it was written: its SHA-256 does not match"):
        load_bank(saved)


# law


rules = st.fixed_dictionaries(
    {
        "choice": st.sampled_from(["only", "discriminant", "nearest", "topk", "norm", "arrow"]),
        "blocks": st.integers(0, 3),
        "soft": st.booleans(),
        "refuses": st.booleans(),
        "top_k": st.integers(0, 3),
        "scope": st.sampled_from(["joint", "expert", "signed"]),
        "gated": st.booleans(),
    }
)
kinds = st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.booleans(), st.booleans(), st.booleans())


def made(seed: int, exact: bool, agree: bool, experts: list[tuple[float, bool, bool, bool]]) -> list[Expert]:
    """Experts on two layers: agreeing on their values or not, seeded or whole, with sketch and code or without."""
    rng, found = np.random.default_rng(seed), []
    joined = rng.standard_normal(14).astype(np.float32 if exact else np.float16)
    for owner, (density, whole, sketched, coded) in enumerate(experts):
        values = joined if agree else rng.standard_normal(14)
        B = (values * (rng.random(14) < density)).astype(np.float32)
        told = unpack(pack(task_sketch(rng.standard_normal((9, 3))))) if sketched else None
        code = rng.standard_normal(4).astype(np.float16).astype(np.float32) if coded else None
        one = seeded(owner, B, sketch=told, code=code)
        found.append(replace(one, A=one.A + np.float32(0.1), seed=None, kind=None) if whole else one)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("banks")


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.lists(kinds, max_size=4), rules)
def test_every_bank_comes_back(
    place: Path, seed: int, exact: bool, agree: bool, experts: list[tuple[float, bool, bool, bool]], told: Any
) -> None:
    bank = portable(*made(seed, exact, agree, experts), **told)
    sizes = save_bank(place, bank)
    same(load_bank(place), bank)
    assert sum(sizes.values()) == sum(array.nbytes for array in load_file(place / TENSORS).values())
    assert memory_bytes(bank)["stored_bytes"] == sum(sizes.values())


@settings(max_examples=30)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_no_number_can_change(place: Path, name: str, where: float, by: int, cut: bool) -> None:
    save_bank(place, three())
    raw = bytearray((place / name).read_bytes())
    at = int(where * len(raw))
    raw[at:] = b"" if cut else bytes([raw[at] ^ by]) + raw[at + 1 :]
    (place / name).write_bytes(raw)
    try:
        found = load_bank(place)
    except ValueError:
        return
    assert (name, cut) == (TENSORS, False)  # a space that fills up the header of the tensors may become another one
    same(found, three())


# edge


def test_a_bank_of_one_and_of_none(tmp_path: Path) -> None:
    for bank in (portable(seeded(0, expansion(3))), portable(seeded(0, expansion())), portable()):
        save_bank(tmp_path, bank)
        same(load_bank(tmp_path), bank)
    silent = portable(seeded(0, expansion()), seeded(1, expansion(2)))
    save_bank(tmp_path, silent)
    same(load_bank(tmp_path), silent)


def test_no_bank(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no bank of experts: bank.json cannot be read \(.*No such file"):
        load_bank(tmp_path / "nowhere")
    for junk in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / JSON).write_bytes(junk)
        with pytest.raises(ValueError, match=r"is no bank of experts: bank.json cannot be read"):
            load_bank(tmp_path)
    for other, found in ((b"[]", "'list'"), (b"{}", "None"), (b'{"schema": "orthomesh bank 2"}', "'orthomesh bank 2'")):
        (tmp_path / JSON).write_bytes(other)
        with pytest.raises(ValueError, match=f"is of version {found}, this code reads 'orthomesh bank 1'"):
            load_bank(tmp_path)


def test_tensors_that_cannot_be_read(saved: Path) -> None:
    raw = (saved / TENSORS).read_bytes()
    for junk in (b"", raw[:40], raw[:-1], b"\xff" * 100):
        (saved / TENSORS).write_bytes(junk)
        with pytest.raises(ValueError, match=r"bank.safetensors cannot be read, it may be truncated"):
            load_bank(saved)
    (saved / TENSORS).unlink()
    with pytest.raises(ValueError, match=r"bank.safetensors cannot be read"):
        load_bank(saved)
    from safetensors.torch import save as save_torch
    from torch import bfloat16, ones

    (saved / TENSORS).write_bytes(save_torch({"0/values": ones(3, dtype=bfloat16)}))
    with pytest.raises(ValueError, match="holds a type that NumPy does not know"):
        load_bank(saved)
    (saved / TENSORS).write_bytes(save({"0/values": np.ones(3, np.float16)}))  # without a digest
    with pytest.raises(ValueError, match="its SHA-256 does not match"):
        load_bank(saved)


def put(name: str, array: np.ndarray) -> Change:
    return lambda _, arrays: arrays.update({name: array})


def lose(name: str) -> Change:
    return lambda _, arrays: arrays.pop(name)


def note(path: str, value: Any) -> Change:
    """Another value at a place in bank.json."""

    def change(told: dict[str, Any], _: dict[str, np.ndarray]) -> None:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = told
        for step in steps:
            place = place[step]
        place[last] = value

    return change


def unnote(name: str) -> Change:
    return lambda told, _: told.pop(name)


half = np.float16
SPOILT: list[tuple[Change, str]] = [
    (put("all/values", np.array([1, 2, np.nan, 6, 14], half)), "all/values holds values that are not finite"),
    (put("2/A", np.full(16, np.inf, np.float32)), "2/A holds values that are not finite"),
    (put("1/code", np.array([np.nan, 0], half)), "1/code holds values that are not finite"),
    (put("0/sketch", np.full(21, np.inf, half)), "0/sketch holds values that are not finite"),
    (put("0/mask", np.zeros(2, np.int8)), r"0/mask must be a row of uint8, it is int8 of shape \(2,\)"),
    (put("all/values", np.ones(5)), "all/values must be a row of float16 or float32, it is float64"),
    (put("2/A", np.ones(16, half)), "2/A must be a row of float32, it is float16"),
    (put("1/code", np.ones(2, np.float32)), "1/code must be a row of float16, it is float32"),
    (put("0/sketch", np.ones(21, np.float32)), "0/sketch must be a row of float16, it is float32"),
    (put("2/A", np.ones((2, 8), np.float32)), r"2/A must be a row of float32, it is float32 of shape \(2, 8\)"),
    (put("0/mask", np.zeros(3, np.uint8)), "the mask of expert 0 has 3 bytes, 14 bits belong there"),
    (put("0/mask", np.full(2, 255, np.uint8)), "5 values of expert 0 do not fit a support of 14"),
    (put("all/values", np.ones(6, half)), "6 values of expert 0 do not fit a support of 5"),
    (put("2/A", np.ones(15, np.float32)), "A of expert 2 has 15 numbers, the layers need 16"),
    (put("0/sketch", np.ones(20, half)), r"expert 0: numbers of shape \(20,\) are no task sketch"),
    (put("0/sketch", -np.ones(21, half)), "expert 0: a task sketch holds a variance or a reach below zero"),
    (put("3/mask", np.zeros(2, np.uint8)), "holds 3/mask, which belongs to none of its 3 experts"),
    (put("extra", np.zeros(2, np.uint8)), "holds extra, which belongs to none"),
    (lose("0/mask"), "lacks 0/mask"),
    (lose("all/values"), "lacks all/values"),
    (lose("2/A"), "lacks 2/A"),
    (note("form", "whole"), "lacks 0/values"),
    (note("form", "half"), "bank.json.form"),
    (note("experts.2.seed", 3), "bank.json.experts.2: a projection drawn from a seed needs its kind"),
    (note("experts.0.seed", None), "lacks 0/A"),
    (note("experts.0.seed", 3.5), "bank.json.experts.0.seed: input should be a valid integer"),
    (note("experts.0.seed", -1), "bank.json.experts.0.seed: input should be greater than or equal to 0"),
    (note("experts.0.seed", 2**64), "bank.json.experts.0.seed: input should be less than"),
    (note("experts.0.kind", "dense"), "bank.json.experts.0.kind: input should be 'orthonormal'"),
    (note("experts.0.colour", "red"), "bank.json.experts.0.colour: there is no such setting"),
    (note("experts", {}), "bank.json.experts: input should be a valid tuple"),
    (note("layers", []), "an adapter needs at least one linear layer"),
    (note("layers.0.0", "deep.down_proj"), "a layer is named twice among deep.down_proj, deep.down_proj"),
    (note("layers.0", ["deep.q_proj", 4]), "bank.json.layers.0.2: field required"),
    (note("layers.0.1", 0), "bank.json.layers.0.1: input should be greater than or equal to 1"),
    (note("layers.0.1", 40), "the mask of expert 0 has 2 bytes, 86 bits belong there"),
    (note("layers.0.2", 30), "A of expert 2 has 16 numbers"),
    (note("rank", 9), "rank 9 exceeds layer deep.q_proj of 4 x 3"),
    (note("rank", 0), "bank.json.rank: input should be greater than or equal to 1"),
    (note("rank", "many"), "bank.json.rank: input should be a valid integer"),
    (note("scaling", float("nan")), "bank.json.scaling: input should be a finite number"),
    (note("scaling", -2), "bank.json.scaling: input should be greater than 0"),
    (note("rules.choice", "best"), "bank.json.rules.choice: input should be 'only'"),
    (note("rules.blocks", -1), "bank.json.rules.blocks: input should be greater than or equal to 0"),
    (note("rules.soft", "perhaps"), "bank.json.rules.soft: input should be a valid boolean"),
    (unnote("fingerprint"), "bank.json.fingerprint: field required"),
    (unnote("rules"), "bank.json.rules: field required"),
]


@pytest.mark.parametrize(("change", "words"), SPOILT, ids=[words for _, words in SPOILT])
def test_what_does_not_fit_is_refused(saved: Path, change: Change, words: str) -> None:
    rewritten(saved, lambda *_: None)
    same(load_bank(saved), three())  # the digest is right
    with pytest.raises(ValueError, match=words) as caught:
        load_bank(rewritten(saved, change))
    assert str(caught.value).startswith(f"bank {saved}")


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    good = three()
    for n, change, name in (
        (0, {"B": np.where(expansion(0) > 0, np.float32(np.nan), np.float32(0))}, "0/values"),
        (1, {"code": np.array([1e5], dtype=np.float32)}, "1/code"),
        (2, {"A": np.full(16, np.inf, dtype=np.float32)}, "2/A"),
    ):
        experts = list(good.bank.experts)
        experts[n] = replace(experts[n], **change)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"part {name} of a bank holds values that are not finite, or that 16 bit"):
            save_bank(tmp_path / "bank", replace(good, bank=replace(good.bank, experts=tuple(experts))))
    with pytest.raises(ValueError, match=r"bank\.scaling: input should be a finite number"):
        save_bank(tmp_path / "bank", replace(good, scaling=float("inf")))
    assert not (tmp_path / "bank").exists()


def test_parts_that_do_not_belong_together() -> None:
    good = three()
    with pytest.raises(ValueError, match="3 experts need as many labels, got 2"):
        replace(good, labels=("one", "two"))
    with pytest.raises(ValueError, match=r"expert task 3 has 16 and 14 numbers, its layers need \(6, 8\)"):
        replace(good, layout=Layout(PAIR.shapes[:1], 2))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        save_bank(tmp_path / "file", three())
