"""Questions to a finished run and to a saved bank, and the bank as files that others load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

import orthomesh as package
from orthomesh.ask import ask, export, open_bank
from orthomesh.cli import app
from orthomesh.models.settings import TINY as MODEL
from orthomesh.tasks.embedded import examples

SHORT = [
    *(
        "-s",
        "train.steps=2",
        "-s",
        "train.batch_size=4",
        "-s",
        "tasks.train_examples=40",
        "-s",
        "tasks.test_examples=4",
    ),
    *("--devices", "3", "--rounds", "2", "--workers", "1", "-s", "channel.radius_m=100"),
    *("-s", "methods.local=null", "-s", "methods.gossip=null", "-s", "methods.paper=null"),
]


def orthomesh(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "one"
    assert orthomesh("run", "smoke", *SHORT, "--out", str(directory)).exit_code == 0
    return directory


def prompt(task: str) -> str:
    return examples(task, "test", 1, np.random.default_rng(0))[0].prompt


def test_who_answers_and_why(run: Path) -> None:
    result = orthomesh("ask", str(run), prompt("morv"), "What is the capital of France?")
    assert result.exit_code == 0
    assert "morv answered: " in result.stderr
    assert "among 3 experts" in result.stderr
    assert "the base model answered: this prompt belongs to none of 3 tasks" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_a_saved_bank_answers_as_the_run_does(run: Path, tmp_path: Path) -> None:
    said = orthomesh("export", str(run), str(tmp_path / "bank"))
    assert said.exit_code == 0
    assert said.output.startswith(f"3 experts in {tmp_path / 'bank'}: ")
    prompts = [prompt(task) for task in ("zelk", "morv", "quib")]
    assert ask(open_bank(tmp_path / "bank", None, None), prompts, 8) == ask(open_bank(run, None, None), prompts, 8)


def test_every_device_has_the_same_experts(run: Path) -> None:
    one, other = open_bank(run, None, 0), open_bank(run, "orthomesh", 2)
    assert one.labels == other.labels == ("zelk", "morv", "quib")
    for a, b in zip(one.bank.experts, other.bank.experts, strict=True):
        assert np.array_equal(a.B, b.B)


def test_three_lines_put_a_bank_on_a_model(run: Path, tmp_path: Path) -> None:
    portable = open_bank(run, None, None)
    export(portable, tmp_path, peft=False, expert=None)
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")

    model = AutoModelForCausalLM.from_pretrained(MODEL)
    model = package.load(tmp_path, model)
    batch = tokenizer([prompt("quib"), prompt("zelk")], return_tensors="pt", padding=True)
    out = model.generate(**batch, max_new_tokens=4, do_sample=False, pad_token_id=0)

    assert [s.label for s in package.said(model)] == ["quib", "zelk"]
    alone = ask(portable, [prompt("quib"), prompt("zelk")], 4)
    assert [tokenizer.decode(o, skip_special_tokens=True) for o in out[:, batch.input_ids.shape[1] :]] == [
        reply.text for reply in alone
    ]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_loads_what_is_exported_for_it(run: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    result = orthomesh("export", str(run), str(tmp_path), "--peft", "--expert", "morv")
    assert result.output.strip() == f"peft checkpoint of rank 16 in {tmp_path}: 1 expert"
    portable = open_bank(run, None, None)
    expert = portable.bank.experts[1]
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(MODEL), tmp_path)
    shape = portable.layout.shapes[0]
    layer = theirs.base_model.model.get_submodule(shape.name)
    held = expert.B[: shape.out_features * 16].reshape(shape.out_features, 16)
    assert torch.equal(layer.lora_B["default"].weight.detach(), torch.from_numpy(held))
    assert layer.scaling["default"] == portable.scaling


def test_a_long_prompt_loses_its_beginning_and_says_so(run: Path) -> None:
    result = orthomesh("ask", str(run), "abcdefgh " * 20, "--max-tokens", "4")
    assert result.exit_code == 0
    assert "lost its first 120 tokens" in result.stderr  # 180 tokens, a context of 64, 4 of them for the answer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ask", "RUN", ""), "an empty prompt has no answer"),
        (("ask", "RUN", "a", "--device", "3"), "has no device 3; its devices are 0 to 2"),
        (("ask", "RUN", "a", "--method", "orthomash"), "has no method 'orthomash'"),
        (("ask", "RUN", "a", "--max-tokens", "64"), "leaves no room for a prompt in a context of 64"),
        (("ask", "NOWHERE", "a"), "is neither a run nor a bank of experts"),
        (("export", "RUN", "OUT", "--expert", "morv"), "add --peft"),
        (("export", "RUN", "OUT", "--peft", "--expert", "mory"), "there is no expert 'mory'. Did you mean"),
        (("export", "BANK", "OUT", "--device", "1"), "it has no methods or devices to choose from"),
    ],
)
def test_mistakes_end_in_a_sentence(run: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    export(open_bank(run, None, None), tmp_path / "bank", peft=False, expert=None)
    places = {"RUN": run, "NOWHERE": tmp_path, "OUT": tmp_path / "out", "BANK": tmp_path / "bank"}
    result = orthomesh(*(str(places.get(word, word)) for word in words))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_bank_of_another_model_names_both(run: Path, tmp_path: Path) -> None:
    export(open_bank(run, None, None), tmp_path, peft=False, expert=None)
    other = AutoModelForCausalLM.from_pretrained(MODEL)
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    with pytest.raises(ValueError, match=r"trained on embedded \(fingerprint \w{12}\), this model is .*tiny"):
        package.load(tmp_path, other)
