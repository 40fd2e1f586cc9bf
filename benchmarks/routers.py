"""Which expert answers: every way to choose without training a router, in one table.

One expert per task, trained as a device does it (frozen seeded A, dense warm-up, magnitude mask, then B under the
mask), then asked all tasks' test prompts under every choice. Choices made once per prompt are looked up in a table
of who would have been right; those made per token, and soft ones, are run.

    python -m benchmarks.routers                                  # embedded model and tasks
    python -m benchmarks.routers --model DIR --data DIR --tasks snips,trec,... [--template neutral] [--seeds 0 1 2]

`--template neutral` replaces every instruction, in training and test, by "Text: ... Answer:", which names no task;
`--paraphrase` also asks the experts in other words than they were trained in; `--choices-only` trains no expert and
tells how often each choice is right, for all three ways of asking (benchmarks/choices.py). Prints Markdown tables of
means over seeds with 95 % t-intervals, and writes --out as JSON.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import choices
from orthomesh.adapters.mask import magnitude_mask, quotas
from orthomesh.adapters.projection import projection
from orthomesh.experts.router import classes, discriminate, nearest
from orthomesh.experts.sketch import pack, task_sketch, unpack
from orthomesh.experts.taskcode import task_code
from orthomesh.models import answer as answering
from orthomesh.models.base import Base, load_base
from orthomesh.models.finetune import Factors, fit
from orthomesh.models.inject import holding, watching
from orthomesh.models.settings import EMBEDDED, ModelSettings, TrainSettings
from orthomesh.models.tokens import Row, collate, tokenise
from orthomesh.rng import key, stream
from orthomesh.tasks.catalogue import names, test_set, training_share
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Bank, Expert

OTHER_WORDS = {
    "snips": "Say what the user wants. Pick one of: add to playlist, book restaurant, get weather, play music, "
    "rate book, search creative work, search screening event.\nUser: {}\nAnswer:",
    "trec": "Abbreviation, description, entity, human, location or number: what would answer this?\n{}\nIt is a:",
    "sst2": "Did the critic like the film? Say positive or negative.\n{}\nVerdict:",
    "agnews": "Sort this article under world, sports, business or technology.\n{}\nSection:",
    "sms_spam": "Should this SMS be filtered out? Reply spam or ham.\n{}\nReply:",
    "clinc_domain": "An assistant heard this. Which area is it about (banking, credit cards, kitchen and dining, home, "
    "auto and commute, travel, utility, work, small talk or meta)?\n{}\nArea:",
    "boolq": "True or false? {}?\nSay true or false.\n",
    "scienceqa": "Here is a school question with numbered options. {}\nWhich option is right?\n",
    "social_i_qa": "Read about these people and say which reply fits. {}\nThe fitting number is:",
    "hellaswag": "Which of the numbered ends goes on best after this? {}\nThe best end is number:",
}
COMMON = ("dolly", "gsm8k", "arc_easy", "piqa")
"""Where a common calibration text is taken from; none of them is a task here."""


def content(prompt: str) -> str:
    """What a prompt is about, without the words that name its task."""
    framed = re.match(r"^[^\n]*\n[A-Za-z ]+: (.*)\n[A-Za-z ]+:$", prompt, re.S)
    if framed:
        return framed.group(1)
    plain = re.sub(r"^Please [^:]*: ?(question: )?", "", prompt)
    plain = re.sub(r"\n\n?Answer format:.*$", "", plain, flags=re.S)
    return re.sub(r"(Answer|Ending|Solution|Option)\d+: ", "- ", plain)


def reworded(tasks: TaskSettings, template: str, folder: Path) -> TaskSettings:
    """The same tasks with other instructions, as files of their own."""
    import gzip

    for task in tasks.names:
        for split in ("train", "test"):
            source = Path(tasks.data) / task / f"{split}.jsonl"
            lines = source.read_text() if source.exists() else gzip.open(f"{source}.gz", "rt").read()
            rows = [json.loads(line) for line in lines.splitlines()]
            for row in rows:
                inner = content(row["instruction"])
                if template == "neutral":
                    row["instruction"] = f"Text: {inner}\nAnswer:"
                elif split == "test":
                    row["instruction"] = OTHER_WORDS[task].format(inner)
            path = folder / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(json.dumps(row) for row in rows))
    return replace(tasks, data=str(folder))


def expert_of(base: Base, rows: Sequence[Row], seed: int, owner: int, train: TrainSettings, warmup: int) -> Expert:
    """What one device learns: dense for a while, then under the mask of the largest magnitudes."""
    start = key(seed, "device", owner)
    A = projection(start, base.layout)
    factors = Factors(A=A, B=np.zeros(base.layout.num_expansion, dtype=np.float32))
    warm, _ = fit(base, rows, factors, replace(train, steps=warmup), stream(seed, "batches", 0, owner))
    mask = magnitude_mask(warm.B, base.layout.expansion_sizes, quotas(base.layout.expansion_sizes, 0.125))
    moments = {n: a[mask] if a.shape == mask.shape else a for n, a in warm.moments.items()}
    factors = Factors(A=A, B=np.where(mask, warm.B, np.float32(0)), active=mask, moments=moments)
    rest = replace(train, steps=train.steps - warmup)
    done, _ = fit(base, rows, factors, rest, stream(seed, "batches", 1, owner))
    return Expert(owner=owner, A=A, B=done.B.astype(np.float16).astype(np.float32), seed=start, kind="orthonormal")


def right_by_expert(base: Base, experts: Sequence[Expert], rows: Sequence[Row]) -> np.ndarray:
    """Whether each expert, and last the base, answers each row rightly. [N, M + 1]"""
    banks = [Bank(experts=(e,)) for e in experts] + [Bank(experts=())]
    return np.stack([answering.answer(base, bank, rows).right for bank in banks], axis=1)


def gaussian_choice(x: np.ndarray, own: Sequence[np.ndarray], widths: Sequence[int]) -> np.ndarray:
    """Diagonal Gaussians per layer input, log-likelihoods added up; variances drawn half-way to their mean."""
    mean, spread = np.stack([o.mean(0) for o in own]), np.stack([o.var(0, ddof=1) for o in own])
    spread = 0.5 * spread + 0.5 * spread.mean(0)
    spread = spread + 1e-3 * np.repeat(
        [part.mean() for part in np.split(spread.mean(0), np.cumsum(widths)[:-1])], widths
    )
    fits = [-((x - m) ** 2 / v + np.log(v)).sum(1) for m, v in zip(mean, spread, strict=True)]
    return np.argmax(np.stack(fits, axis=1), axis=1)


def common_choice(x: np.ndarray, own: Sequence[np.ndarray], text: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """Linear discriminants per layer input under the covariance of a common text, so that only means are exchanged."""
    score, start = np.zeros((len(x), len(own))), 0
    for width in widths:
        cut = slice(start, start + width)
        C = np.cov(text[:, cut].T)
        C = 0.9 * C + 0.1 * np.diag(np.diag(C)) + 1e-3 * np.trace(C) / width * np.eye(width)
        mean = np.stack([o[:, cut].mean(0) for o in own])
        P = np.linalg.solve(C, mean.T)
        score += x[:, cut] @ P - 0.5 * np.einsum("ik,ki->i", mean, P)
        start += width
    return np.argmax(score, axis=1)


def z_scored(base: Base, bank: Bank, own: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Norm routing with each expert's norms measured on its owner's prompts (SEQR)."""
    layers = answering.mixtures(base, bank)
    stats: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for number, rows in enumerate(own):
        batch = collate(base, [(row.prompt, ()) for row in rows[:32]])
        with torch.no_grad(), watching(base.slots, tuple(base.slots)) as seen:
            base.model(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)
        real = torch.ones_like(batch.ids).bool() if batch.mask is None else batch.mask.bool()
        for name, layer in layers.items():
            rank = layer.A.shape[0] // layer.num
            cut = slice(number * rank, (number + 1) * rank)
            norm = (seen[name][real] @ layer.A[cut].T @ layer.B[:, cut].T).norm(dim=-1)
            stats[name].append(torch.stack([norm.mean(), norm.std()]))
    return {name: replace(layer, usual=torch.stack(stats[name])) for name, layer in layers.items()}


def one_seed(
    base: Base, tasks: TaskSettings, others: Sequence[TaskSettings], seed: int, train: TrainSettings, data: str
) -> list[dict[str, Any]]:
    """Train the experts of a seed, then ask them the test prompts of their tasks as they are, and in other words."""
    wanted = names(tasks)
    own = [tokenise(base, training_share(tasks, t, seed, 0, 1), t) for t in wanted]
    experts = [expert_of(base, part, seed, n, train, train.steps // 5) for n, part in enumerate(own)]
    neutral = training_share(tasks, wanted[0], seed, 0, 1)[0].prompt.startswith("Text: ")
    common = common_text(data, neutral)
    found = []
    for asked in (tasks, *others):
        rows = [tokenise(base, test_set(asked, t, seed), t) for t in wanted]
        found.append(all_choices(base, experts, own, rows, common))
    return found


def all_choices(
    base: Base, experts: Sequence[Expert], own: Sequence[list[Row]], asked: Sequence[list[Row]], common: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, share of right choices and extra milliseconds a prompt of every choice."""
    rows = [row for part in asked for row in part]
    truth = np.repeat(np.arange(len(asked)), [len(part) for part in asked])
    right = right_by_expert(base, experts, rows)

    def mean(hits: np.ndarray) -> float:
        return float(np.mean([hits[truth == n].mean() for n in range(len(asked))]))

    def once(choose: Callable[[], np.ndarray]) -> dict[str, float]:
        clock = time.process_time if base.device.type == "cpu" else time.perf_counter
        started = clock()
        picked = choose()
        extra = (clock() - started) / len(rows)
        return {
            "accuracy": mean(right[np.arange(len(rows)), picked]),
            "right": mean(picked == truth),
            "ms": 1e3 * extra,
        }

    found: dict[str, Any] = {
        "untouched base": {"accuracy": mean(right[:, -1])},
        "oracle": {"accuracy": mean(right[np.arange(len(rows)), truth]), "right": 1.0, "ms": 0.0},
    }
    for size, blocks in ((64, 1), (128, 1), (256, 1), (64, 0), (128, 0)):
        told = [unpack(pack(task_sketch(answering.prompt_sketches(base, part[:256], blocks, size)))) for part in own]
        known = classes(told)

        def verdict(blocks: int = blocks, size: int = size, known: Any = known) -> Any:
            return discriminate(answering.prompt_sketches(base, rows, blocks, size), known)

        label = f"discriminant, {size} numbers of {'the first block' if blocks else 'the embeddings'}"
        found[label] = once(lambda verdict=verdict: verdict().best)
        if blocks and size in (64, 128):
            told_bank = tuple(replace(e, sketch=s) for e, s in zip(experts, told, strict=True))
            v = verdict()
            for name, soft, refuses in (("soft mixture of two", True, False), ("strangers to the base", False, True)):
                bank = Bank(experts=told_bank, choice="discriminant", soft=soft, refuses=refuses)
                given = answering.answer(base, bank, rows)
                share = v.weight < 1 if soft else v.strange
                found[f"{label}, {name}"] = {
                    "accuracy": mean(given.right), "right": mean(given.chosen == truth), "share": float(share.mean()),
                }  # fmt: skip
    means = [answering.prompt_means(base, part[:256]).astype(np.float64) for part in own]
    x: list[np.ndarray] = []

    def seen() -> np.ndarray:
        x[:] = [answering.prompt_means(base, rows).astype(np.float64)]
        return x[0]

    codes = np.stack([task_code(m[:32]) for m in means]).astype(np.float64)
    found["nearest code, centred cosine (all layers vote)"] = once(lambda: nearest(seen(), codes, base.widths).best)
    found["nearest code, raw cosine (all layers vote)"] = once(lambda: _raw(seen(), codes, base.widths))
    found["diagonal Gaussians (all layers)"] = once(lambda: gaussian_choice(seen(), means, base.widths))
    if common:
        text = answering.prompt_means(base, [r for r in _common_rows(base, common)]).astype(np.float64)
        found["discriminants, covariance of a common text (all layers)"] = once(
            lambda: common_choice(seen(), means, text, base.widths)
        )
    coded = tuple(replace(e, code=c.astype(np.float32)) for e, c in zip(experts, codes, strict=True))
    rank = base.layout.rank
    per_token = {
        "all added up": Bank(experts=coded, choice="topk"),
        "top-k, all ranks together": Bank(experts=coded, choice="topk", top_k=rank),
        "top-k, signed (29 to the letter)": Bank(experts=coded, choice="topk", top_k=rank, scope="signed"),
        "top-k in each expert": Bank(experts=coded, choice="topk", top_k=rank // 4, scope="expert"),
        "cosine gate": Bank(experts=coded, choice="topk", gated=True),
        "cosine gate, top-k": Bank(experts=coded, choice="topk", top_k=rank, gated=True),
        "largest norm (SpectR, SEQR)": Bank(experts=coded, choice="norm"),
        "Arrow": Bank(experts=coded, choice="arrow"),
    }
    for label, bank in per_token.items():
        found[label] = {"accuracy": mean(answering.answer(base, bank, rows).right)}
    with holding(base.slots, z_scored(base, Bank(experts=coded, choice="norm"), own)):
        found["largest norm, z-scored (SEQR)"] = {"accuracy": mean(answering._score(base, rows) == answering.RIGHT)}
    return found


def _raw(x: np.ndarray, codes: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    cuts = np.cumsum(widths)[:-1]
    pairs = zip(np.split(x, cuts, axis=1), np.split(codes, cuts, axis=1), strict=True)
    unit = [
        (p / np.linalg.norm(p, axis=1, keepdims=True), q / np.linalg.norm(q, axis=1, keepdims=True)) for p, q in pairs
    ]
    return np.argmax(sum(p @ q.T for p, q in unit), axis=1)


def _common_rows(base: Base, prompts: Sequence[str]) -> list[Row]:
    from orthomesh.types import Example

    return tokenise(base, [Example(p, "yes") for p in prompts], "common text")


def common_text(data: str, neutral: bool) -> list[str]:
    """Prompts that belong to no task of the table, where the data directory has some."""
    from orthomesh.tasks.rows import read_directory

    found: list[str] = []
    for task in COMMON if data else ():
        if (Path(data) / task).is_dir():
            rows = read_directory(TaskSettings(names=(task,), data=data), task, "train")[:128]
            found += [f"Text: {content(r.prompt)[:300]}\nAnswer:" if neutral else r.prompt for r in rows]
    return found


def table(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Means over seeds, with the half-width of a 95 % t-interval where there are several."""
    from scipy.stats import t

    def cell(label: str, field: str, scale: float) -> str:
        values = np.array([run[label][field] for run in runs if field in run[label]]) * scale
        if not len(values):
            return "-"
        half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        return f"{values.mean():.1f} ± {half:.1f}" if len(values) > 1 else f"{values.mean():.1f}"

    lines = ["| choice | accuracy, % | of oracle, % | right expert, % | ms a prompt |", "|---|---|---|---|---|"]
    oracle = np.mean([run["oracle"]["accuracy"] for run in runs])
    for label in runs[0]:
        part = 100 * np.mean([run[label]["accuracy"] for run in runs]) / oracle
        cells = (cell(label, "accuracy", 100), f"{part:.1f}", cell(label, "right", 100), cell(label, "ms", 1))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, ask, print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=EMBEDDED)
    p.add_argument("--data", default="")
    p.add_argument("--tasks", default="")
    p.add_argument("--template", choices=("given", "neutral"), default="given")
    p.add_argument("--paraphrase", action="store_true", help="also ask in other words")
    p.add_argument("--choices-only", action="store_true", help="share of right choices alone; trains nothing")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--steps", type=int, default=0, help="optimiser steps an expert; 0: 120 embedded, 100 else")
    p.add_argument("--rate", type=float, default=0.0, help="learning rate; 0: 6e-3 embedded, 5e-3 else")
    p.add_argument("--examples", type=int, nargs=2, default=(600, 100), help="training and test examples a task")
    p.add_argument("--max-length", type=int, default=128, help="longest prompt and answer in tokens")
    p.add_argument("--first-block", type=int, default=0, help="adapters from this block on")
    p.add_argument("--device", default="cpu", help="cpu or cuda; milliseconds are of the process, or of the wall")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    embedded = a.model == EMBEDDED
    base = load_base(ModelSettings(source=a.model, first_block=a.first_block, max_length=a.max_length, device=a.device))
    train = TrainSettings(
        steps=a.steps or (120 if embedded else 100), batch_size=24 if embedded else 16,
        learning_rate=a.rate or (6e-3 if embedded else 5e-3),
    )  # fmt: skip
    wanted = tuple(n for n in a.tasks.split(",") if n)
    given = TaskSettings(names=wanted, data=a.data, train_examples=a.examples[0], test_examples=a.examples[1])
    if a.choices_only:
        given = replace(given, names=wanted or tuple(OTHER_WORDS))
        print(f"\n{choices.table(choices.shares(base, given, reworded, a.seeds))}")
        return
    with tempfile.TemporaryDirectory() as folder:
        trained = given if a.template == "given" else reworded(given, a.template, Path(folder) / "trained")
        others = [reworded(given, "paraphrase", Path(folder) / "asked")] if a.paraphrase else []
        runs = []
        for seed in a.seeds:
            runs.append(one_seed(base, trained, others, seed, train, a.data))
            print(f"seed {seed}: oracle {[round(100 * r['oracle']['accuracy'], 1) for r in runs[-1]]} %", flush=True)
            if a.out:
                a.out.write_text(json.dumps(runs, indent=1))
    for number, asked in enumerate(("as trained", "in other words")[: 1 + len(others)]):
        print(f"\n{asked}\n\n{table([run[number] for run in runs])}")


if __name__ == "__main__":
    main()
