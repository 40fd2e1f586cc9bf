"""A bank on a Hugging Face model: who answers, alone and in company, in every way that prompts are read."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import orthomesh
from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.answer import choose, prompt_sketches
from orthomesh.models.attach import Said, attach, fingerprint, load, said
from orthomesh.models.bank_io import Portable, save_bank
from orthomesh.models.base import Base, load_base
from orthomesh.models.cache import cache_of, cached
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import AdaptedLinear, adapt, holding
from orthomesh.models.settings import TINY, ModelSettings
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.embedded import examples
from orthomesh.types import Bank, Example, Expert

TASKS = ("zelk", "morv", "quib", "drax")
STRANGER = "hello there, what is the weather like today?"
GREEDY = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
Model = Callable[[], Any]


def bank_of(base: Base, blocks: int = 1, size: int = 32, tasks: Sequence[str] = TASKS) -> Portable:
    """Random experts of some embedded tasks, with true sketches of them."""
    experts = []
    for n, task in enumerate(tasks):
        rng = np.random.default_rng(n)
        B = 0.05 * rng.standard_normal(base.layout.num_expansion) * (rng.random(base.layout.num_expansion) < 0.125)
        rows = tokenise(base, examples(task, "train", 80, rng), task)
        told = task_sketch(prompt_sketches(base, rows, blocks, size))
        experts.append(
            Expert(
                owner=n, A=projection(n, base.layout), B=B.astype(np.float32), sketch=told, seed=n, kind="orthonormal"
            )
        )
    return Portable(
        bank=Bank(experts=tuple(experts), choice="discriminant", blocks=blocks),
        labels=tuple(tasks),
        layout=base.layout,
        scaling=base.scaling,
        base_model="embedded",
        fingerprint=fingerprint(base.model),
    )


def under(portable: Portable, **rules: Any) -> Portable:
    return replace(portable, bank=replace(portable.bank, **rules))


@pytest.fixture(scope="module")
def told(embedded: Base) -> Portable:
    """Four experts, chosen by what the first block sees."""
    return bank_of(embedded)


@pytest.fixture(scope="module")
def upper() -> Base:
    """The embedded model with adapters from the second block on."""
    return load_base(ModelSettings(first_block=1))


@pytest.fixture(scope="module")
def plain() -> Model:
    """The embedded model as anybody loads it, a new one each time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY)
    return lambda: copy.deepcopy(model)


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """A prompt of each task, and one of none, of different lengths."""
    asked = [examples(task, "test", 6, np.random.default_rng(3))[n].prompt for n, task in enumerate(TASKS)]
    return [*asked, STRANGER]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY, padding_side="left")


def batch(tokenizer: Any, prompts: Sequence[str], side: str = "left") -> dict[str, torch.Tensor]:
    found = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side=side)
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def generated(model: Any, tokens: dict[str, torch.Tensor], **how: Any) -> list[list[int]]:
    """Answers of a batch up to their end token."""
    with torch.no_grad():
        out = model.generate(**tokens, **{**GREEDY, **how})[:, tokens["input_ids"].shape[1] :].tolist()
    return [row[: row.index(1) + 1] if 1 in row else row for row in out]


def logits(model: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(**tokens).logits
    return out


def by(base: Base, portable: Portable, label: str | None) -> Any:
    """The base with one expert held, or none."""
    if label is None:
        return holding(base.slots, {})
    e = portable.bank.experts[portable.labels.index(label)]
    return holding(base.slots, adapters(base, e.A, e.B))


@contextmanager
def counting(model: nn.Module, name: str) -> Iterator[list[int]]:
    """Tokens of every pass through a module."""
    passes: list[int] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: passes.append(args[0].shape[1]))
    try:
        yield passes
    finally:
        hook.remove()


# example


def test_fingerprint_on_paper() -> None:
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[0.5, -1.0]]), torch.tensor([3.0])
    written = (
        b"weight|(1, 2)|" + np.array([0.5, -1.0], "<f4").tobytes() + b"bias|(1,)|" + np.array([3.0], "<f4").tobytes()
    )
    assert fingerprint(model) == hashlib.sha256(written).hexdigest()


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


# reference


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


# law


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


# edge


def test_who_is_said_before_and_without_a_choice(told: Portable, plain: Model, tokenizer: Any) -> None:
    model = attach(under(told, choice="only"), plain())
    assert said(model) == ()
    with counting(model, "model.layers.0.self_attn.q_proj") as passes:
        logits(model, batch(tokenizer, ["morv abc=", STRANGER]))
    assert said(model) == (Said("zelk", 1.0, 1.0, None, 0.0),) * 2
    assert len(passes) == 1
    with pytest.raises(ValueError, match=r"this model has no bank of experts; put one on it with orthomesh\.load"):
        said(plain())


def test_a_single_expert_answers_all_but_strangers(
    told: Portable, embedded: Base, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    alone = replace(told, bank=replace(told.bank, experts=told.bank.experts[1:2]), labels=("morv",))
    tokens = batch(tokenizer, [prompts[1], STRANGER])
    model = attach(alone, plain())
    scores = logits(model, tokens)
    assert [who.label for who in said(model)] == ["morv", "morv"]
    with by(embedded, told, "morv"):
        torch.testing.assert_close(scores, logits(embedded.model, tokens), atol=1e-4, rtol=1e-4)
    careful = attach(under(alone, refuses=True), plain())
    logits(careful, tokens)
    assert [(who.label, who.second) for who in said(careful)] == [("morv", None), (None, None)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_bfloat16(told: Portable, plain: Model, prompts: list[str], tokenizer: Any, when: str) -> None:
    model = plain().to(torch.bfloat16) if when == "before" else plain()
    attach(under(told, refuses=True), model)
    if when == "after":  # a model may move once it has its bank
        logits(model, batch(tokenizer, prompts))
        model.to(torch.bfloat16)
    scores = logits(model, batch(tokenizer, prompts))
    assert scores.dtype == torch.bfloat16
    assert [who.label for who in said(model)] == [*TASKS, None]
    exact = logits(attach(under(told, refuses=True), plain()), batch(tokenizer, prompts))[:, -1]
    off = (scores[:, -1].float() - exact).norm() / exact.norm()
    assert off < 0.05  # eight bits, through three blocks
    assert len(generated(model, batch(tokenizer, prompts))) == 5


def test_a_copy_of_a_model_chooses_by_itself(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    for bank in (told, bank_of(upper)):
        model = attach(bank, plain())
        other = copy.deepcopy(model)
        logits(model, batch(tokenizer, ["zelk abc="]))
        logits(other, batch(tokenizer, ["morv abc=", "quib abc="]))
        assert [who.label for who in said(model)] == ["zelk"]
        assert [who.label for who in said(other)] == ["morv", "quib"]


def test_the_base_can_still_be_saved(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = attach(told, plain())
    generated(model, batch(tokenizer, prompts))
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert fingerprint(again) == told.fingerprint
    assert torch.equal(logits(again, batch(tokenizer, prompts)), logits(plain(), batch(tokenizer, prompts)))
    whole = pickle.loads(pickle.dumps(model))
    assert generated(whole, batch(tokenizer, prompts)) == generated(model, batch(tokenizer, prompts))


def test_fingerprints(plain: Model) -> None:
    model = plain()
    print_ = fingerprint(model)
    assert fingerprint(plain().to(torch.bfloat16)) == print_
    adapt(model, ("model.layers.0.self_attn.q_proj", "lm_head"))
    assert fingerprint(model) == print_
    model.get_submodule("model.layers.1.mlp.down_proj").weight.data[0, 0] += 0.5
    assert fingerprint(model) != print_
    other = plain()
    other.resize_token_embeddings(260)
    assert fingerprint(other) != print_
    for num in (1, 63, 64, 65, 127, 128, 5000):  # however long a row, its first number is looked at
        row = nn.Linear(num, 1, bias=False)
        before = fingerprint(row)
        row.weight.data[0, 0] += 1
        assert fingerprint(row) != before


def test_banks_that_cannot_be_put_on_a_model(told: Portable, plain: Model) -> None:
    model = plain()
    spoilt = plain()
    spoilt.lm_head.weight.data[0, 0] += 1
    prints = told.fingerprint[:12], fingerprint(spoilt)[:12]
    words = f"trained on embedded .fingerprint {prints[0]}.*in torch.float32 .fingerprint {prints[1]}"
    with pytest.raises(ValueError, match=words):
        attach(told, spoilt)
    for choice in ("nearest", "topk", "norm", "arrow"):
        with pytest.raises(ValueError, match=f"a bank chosen by '{choice}' cannot be put on a model for generation"):
            attach(under(told, choice=choice), model)
    with pytest.raises(ValueError, match="a bank without experts has nothing to answer with"):
        attach(replace(told, bank=Bank(experts=()), labels=()), model)
    untold = replace(told.bank.experts[2], sketch=None)
    with pytest.raises(ValueError, match="expert quib has no task sketch, and this bank chooses by task sketch"):
        attach(under(told, experts=(*told.bank.experts[:2], untold, told.bank.experts[3])), model)
    with pytest.raises(ValueError, match="cannot read 4 blocks of a model that has 3"):
        attach(under(told, blocks=4), model)
    for shape, words in (
        (
            Shape("model.layers.9.mlp.up_proj", 256, 96),
            r"linear layer model\.layers\.9\.mlp\.up_proj, this model has nothing",
        ),
        (Shape("model.norm", 96, 96), r"linear layer model\.norm, this model has a layer of type Qwen2RMSNorm"),
        (Shape("model.layers.0.mlp.up_proj", 250, 96), r"up_proj of this model is 256 x 96, the bank's 250 x 96"),
    ):
        layout = Layout((*told.layout.shapes[:2], shape), 16)
        experts = tuple(
            replace(e, A=projection(0, layout), B=np.zeros(layout.num_expansion, np.float32)) for e in told.bank.experts
        )
        with pytest.raises(ValueError, match=words):
            attach(replace(told, bank=replace(told.bank, experts=experts), layout=layout), model)
    # what was refused left the model as it was
    assert not any(isinstance(m, AdaptedLinear) for m in model.modules())
    attach(told, model)
    with pytest.raises(ValueError, match="this model has a bank of experts already"):
        attach(told, model)


def test_prompts_that_cannot_be_read(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    for bank in (told, bank_of(upper)):
        model = attach(bank, plain())
        with pytest.raises(ValueError, match="a prompt without a token has nothing to choose an expert by"):
            model.generate(torch.zeros(1, 0, dtype=torch.long), **GREEDY)
        tokens = batch(tokenizer, ["zelk abc=", "morv abc="])
        tokens["attention_mask"][1] = 0
        with pytest.raises(ValueError, match="a prompt without a token"):
            model(**tokens)
        embeds = model.get_input_embeddings()(tokens["input_ids"])
        with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
            model(inputs_embeds=embeds)
        with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
            model.generate(inputs_embeds=embeds, **GREEDY)


@torch.no_grad()
def test_a_cache_of_other_prompts(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    one, other, more = batch(tokenizer, ["zelk abc="]), batch(tokenizer, ["morv abc="]), torch.tensor([[7]])
    words = "this cache is not of the prompts that the bank read last: pass whole prompts"
    for bank in (told, bank_of(upper)):
        model = plain()
        cache = cache_of(model(**one))  # of the base, before there was a bank
        attach(bank, model)
        with pytest.raises(ValueError, match=words):
            model(input_ids=more, **cached(model, cache))
        cache = cache_of(model(**one))
        for _ in range(2):  # an answer grows by hand
            cache = cache_of(model(input_ids=more, **cached(model, cache)))
        with pytest.raises(ValueError, match=words):
            model(input_ids=more, **cached(model, copy.deepcopy(cache)))
        model(**other)
        with pytest.raises(ValueError, match=words):  # it would be answered by the expert of the others
            model(input_ids=more, **cached(model, cache))
        cache = model(**one, return_dict=False)[1]
        model(input_ids=more, **cached(model, cache))
        with pytest.raises(ValueError, match="a prompt without a token"):
            model(input_ids=more[:, :0])
        with pytest.raises(ValueError, match=words):  # it would be answered by the base
            model(input_ids=more, **cached(model, cache))
        assert said(model) == ()
