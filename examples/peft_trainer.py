"""Our sparse adapter in an ordinary PEFT and Trainer script: a frozen projection from a seed, a mask after a warm-up.

python examples/peft_trainer.py [OUT] trains it on one task and leaves a plain LoRA checkpoint in OUT, peft_out unless
named, which needs nothing but PEFT to load.
"""

import sys

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from orthomesh.models.peft_side import MaskAfter, freeze_projections
from orthomesh.models.settings import TINY
from orthomesh.tasks.embedded import examples


def rows(tokenizer, split, count):
    """Prompts `zelk abcd=` with their answers `DCBA` and the end token; only the answers are learnt."""
    for prompt, target, *_ in examples("zelk", split, count, np.random.default_rng(0)):
        start, end = tokenizer(prompt)["input_ids"], [*tokenizer(target)["input_ids"], tokenizer.eos_token_id]
        yield {"input_ids": start + end, "attention_mask": [1] * len(start + end), "labels": [-100] * len(start) + end}


@torch.no_grad()
def accuracy(model, batch):
    """Share of rows whose every answer token is the likeliest after those before it."""
    guess, labels = model.eval()(**batch).logits[:, :-1].argmax(-1), batch["labels"][:, 1:]
    return ((guess == labels) | (labels < 0)).all(1).float().mean().item()


def main(out="peft_out", steps=200):
    """Train, save, reload as anybody would; accuracy of the base model and of the reloaded adapter."""
    tokenizer, model = AutoTokenizer.from_pretrained(TINY), AutoModelForCausalLM.from_pretrained(TINY)
    collate = DataCollatorForSeq2Seq(tokenizer)
    train, test = list(rows(tokenizer, "train", 400)), collate(list(rows(tokenizer, "test", 200)))
    before = accuracy(model, test)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    freeze_projections(model, seed=7)
    how = dict(max_steps=steps, per_device_train_batch_size=24, learning_rate=6e-3, lr_scheduler_type="constant")
    args = TrainingArguments(out, **how, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True)
    Trainer(model, args, collate, train, callbacks=[MaskAfter(steps // 6, density=0.125)]).train()
    model.save_pretrained(out)
    return before, accuracy(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(TINY), out), test)


if __name__ == "__main__":
    print("accuracy {:.1%} before, {:.1%} after".format(*main(*sys.argv[1:])))
