"""Experts as vanilla PEFT LoRA checkpoints, out and in: what `PeftModel.from_pretrained` loads without this package.

A checkpoint is a directory with `adapter_config.json` and `adapter_model.safetensors`. Both are written and read
here without PEFT, whose import takes seconds: the two formats are public, and an import must refuse what PEFT would
pass over with a warning. The tests hold both directions against PEFT itself.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..adapters.lowrank import Layout, matrices_a, matrices_b
from ..types import Array, Expert

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

CHECKED = frozenset(
    "peft_type task_type base_model_name_or_path revision r lora_alpha use_rslora bias init_lora_weights".split()
)
"""Entries of the configuration that `import_peft` reads."""
HARMLESS = frozenset(
    "peft_version auto_mapping inference_mode lora_dropout target_modules exclude_modules layers_to_transform "
    "layers_pattern eva_config megatron_core qalora_group_size runtime_config".split()
)
"""Entries that do not change the answer of the factors at hand; which layers they adapt is read from the tensors."""
LEAVES_BASE = (None, True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base model's weights as they are; the others (PiSSA, OLoRA, ...) move them."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
LARGEST = float(np.finfo(np.float32).max)


def export_peft(
    experts: Sequence[Expert],
    layout: Layout,
    scaling: float,
    base_model: str,
    directory: Path,
    weights: Sequence[float] | None = None,
) -> None:
    r"""Write one expert, or the weighted sum of several, as a LoRA checkpoint that answers identically.

    .. math::  \sum_i w_i B_i A_i = [w_1 B_1, \dots, w_M B_M] \, [A_1; \dots; A_M]

    Exact, at rank M r; alpha is `scaling` M r, so that alpha / rank stays `scaling`. A sum is what all experts say
    at once, (29) without top-k and gate; a bank that chooses one expert per prompt is M checkpoints.

    Args:
        experts: one or more over the same layout.
        layout: the adapted layers; their full names become `target_modules`.
        scaling: alpha / r, the factor on B A.
        base_model: hub name or directory of the base model, for the checkpoint's configuration.
        directory: made where there is none; a checkpoint in it is replaced once the new one is on the disk.
        weights: w_i, into B; None: 1 each. [M]

    Raises:
        ValueError: no expert, factors of another size or not finite, weights that do not fit.
        OSError: e.g. no space left; what was in the directory is untouched.
    """
    chosen = [1.0] * len(experts) if weights is None else list(weights)
    _check_export(len(experts), chosen, scaling, base_model)
    pairs = [_weighted(expert, weight, layout) for expert, weight in zip(experts, chosen, strict=True)]
    tensors: dict[str, Array] = {}
    for index, name in enumerate(layout.names):
        tensors[f"{PREFIX}{name}.lora_A.weight"] = np.concatenate([a[index] for a, _ in pairs])
        tensors[f"{PREFIX}{name}.lora_B.weight"] = np.concatenate([b[index] for _, b in pairs], axis=1)
    config = _config(layout, scaling, base_model, len(experts))
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    _write(directory, {WEIGHTS: save(tensors, metadata={"format": "pt"}), CONFIG: text.encode()})


def import_peft(
    directory: Path, layout: Layout, scaling: float, base_model: str, owner: int, *, any_base: bool = False
) -> Expert:
    r"""Read a LoRA checkpoint as an expert that answers as PEFT would with it.

    .. math::  B = \frac{\alpha}{r \, c} \, B_{ckpt}, \quad c = \text{scaling}

    with sqrt(r) for r where the checkpoint is rank-stabilised. Only safetensors are read, never a pickle.

    Args:
        directory: with `adapter_config.json` and `adapter_model.safetensors`.
        layout: the layers it must adapt, all of them and no other, at this rank.
        scaling: alpha / r of the run; another one in the checkpoint is folded into B.
        base_model: hub name or directory of the base model, which the checkpoint must name too.
        owner: whose task the expert knows.
        any_base: take the checkpoint whatever base model it names, e.g. the same one under another path.

    Returns:
        The expert in float32, without a task code.

    Raises:
        ValueError: files missing or damaged, a configuration that is more than a plain low-rank adapter, layers,
            shapes or a base model other than expected, values that are not finite.
    """
    config = _read_config(directory)
    if not any_base:
        _check_base(config, base_model, directory / CONFIG)
    own_scaling = _check_plain(config, layout, directory / CONFIG)
    factors = _read_factors(directory, layout)
    a = np.concatenate([factors[name, "A"].ravel() for name in layout.names])
    b = np.concatenate([factors[name, "B"].ravel() for name in layout.names])
    with np.errstate(over="ignore", invalid="ignore"):
        b = (b.astype(np.float64) * (own_scaling / scaling)).astype(np.float32)
    if not np.isfinite(b).all():
        raise ValueError(
            f"{directory}: its scaling {own_scaling} over the run's {scaling} takes B beyond 32-bit floats"
        )
    return Expert(owner=owner, A=a, B=b)


def _check_export(num_experts: int, weights: Sequence[float], scaling: float, base_model: str) -> None:
    if num_experts == 0:
        raise ValueError("a checkpoint needs at least one expert, there is none to export")
    if len(weights) != num_experts:
        raise ValueError(f"export wants one weight for each of {num_experts} experts, got {len(weights)}")
    if not 0.0 < scaling < math.inf:
        raise ValueError(f"scaling must be positive and finite, the factor alpha / r on B A; got {scaling}")
    if not base_model:
        raise ValueError("a checkpoint names its base model, a hub name or a directory; got an empty name")


def _weighted(expert: Expert, weight: float, layout: Layout) -> tuple[list[Array], list[Array]]:
    """The matrices A_l and w B_l of an expert, in float32."""
    for factor, flat, size in (("A", expert.A, layout.num_projection), ("B", expert.B, layout.num_expansion)):
        if flat.shape != (size,):
            raise ValueError(f"expert {expert.owner}: {factor} is {list(flat.shape)}, the layout holds [{size}]")
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = expert.A.astype(np.float32), (weight * expert.B.astype(np.float64)).astype(np.float32)
    for factor, flat in (("A", a), (f"B times its weight {weight}", b)):
        if not np.isfinite(flat).all():
            raise ValueError(f"expert {expert.owner}: {factor} holds values that are not finite in 32 bit")
    return matrices_a(a, layout), matrices_b(b, layout)


def _config(layout: Layout, scaling: float, base_model: str, num_experts: int) -> dict[str, Any]:
    """Everything that bears on the answer, spelt out so that no default of a PEFT version can change it."""
    rank = layout.rank * num_experts
    alpha = scaling * rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": list(layout.names),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Both files on the disk first; then the old configuration goes, so that no reader ever pairs old with new."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for name, data in files.items():
            with open(directory / f".{name}.new", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        (directory / CONFIG).unlink(missing_ok=True)
        for name in files:
            os.replace(directory / f".{name}.new", directory / name)
    except OSError:
        for name in files:
            (directory / f".{name}.new").unlink(missing_ok=True)
        raise


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    if not path.is_file():
        raise ValueError(f"{directory} has no {CONFIG}, so it is not a PEFT checkpoint")
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}, a PEFT configuration is an object of named entries")
    return config


def _check_base(config: Mapping[str, Any], base_model: str, path: Path) -> None:
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    same = named == base_model
    if isinstance(named, str) and Path(named).is_dir() and Path(base_model).is_dir():
        same = same or Path(named).samefile(base_model)
    if not same:
        raise ValueError(
            f"{path} was trained on base model {named!r}, this run has {base_model!r}; "
            "if they are the same weights, import with any_base"
        )
    if revision not in (None, "main"):
        raise ValueError(
            f"{path} was trained on revision {revision!r} of {named!r}, this run has 'main'; "
            "if they are the same weights, import with any_base"
        )


def _check_plain(config: Mapping[str, Any], layout: Layout, path: Path) -> float:
    """The factor on B A of a configuration that is a plain low-rank adapter of the layout's rank."""
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type is {config.get('peft_type')!r}, only 'LORA' becomes an expert")
    for key, allowed in (
        ("task_type", (None, "CAUSAL_LM")),
        ("bias", (None, "none")),
        ("init_lora_weights", LEAVES_BASE),
        ("use_rslora", (None, False, True)),
    ):
        if config.get(key) not in allowed:
            names = ", ".join(json.dumps(value) for value in allowed)
            raise ValueError(f"{path}: {key} is {config[key]!r}; a plain low-rank adapter has one of {names}")
    for key in sorted(set(config) - CHECKED - HARMLESS):
        if config[key]:
            raise ValueError(f"{path}: {key} is {config[key]!r}; a plain low-rank adapter has none")
    rank, alpha = config.get("r"), config.get("lora_alpha")  # JSON's true is no number, though Python's is
    if type(rank) is not int or rank != layout.rank:
        raise ValueError(f"{path}: r is {rank!r}, the run's adapters have rank {layout.rank}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= LARGEST:
        raise ValueError(f"{path}: lora_alpha is {alpha!r}, expected a finite number")
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _read_factors(directory: Path, layout: Layout) -> dict[tuple[str, str], Array]:
    """A and B of every layer by (name, factor), exactly those of the layout. [r, k], [d, r]"""
    path = directory / WEIGHTS
    if not path.is_file():
        pickled = any(directory.glob("*.bin"))
        hint = ", and a .bin file is a pickle, which is never read; save it again as safetensors" if pickled else ""
        raise ValueError(f"{directory} has no {WEIGHTS}{hint}")
    factors: dict[tuple[str, str], Array] = {}
    origin: dict[tuple[str, str], str] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in sorted(file.keys()):
                found = _layer_and_factor(key, path)
                if found in factors:
                    raise ValueError(
                        f"{path} names lora_{found[1]} of layer {found[0]} twice: {origin[found]} and {key}"
                    )
                origin[found] = key
                factors[found] = _array(file.get_tensor(key), key, path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read, it may be truncated: {error}") from None
    _check_shapes(factors, layout, path)
    return factors


def _layer_and_factor(key: str, path: Path) -> tuple[str, str]:
    matched = re.fullmatch(r"(.+)\.lora_([AB])\.weight", key.removeprefix(PREFIX))
    if matched is None:
        raise ValueError(
            f"{path}: tensor {key} is no lora_A.weight or lora_B.weight of a layer, nothing else may be there"
        )
    return matched[1], matched[2]


def _array(tensor: torch.Tensor, key: str, path: Path) -> Array:
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{path}: tensor {key} is {tensor.dtype}, expected float32, float16 or bfloat16")
    array: Array = tensor.float().numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: tensor {key} holds values that are not finite")
    return array


def _check_shapes(factors: Mapping[tuple[str, str], Array], layout: Layout, path: Path) -> None:
    expected = {(s.name, "A"): (layout.rank, s.in_features) for s in layout.shapes}
    expected |= {(s.name, "B"): (s.out_features, layout.rank) for s in layout.shapes}
    for name, factor in sorted(set(factors) - set(expected)):
        run = f"{layout.names[0]} ... {layout.names[-1]}"
        raise ValueError(f"{path} has lora_{factor} of layer {name}, the {len(layout.names)} of the run are {run}")
    for (name, factor), shape in expected.items():
        if (name, factor) not in factors:
            raise ValueError(f"{path} has no lora_{factor} of layer {name}, which the run adapts")
        if factors[name, factor].shape != shape:
            got = list(factors[name, factor].shape)
            raise ValueError(f"{path}: lora_{factor} of layer {name} is {got}, the run's is {list(shape)}")
