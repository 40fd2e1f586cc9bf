"""A bank on a Hugging Face model: who answers, alone and in company, in every way that prompts are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attached import STRANGER, TASKS, Model, bank_of, batch, by, counting, generated, logits, under

import orthomesh
from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.answer import choose
from orthomesh.models.attach import attach, fingerprint, load, said
from orthomesh.models.bank_io import Portable, save_bank
from orthomesh.models.base import Base, load_base
from orthomesh.models.inject import AdaptedLinear
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import tokenise
from orthomesh.types import Bank, Example, Expert


def test_mixed_tasks_are_answered_each_by_its_own(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    model = attach(under(told, refuses=True), plain())
    answers = generated(model, batch(tokenizer, prompts))
    assert [who.label for who in said(model)] == [*TASKS, None]
    for n, prompt in enumerate(prompts):
        assert generated(model, batch(tokenizer, [prompt])) == [answers[n]]
        (alone,) = said(model)
        assert alone.label == (*TASKS, None)[n]
        assert alone.weight == 1.0
        assert alone.second in TASKS
        assert alone.second != alone.label
        assert (alone.distance > 1) == (alone.label is None)
        assert 0 < alone.probability <= 1
    assert len({tuple(a) for a in answers}) > 2


def test_answers_are_those_of_the_expert_by_itself(
    told: Portable, embedded: Base, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    model = attach(under(told, refuses=True), plain())
    answers, scores = generated(model, batch(tokenizer, prompts)), logits(model, batch(tokenizer, prompts))
    rows = tokenise(embedded, [Example(p, "x") for p in prompts], "prompts")
    verdict = choose(embedded, under(told, refuses=True).bank, rows)
    for n, (who, prompt) in enumerate(zip(said(model), prompts, strict=True)):
        assert who.label == (None if verdict.strange[n] else TASKS[verdict.best[n]])
        assert who.second == TASKS[verdict.second[n]]
        assert who.probability == pytest.approx(verdict.probability[n], rel=1e-4)
        assert who.distance == pytest.approx(verdict.distance[n, verdict.best[n]], rel=1e-4)
        with by(embedded, told, who.label):
            assert generated(embedded.model, batch(tokenizer, [prompt])) == [answers[n]]
            torch.testing.assert_close(
                scores[n, -1], logits(embedded.model, batch(tokenizer, [prompt]))[0, -1], atol=1e-4, rtol=1e-4
            )
    base = [generated(embedded.model, batch(tokenizer, [prompt]))[0] for prompt in prompts]
    assert [a == b for a, b in zip(answers, base, strict=True)] != [True] * 5


def test_padding_on_the_right_of_a_forward_pass(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    model = attach(under(told, refuses=True), plain())
    right = batch(tokenizer, prompts, "right")
    scores = logits(model, right)
    assert [who.label for who in said(model)] == [*TASKS, None]
    for n, prompt in enumerate(prompts):
        alone = logits(model, batch(tokenizer, [prompt]))[0]
        torch.testing.assert_close(scores[n, : len(alone)], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", [{"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("beams", [1, 2])
def test_other_caches_give_the_same_answers(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any, how: dict[str, Any], beams: int
) -> None:
    model = attach(under(told, refuses=True), plain())
    tokens = batch(tokenizer, prompts)
    expected = generated(model, tokens, num_beams=beams)
    who = said(model)
    assert generated(model, tokens, num_beams=beams, **how) == expected
    assert [one.label for one in said(model)] == [one.label for one in who]


def test_beams_are_those_of_the_expert_by_itself(
    told: Portable, embedded: Base, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    model = attach(told, plain())
    together = generated(model, batch(tokenizer, prompts[:3]), num_beams=2)
    assert [who.label for who in said(model)] == ["zelk", "zelk", "morv", "morv", "quib", "quib"]
    for n, prompt in enumerate(prompts[:3]):
        with by(embedded, told, TASKS[n]):
            assert generated(embedded.model, batch(tokenizer, [prompt]), num_beams=2) == [together[n]]
    drawn = model.generate(**batch(tokenizer, prompts[:2]), do_sample=True, num_return_sequences=3, max_new_tokens=2)
    assert drawn.shape[0] == len(said(model)) == 6


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_choice_in_flight_is_that_of_a_pass_of_its_own(
    embedded: Base, upper: Base, plain: Model, prompts: list[str], tokenizer: Any, blocks: int
) -> None:
    base = upper if blocks else embedded  # whose adapters do not come before what is read
    bank = under(bank_of(base, blocks), refuses=True)
    model, apart = attach(bank, plain()), attach(bank, plain())
    assert model.orthomesh.in_flight
    apart.orthomesh.in_flight = False
    tokens = batch(tokenizer, prompts)
    with (
        counting(model, "model.layers.0.self_attn.q_proj") as once,
        counting(apart, "model.layers.0.self_attn.q_proj") as twice,
    ):
        assert generated(model, tokens, max_new_tokens=3) == generated(apart, tokens, max_new_tokens=3)
    width = tokens["input_ids"].shape[1]
    assert once == [width, 1, 1]
    assert twice == [width, width, 1, 1]
    for one, other in zip(said(model), said(apart), strict=True):
        assert (one.label, one.second) == (other.label, other.second)
        assert one.distance == pytest.approx(other.distance, rel=1e-4)
    assert [who.label for who in said(model)] == [*TASKS, None]
    torch.testing.assert_close(logits(model, tokens), logits(apart, tokens), atol=1e-5, rtol=1e-5)
    for n, prompt in enumerate(prompts):
        with by(base, bank, said(model)[n].label):
            expected = logits(base.model, batch(tokenizer, [prompt]))[0, -1]
        torch.testing.assert_close(logits(model, tokens)[n, -1], expected, atol=1e-4, rtol=1e-4)


def test_a_choice_after_adapted_layers_is_not_in_flight(
    told: Portable, upper: Base, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    assert not attach(told, plain()).orthomesh.in_flight
    model = attach(bank_of(upper, blocks=2), plain())
    assert not model.orthomesh.in_flight
    with counting(model, "model.layers.0.self_attn.q_proj") as passes:
        logits(model, batch(tokenizer, prompts[:1]))
    assert len(passes) == 2


def test_rows_shared_by_two_are_answered_by_merged_weights(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    middle = np.mean([e.sketch.mean for e in told.bank.experts], axis=0)
    near = [e.sketch.mean + np.float32(0.95) * (middle - e.sketch.mean) for e in told.bank.experts]
    wide = [
        replace(e, sketch=e.sketch._replace(mean=mean, covariance=40 * e.sketch.covariance))
        for e, mean in zip(told.bank.experts, near, strict=True)
    ]
    bank = under(told, experts=tuple(wide), soft=True)  # tasks so near that they overlap
    model, tokens = attach(bank, plain()), batch(tokenizer, prompts)
    scores = logits(model, tokens)
    who = said(model)
    assert len({one.weight for one in who}) > 2
    assert min(one.weight for one in who) < 0.9
    for n, one in enumerate(who):
        merged = plain()
        for label, share in ((one.label, one.weight), (one.second, 1 - one.weight)):
            e = told.bank.experts[TASKS.index(str(label))]
            pairs = zip(told.layout.names, matrices_a(e.A, told.layout), matrices_b(e.B, told.layout), strict=True)
            for name, a, b in pairs:
                merged.get_submodule(name).weight.data += share * told.scaling * torch.from_numpy(b @ a)
        expected = logits(merged, batch(tokenizer, prompts[n : n + 1]))[0, -1]
        torch.testing.assert_close(scores[n, -1], expected, atol=1e-4, rtol=1e-4)
    hard = attach(under(bank, soft=False), plain())
    assert not torch.allclose(logits(hard, tokens)[:, -1], scores[:, -1], atol=1e-3)
    assert {one.weight for one in said(hard)} == {1.0}


def test_a_stranger_is_shared_by_nobody(told: Portable, embedded: Base, plain: Model, tokenizer: Any) -> None:
    twins = tuple(replace(told.bank.experts[0], owner=n) for n in (0, 1))
    bank = replace(told, bank=replace(told.bank, experts=twins, soft=True, refuses=True), labels=("one", "two"))
    model, tokens = attach(bank, plain()), batch(tokenizer, [STRANGER, "zelk abc="])
    scores = logits(model, tokens)
    strange, known = said(model)
    assert (strange.label, strange.weight, strange.second) == (None, 1.0, "two")
    assert (known.label, known.weight, known.second) == ("one", 0.5, "two")
    expected = logits(embedded.model, batch(tokenizer, [STRANGER]))[0, -1]
    torch.testing.assert_close(scores[0, -1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(model, batch(tokenizer, [STRANGER]))[0, -1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first_block", [0, 1])
def test_another_family(save_model: Callable[[str], Path], tokenizer: Any, first_block: int) -> None:
    from transformers import AutoModelForCausalLM

    place = save_model("gpt_neox")
    base = load_base(ModelSettings(source=str(place), rank=4, first_block=first_block))
    bank = bank_of(base, tasks=("zelk", "morv"))
    model = attach(bank, AutoModelForCausalLM.from_pretrained(place))
    assert model.orthomesh.in_flight == (first_block == 1)
    tokens = batch(tokenizer, ["zelk abc=", "morv abcdef="])
    answers = generated(model, tokens)
    assert [who.label for who in said(model)] == ["zelk", "morv"]
    for n, prompt in enumerate(["zelk abc=", "morv abcdef="]):
        with by(base, bank, bank.labels[n]):
            assert generated(base.model, batch(tokenizer, [prompt])) == [answers[n]]


def test_a_saved_bank_answers_as_it_did(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    save_bank(tmp_path, under(told, refuses=True))
    for how in (load, orthomesh.load):
        model = plain()
        assert how(tmp_path, model) is model
        expected = attach(under(told, refuses=True), plain())
        assert generated(model, batch(tokenizer, prompts)) == generated(expected, batch(tokenizer, prompts))
        assert [who.label for who in orthomesh.said(model)] == [*TASKS, None]


def test_compiled_it_answers_alike() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).eval()
    layout = Layout((Shape("model.layers.0.self_attn.q_proj", 16, 16),), 2)
    experts = []
    for n in range(2):
        rng = np.random.default_rng(n)
        sketch = task_sketch(rng.standard_normal((40, 8)) + n)
        B = rng.standard_normal(layout.num_expansion).astype(np.float32)
        experts.append(Expert(owner=n, A=projection(n, layout), B=B, sketch=sketch))
    bank = Bank(experts=tuple(experts), choice="discriminant")
    told = Portable(
        bank=bank, labels=("a", "b"), layout=layout, scaling=2.0, base_model="random", fingerprint=fingerprint(model)
    )
    attach(told, model)
    graphs: list[Any] = []

    def as_it_is(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=as_it_is)
    asked = torch.randint(2, 64, (12, 5), generator=torch.Generator().manual_seed(0))
    logits(model, {"input_ids": asked})
    labels = [who.label for who in said(model)]
    one, other = labels.index("a"), labels.index("b")
    for rows in ([one, other], [other, one]):
        expected = logits(model, {"input_ids": asked[rows]})
        torch.testing.assert_close(logits(compiled, {"input_ids": asked[rows]}), expected)
        assert [who.label for who in said(model)] == [labels[n] for n in rows]
    assert graphs
    torch.compiler.reset()


def test_a_verdict_does_not_depend_on_what_was_asked_before(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    model, fresh = attach(under(told, refuses=True), plain()), attach(under(told, refuses=True), plain())
    for prompt in (prompts[0], prompts[0] + "a", prompts[0] + "ab", "q", "qu", prompts[2], STRANGER):
        tokens = batch(tokenizer, [prompt])
        answer, who = generated(model, tokens), said(model)
        logits(fresh, batch(tokenizer, [STRANGER]))
        assert answer == generated(fresh, tokens)
        assert who == said(fresh)


def test_who_was_chosen_stays_while_an_answer_grows(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    model, tokens = attach(told, plain()), batch(tokenizer, prompts[:2])
    logits(model, tokens)
    who = said(model)
    for n in range(4):  # by hand and without a cache, and with words that are another task's
        more = torch.tensor([tokenizer("quib")["input_ids"][n : n + 1]] * 2)
        tokens = {
            "input_ids": torch.cat([tokens["input_ids"], more], dim=1),
            "attention_mask": torch.cat([tokens["attention_mask"], torch.ones_like(more)], dim=1),
        }
        logits(model, tokens)
        assert said(model) == who
    logits(model, {name: rows[:, 1:] for name, rows in tokens.items()})  # no longer what was read
    assert said(model) != who


def test_the_base_is_there_again_where_nobody_is_chosen(
    told: Portable, embedded: Base, plain: Model, tokenizer: Any
) -> None:
    model = attach(under(told, refuses=True), plain())
    tokens = batch(tokenizer, [STRANGER])
    generated(model, batch(tokenizer, ["zelk abc="]))
    assert torch.equal(logits(model, tokens), logits(embedded.model, tokens))
    assert said(model)[0].label is None
    assert all(m.held is None for m in model.modules() if isinstance(m, AdaptedLinear))  # at no cost
