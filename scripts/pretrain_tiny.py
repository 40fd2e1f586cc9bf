"""Pre-train the embedded base model from nothing: `python scripts/pretrain_tiny.py`.

A Qwen2-shaped character model learns the skills of `orthomesh.tasks.skills` and lands, with its tokenizer, in
`src/orthomesh/models/tiny/`. Seeded, one thread by default: the same seed on the same machine gives the same
file. Seven minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from orthomesh.rng import stream
from orthomesh.tasks.skills import SKILLS, pretraining_examples, skill_example
from orthomesh.types import Example

TARGET = Path(__file__).resolve().parents[1] / "src" / "orthomesh" / "models" / "tiny"
IGNORED = -100


def main() -> None:
    """Parse, build, train, check, save."""
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = character_tokenizer(args.context)
    model = Qwen2ForCausalLM(configuration(args, len(tokenizer)))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    started = time.perf_counter()
    train(model, tokenizer, args)
    print(f"trained in {time.perf_counter() - started:.0f} s")
    report(model, tokenizer, stream(args.seed, "report"))
    save(model, tokenizer, args.out)


def parse() -> argparse.Namespace:
    """The command line; the defaults are what made the model in the package."""
    parser = argparse.ArgumentParser(description="Pre-train the embedded base model on procedural skills.")
    parser.add_argument("--out", type=Path, default=TARGET, help="folder of the model and its tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=96, help="examples per step")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--mlp", type=int, default=256)
    parser.add_argument("--context", type=int, default=64, help="longest text, in tokens")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def character_tokenizer(context: int) -> Qwen2Tokenizer:
    """One token per byte behind `<pad>` = 0 and `<eos>` = 1, so every text has tokens and none is unknown.

    The class is the one every loader takes for a Qwen2 model; without merges it splits text into its bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(("<pad>", "<eos>", *alphabet))},
        merges=[],
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token=None,
        model_max_length=context,
    )


def configuration(args: argparse.Namespace, vocab_size: int) -> Qwen2Config:
    """The shape of the model: Qwen2 with tied embeddings, four heads, two of them for keys and values."""
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=args.hidden,
        num_hidden_layers=args.layers,
        intermediate_size=args.mlp,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=args.context,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )


def train(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, args: argparse.Namespace) -> None:
    """AdamW under a one-cycle schedule; the loss counts target and `<eos>` only, since prompts are noise."""
    optimiser = torch.optim.AdamW(model.parameters(), args.lr, (0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, total_steps=args.steps, pct_start=0.1)
    endless = pretraining_examples(stream(args.seed, "pretraining"))
    started = time.perf_counter()
    for step in range(1, args.steps + 1):
        tokens, labels = batch_of(tuple(islice(endless, args.batch)), tokenizer)
        loss = loss_of(model, tokens, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 250 == 0:
            elapsed_s = time.perf_counter() - started
            print(f"step {step:5d}  loss {loss.item():.4f}  {elapsed_s:.0f} s", flush=True)


def batch_of(examples: Sequence[Example], tokenizer: Qwen2Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and next-token labels of `prompt + target + <eos>`, padded on the right. [N, T], both int64."""
    rows = [tokenizer.encode(e.prompt + e.target + tokenizer.eos_token) for e in examples]
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(tokens, IGNORED)
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        tokens[i, : len(row)] = torch.tensor(row)
        asked = len(example.prompt)
        labels[i, asked - 1 : len(row) - 1] = torch.tensor(row[asked:])
    return tokens, labels


def loss_of(model: Qwen2ForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the labelled positions, in nats."""
    logits = model(input_ids=tokens, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def exact_match(model: Qwen2ForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the rows whose every labelled token is the model's first choice, in [0, 1].

    One forward pass tells: greedy decoding leaves the target at the first wrong choice, and not before.
    """
    choices = model(input_ids=tokens, use_cache=False).logits.argmax(-1)
    return float(((choices == labels) | (labels == IGNORED)).all(-1).float().mean())


def report(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, rng: np.random.Generator) -> None:
    """Print every skill's exact match over 500 fresh examples."""
    model.eval()
    for word, skill in SKILLS.items():
        fresh = tuple(skill_example(skill, rng) for _ in range(500))
        print(f"{word}  {100 * exact_match(model, *batch_of(fresh, tokenizer)):5.1f} %")


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write weights, configuration and tokenizer where `from_pretrained` finds them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.name}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
