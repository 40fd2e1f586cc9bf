"""Checkpoints out and in; PEFT is the reference for what a checkpoint answers."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.models.base import Base
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import holding
from orthomesh.models.peft_io import export_peft, import_peft
from orthomesh.models.settings import TINY
from orthomesh.types import Expert

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks the old way

IDS = torch.tensor([[5, 60, 17, 200, 33], [9, 9, 250, 4, 71]])
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PAIR = Layout((Shape("deep.q_proj", 4, 3), Shape("deep.down_proj", 3, 5)), 2)
Q_A = "base_model.model.deep.q_proj.lora_A.weight"
Q_B = "base_model.model.deep.q_proj.lora_B.weight"


def expert(layout: Layout, seed: int, size: float = 0.1) -> Expert:
    """A seeded projection, and an expansion of which half is active."""
    rng = np.random.default_rng(seed)
    b = size * rng.standard_normal(layout.num_expansion) * (rng.random(layout.num_expansion) < 0.5)
    return Expert(owner=seed, A=projection(seed, layout), B=b.astype(np.float32))


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    out: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return out


def plain() -> nn.Module:
    """The embedded model as anybody loads it."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    return model


def reloaded(directory: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(plain(), directory).eval()


def adapted_by(peft_model: nn.Module) -> list[str]:
    """Layers that PEFT put an adapter on, by their names in the base model."""
    names = [n for n, _ in peft_model.named_modules() if n.endswith(".lora_A")]
    return [n.removeprefix("base_model.model.").removesuffix(".lora_A") for n in names]


def test_one_checkpoint_of_two_experts_on_paper(tmp_path: Path) -> None:
    layout = Layout((Shape("f", 2, 3),), 1)
    one = Expert(owner=0, A=np.float32([1, 2, 3]), B=np.float32([4, 0]))
    two = Expert(owner=1, A=np.float32([5, 6, 7]), B=np.float32([8, 9]))
    export_peft([one, two], layout, 1.5, "owner/base", tmp_path, weights=[2.0, 0.5])
    tensors = load_file(tmp_path / WEIGHTS)
    assert tensors["base_model.model.f.lora_A.weight"].tolist() == [[1, 2, 3], [5, 6, 7]]
    assert tensors["base_model.model.f.lora_B.weight"].tolist() == [[8, 4], [0, 4.5]]
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 3, ["f"])
    assert config["base_model_name_or_path"] == "owner/base"
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_peft_answers_as_we_do(embedded: Base, tmp_path: Path) -> None:
    mine = expert(embedded.layout, 3)
    export_peft([mine], embedded.layout, embedded.scaling, str(TINY), tmp_path)
    with holding(embedded.slots, adapters(embedded, mine.A, mine.B)):
        expected = logits(embedded.model)
    assert (expected - logits(embedded.model)).abs().max() > 0.1  # the expert does something
    torch.testing.assert_close(logits(reloaded(tmp_path)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, [0.5, -1.0, 2.0]])
def test_a_group_is_the_weighted_sum_of_its_updates(
    embedded: Base, tmp_path: Path, weights: list[float] | None
) -> None:
    group, layout = [expert(embedded.layout, seed) for seed in (1, 2, 3)], embedded.layout
    export_peft(group, layout, 0.7, str(TINY), tmp_path, weights)
    merged = plain()
    for e, w in zip(group, weights or [1.0, 1.0, 1.0], strict=True):
        for name, a, b in zip(layout.names, matrices_a(e.A, layout), matrices_b(e.B, layout), strict=True):
            merged.get_submodule(name).weight.data += 0.7 * w * torch.from_numpy(b @ a)
    torch.testing.assert_close(logits(reloaded(tmp_path)), logits(merged), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chosen", [slice(0, 7), slice(7, 8), slice(1, 21), slice(0, 21)])
def test_peft_adapts_the_layers_of_the_layout_and_no_other(embedded: Base, tmp_path: Path, chosen: slice) -> None:
    layout = Layout(embedded.layout.shapes[chosen], 4)
    mine = expert(layout, 0)
    export_peft([mine], layout, 2.0, str(TINY), tmp_path)
    theirs = reloaded(tmp_path)
    assert adapted_by(theirs) == list(layout.names)
    theirs.save_pretrained(tmp_path / "again")  # by PEFT, which may shorten the names
    back = import_peft(tmp_path / "again", layout, 2.0, str(TINY), owner=5)
    assert (back.A.tobytes(), back.B.tobytes()) == (mine.A.tobytes(), mine.B.tobytes())


@pytest.mark.parametrize(("alpha", "rslora"), [(32, False), (7, False), (12, True)])
def test_a_checkpoint_of_peft_answers_as_peft_does(embedded: Base, tmp_path: Path, alpha: int, rslora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=16, lora_alpha=alpha, use_rslora=rslora, target_modules="all-linear", lora_dropout=0.1,
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = get_peft_model(plain(), config).eval()
    theirs.save_pretrained(tmp_path)
    mine = import_peft(tmp_path, embedded.layout, embedded.scaling, str(TINY), owner=4)
    with holding(embedded.slots, adapters(embedded, mine.A, mine.B)):
        ours = logits(embedded.model)
    assert (ours - logits(embedded.model)).abs().max() > 0.1
    torch.testing.assert_close(ours, logits(theirs), atol=1e-4, rtol=1e-4)
    assert (mine.owner, mine.code, mine.A.dtype, mine.B.dtype) == (4, None, np.float32, np.float32)
    first = load_file(tmp_path / WEIGHTS)["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    factor = (alpha / 4 if rslora else alpha / 16) / 2.0
    assert matrices_b(mine.B, embedded.layout)[0].tolist() == (factor * first.double()).float().tolist()


shapes = st.lists(st.tuples(st.integers(3, 9), st.integers(3, 9)), min_size=1, max_size=4)


@given(shapes, st.integers(1, 3), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_out_and_in_again_is_the_same_expert(
    sides: list[tuple[int, int]], rank: int, scaling: float, seed: int
) -> None:
    layout = Layout(tuple(Shape(f"blocks.{n}.f", d, k) for n, (d, k) in enumerate(sides)), rank)
    mine = expert(layout, seed)
    with tempfile.TemporaryDirectory() as place:
        export_peft([mine], layout, scaling, "owner/base", Path(place))
        back = import_peft(Path(place), layout, scaling, "owner/base", owner=seed)
    assert (back.A.tobytes(), back.B.tobytes()) == (mine.A.tobytes(), mine.B.tobytes())


@given(shapes, st.lists(st.floats(-3, 3), min_size=1, max_size=4), st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_group_comes_in_as_one_expert_at_its_joint_rank(
    sides: list[tuple[int, int]], weights: list[float], scaling: float, other: float
) -> None:
    layout = Layout(tuple(Shape(f"f{n}", d + 2, k + 2) for n, (d, k) in enumerate(sides)), 1)
    joint = Layout(layout.shapes, len(weights))
    group = [expert(layout, seed, size=1.0) for seed in range(len(weights))]
    with tempfile.TemporaryDirectory() as place:
        export_peft(group, layout, scaling, "owner/base", Path(place), weights)
        back = import_peft(Path(place), joint, other, "owner/base", owner=0)
    for index, (a, b) in enumerate(zip(matrices_a(back.A, joint), matrices_b(back.B, joint), strict=True)):
        members = [(matrices_b(e.B, layout)[index], matrices_a(e.A, layout)[index]) for e in group]
        total = sum(w * x.astype(float) @ y for w, (x, y) in zip(weights, members, strict=True))
        np.testing.assert_allclose(other * (b.astype(float) @ a), scaling * total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_in_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    mine, wanted = good(tmp_path), load_file(tmp_path / WEIGHTS)
    save_file({name: t.to(dtype) for name, t in wanted.items()}, tmp_path / WEIGHTS)
    back = bring(tmp_path)
    assert back.A.dtype == back.B.dtype == np.float32
    assert back.A.tolist() == torch.from_numpy(mine.A).to(dtype).tolist()
    assert back.B.tolist() == torch.from_numpy(mine.B).to(dtype).tolist()


def test_a_base_model_is_the_same_under_another_spelling_of_its_directory(tmp_path: Path) -> None:
    model, named = tmp_path / "model", tmp_path / "link"
    model.mkdir()
    named.symlink_to(model)
    mine = expert(PAIR, 0)
    export_peft([mine], PAIR, 2.0, str(named), tmp_path / "out")
    back = import_peft(tmp_path / "out", PAIR, 2.0, f"{model}/", owner=0)
    assert back.B.tobytes() == mine.B.tobytes()
    with pytest.raises(ValueError, match=r"trained on base model '.*link', this run has 'owner/base'.*any_base"):
        import_peft(tmp_path / "out", PAIR, 2.0, "owner/base", owner=0)
    assert (
        import_peft(tmp_path / "out", PAIR, 2.0, "owner/base", owner=0, any_base=True).B.tobytes() == back.B.tobytes()
    )


def good(directory: Path) -> Expert:
    """A checkpoint with nothing wrong in it."""
    mine = expert(PAIR, 1)
    export_peft([mine], PAIR, 2.0, "owner/base", directory)
    return mine


def bring(directory: Path) -> Expert:
    return import_peft(directory, PAIR, 2.0, "owner/base", owner=0)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"base_model_name_or_path": "owner/other"}, "trained on base model 'owner/other', this run has 'owner/base'"),
        ({"base_model_name_or_path": None}, "trained on base model None, this run has 'owner/base'"),
        ({"revision": "v2"}, "revision 'v2' of 'owner/base', this run has 'main'"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', only 'LORA'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"r": 3}, "r is 3, the run's adapters have rank 2"),
        ({"r": 2.0}, "r is 2.0, the run's adapters have rank 2"),
        ({"r": None}, "r is None, the run's adapters have rank 2"),
        ({"lora_alpha": None}, "lora_alpha is None, expected a finite number"),
        ({"lora_alpha": True}, "lora_alpha is True, expected a finite number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, expected a finite number"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_alpha": 1e38, "use_rslora": True}, r"takes B beyond 32-bit floats"),
        ({"rank_pattern": {"q_proj": 4}}, r"rank_pattern is \{'q_proj': 4\}"),
        ({"alpha_pattern": {"q_proj": 4}}, r"alpha_pattern is \{'q_proj': 4\}"),
        ({"use_dora": True}, "use_dora is True"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"an_option_of_next_year": 1}, "an_option_of_next_year is 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_is_more_than_a_plain_adapter_is_refused(
    tmp_path: Path, entries: dict[str, Any], sentence: str
) -> None:
    good(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, **entries}))
    if "beyond" in sentence:
        save_file({n: 1e6 * t for n, t in load_file(tmp_path / WEIGHTS).items()}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=sentence):
        bring(tmp_path)


def test_every_option_of_peft_that_is_off_is_taken(tmp_path: Path) -> None:
    from peft import LoraConfig

    mine = good(tmp_path)
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=r".*_proj", lora_dropout=0.1, task_type="CAUSAL_LM",
        base_model_name_or_path="owner/base", init_lora_weights="gaussian",
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    assert bring(tmp_path).B.tobytes() == mine.B.tobytes()


Spoil = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda t: {n: x for n, x in t.items() if n != Q_B}, r"no lora_B of layer deep\.q_proj, which the run adapts"),
        (lambda t: {n: x for n, x in t.items() if "q_proj" not in n}, "has no lora_A of layer deep.q_proj"),
        (lambda t: {**t, Q_A.replace("q_", "v_"): t[Q_A]}, r"layer deep\.v_proj, the 2 of the run are deep\.q_proj"),
        (lambda t: {**t, Q_A.replace(".model.deep", ".model.model.deep"): t[Q_A]}, "layer model.deep.q_proj, the 2"),
        (lambda t: {**t, Q_A.removeprefix("base_model.model."): t[Q_A]}, "names lora_A of layer deep.q_proj twice"),
        (lambda t: {**t, Q_A: t[Q_A].T.contiguous()}, r"lora_A of layer .*q_proj is \[3, 2\], the run's is \[2, 3\]"),
        (lambda t: {**t, Q_B: t[Q_B].flatten()}, r"lora_B of layer deep.q_proj is \[8\], the run's is \[4, 2\]"),
        (lambda t: {**t, Q_A: t[Q_A] * float("nan")}, "q_proj.lora_A.weight holds values that are not finite"),
        (lambda t: {**t, Q_B: t[Q_B] + float("inf")}, "q_proj.lora_B.weight holds values that are not finite"),
        (lambda t: {**t, Q_A: t[Q_A].double()}, "is torch.float64, expected float32, float16 or bfloat16"),
        (lambda t: {**t, Q_A: t[Q_A].to(torch.int8)}, "is torch.int8, expected float32, float16 or bfloat16"),
        (lambda t: {**t, "base_model.model.lm_head.weight": t[Q_A]}, "lm_head.weight is no lora_A.weight or lora_B"),
        (lambda t: {**t, Q_B.replace("weight", "bias"): t[Q_B]}, "lora_B.bias is no lora_A.weight or lora_B.weight"),
    ],
)  # fmt: skip
def test_tensors_other_than_the_layouts_are_refused(tmp_path: Path, spoil: Spoil, sentence: str) -> None:
    good(tmp_path)
    save_file({n: x.clone() for n, x in spoil(load_file(tmp_path / WEIGHTS)).items()}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=sentence):
        bring(tmp_path)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_checkpoint_of_another_rank_is_refused(tmp_path: Path, rank: int) -> None:
    other = Layout(PAIR.shapes, rank)
    export_peft([expert(other, 1)], other, 2.0, "owner/base", tmp_path)
    with pytest.raises(ValueError, match=f"r is {rank}, the run's adapters have rank 2"):
        bring(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "r": 2}))  # a configuration that lies
    with pytest.raises(ValueError, match=rf"lora_A of layer deep.q_proj is \[{rank}, 3\], the run's is \[2, 3\]"):
        bring(tmp_path)


@given(st.integers(0, 10**6))
def test_a_file_cut_anywhere_is_refused(cut: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        good(Path(place))
        whole = (Path(place) / WEIGHTS).read_bytes()
        (Path(place) / WEIGHTS).write_bytes(whole[: cut % len(whole)])
        with pytest.raises(ValueError, match="cannot be read, it may be truncated"):
            bring(Path(place))


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    good(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"has no adapter_model.safetensors, and a \.bin file is a pickle.*never read"):
        bring(tmp_path)
    (tmp_path / "adapter_model.bin").unlink()
    with pytest.raises(ValueError, match=r"has no adapter_model\.safetensors$"):
        bring(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'{"r": 2', "is not readable as JSON"),
        (b"\xff\xfe", "is not readable as JSON"),
        (b"[" * 100_000, "is not readable as JSON"),
        (b'["r"]', "holds a list, a PEFT configuration is an object"),
        (None, "has no adapter_config.json, so it is not a PEFT checkpoint"),
    ],
    ids=["cut", "no text", "deep", "list", "missing"],
)
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: bytes | None, sentence: str) -> None:
    good(tmp_path)
    (tmp_path / CONFIG).unlink() if text is None else (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(ValueError, match=sentence):
        bring(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = good(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export_peft([expert(PAIR, 9)], PAIR, 2.0, "owner/base", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    assert bring(tmp_path).B.tobytes() == mine.B.tobytes()


def test_old_weights_never_meet_a_new_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any of the moments between two changes of the directory: the old, the new, or no checkpoint."""
    old, new, seen = good(tmp_path / "at"), expert(PAIR, 9), []
    replace, unlink = os.replace, Path.unlink

    def snapshot() -> None:
        shutil.copytree(tmp_path / "at", tmp_path / f"copy{len(seen)}")
        seen.append(tmp_path / f"copy{len(seen)}")

    monkeypatch.setattr(Path, "unlink", lambda *a, **k: (snapshot(), unlink(*a, **k)))
    monkeypatch.setattr(os, "replace", lambda *a: (snapshot(), replace(*a)))
    export_peft([new], PAIR, 3.0, "owner/base", tmp_path / "at")
    assert len(seen) == 3
    assert bring(seen[0]).B.tobytes() == old.B.tobytes()
    for between in seen[1:]:
        with pytest.raises(ValueError, match=r"has no adapter_config\.json"):
            bring(between)
    assert bring(tmp_path / "at").B.tolist() == (np.float32(1.5) * new.B).tolist()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"experts": []}, "at least one expert"),
        ({"weights": [1.0]}, "one weight for each of 2 experts, got 1"),
        ({"weights": [1.0, float("nan")]}, "expert 2: B times its weight nan holds values that are not finite"),
        ({"weights": [1.0, 1e300]}, "expert 2: B times its weight 1e[+]300 holds values that are not finite"),
        ({"scaling": 0.0}, "scaling must be positive and finite"),
        ({"scaling": float("inf")}, "scaling must be positive and finite"),
        ({"base_model": ""}, "names its base model"),
        ({"layout": Layout(PAIR.shapes, 1)}, r"expert 1: A is \[16\], the layout holds \[8\]"),
        ({"experts": [Expert(owner=7, A=projection(1, PAIR), B=np.zeros(3, np.float32))]}, r"expert 7: B is \[3\]"),
        (
            {"experts": [Expert(owner=7, A=np.full(16, np.nan, np.float32), B=np.zeros(14, np.float32))]},
            "expert 7: A holds values that are not finite",
        ),
    ],
)
def test_what_is_no_checkpoint_is_not_written(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    given_well = {"experts": [expert(PAIR, 1), expert(PAIR, 2)], "layout": PAIR, "scaling": 2.0, "base_model": "o/b"}
    with pytest.raises(ValueError, match=sentence):
        export_peft(**{**given_well, "directory": tmp_path / "out", **changes})
    assert not (tmp_path / "out").exists()
