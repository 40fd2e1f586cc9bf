"""A model of Qwen2.5-Instruct's shape with random weights, cut to a few layers: everything but what it knows.

    python scripts/random_qwen.py DIR --size 1.5b --layers 1
    python scripts/random_qwen.py DIR --size 1.5b --layers 28 --whole-vocabulary
    python scripts/random_qwen.py DIR --size 7b --config-only    # for `reproduce --cost`, which reads no weight

The tokenizer is that of the embedded model, or of another directory; the vocabulary is cut to it by default.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from orthomesh.models.settings import TINY

SIZES = {
    "0.5b": {
        "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2,
        "num_hidden_layers": 24, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
        "num_hidden_layers": 28, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
        "num_hidden_layers": 28, "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""As the configurations on the hub have them."""


def main() -> None:
    """Write it."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("directory", type=Path)
    words.add_argument("--size", choices=SIZES, default="1.5b")
    words.add_argument("--layers", type=int, default=1, help="of all")
    words.add_argument("--tokenizer", type=Path, default=TINY, help="directory; default: the embedded model's")
    words.add_argument("--whole-vocabulary", action="store_true", help="rows that no token of the tokenizer has, too")
    words.add_argument("--config-only", action="store_true", help="the whole shape, no weights")
    words.add_argument("--seed", type=int, default=0)
    asked = words.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(asked.tokenizer)
    sides = {**SIZES[asked.size], "max_position_embeddings": 32768, "rope_theta": 1e6, "dtype": "bfloat16"}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if not asked.config_only:
        sides |= {"num_hidden_layers": asked.layers}
        sides |= {} if asked.whole_vocabulary else {"vocab_size": len(tokenizer)}
    config = Qwen2Config(**sides, **ends)
    if asked.config_only:
        config.architectures = ["Qwen2ForCausalLM"]
        config.save_pretrained(asked.directory)
    else:
        torch.manual_seed(asked.seed)
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(asked.directory)
    tokenizer.save_pretrained(asked.directory)
    print(asked.directory)


if __name__ == "__main__":
    main()
