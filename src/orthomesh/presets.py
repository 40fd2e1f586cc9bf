"""The experiments one can ask for by name, and how files and overrides change them."""

from __future__ import annotations

import difflib
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from .config import near, parse
from .experiment import BASE, ORACLE, Evaluate, Experiment
from .methods import METHODS, TIED, MethodSettings
from .methods.gossip_lora import GossipLora
from .methods.local import Local
from .methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from .models.settings import TrainSettings
from .tasks.settings import TaskSettings
from .wireless.channel import Channel
from .wireless.link import Radio

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same reader in C, a tenth of the time, where PyYAML was built with it."""
FORMER: Mapping[str, Mapping[str, object]] = {
    "fair": {"similarity": "ridge"},
    "fedsb": {"start": "seed"},
    "fly": {"balance": 0.0},
}
"""By kind, what a method did before it had the setting, where that is not its default: older runs do not name it."""


def default() -> Experiment:
    """Ten devices, ten embedded tasks: alone, by gossip, by the paper's method in our reading and in its own."""
    return Experiment(
        workers=min(2, os.cpu_count() or 1),
        channel=Channel(radius_m=400.0),
        methods={
            "local": Local(),
            "gossip": GossipLora(),
            "orthomesh": SparseOrthogonal(),
            "paper": paper_reading(),
        },
    )


def smoke() -> Experiment:
    """The same experiment in under 40 seconds: fewer steps, fewer prompts; it shows that everything works."""
    return Experiment(
        **{
            **_fields(default()),
            "name": "smoke",
            "rounds": 2,
            "train": TrainSettings(steps=25, batch_size=16),
            "tasks": TaskSettings(train_examples=200, test_examples=20),
            "evaluate": Evaluate(every=0),
        }
    )


def paper() -> Experiment:
    """The paper's method as the paper has it, radio included, beside its baseline."""
    return Experiment(
        **{
            **_fields(default()),
            "name": "paper",
            "radio": Radio(noise="fixed", min_efficiency_bps_per_hz=0.0),
            "methods": {"gossip": GossipLora(), "paper": paper_reading()},
        }
    )


PRESETS: Mapping[str, Callable[[], Experiment]] = {"default": default, "smoke": smoke, "paper": paper}


def _fields(x: Experiment) -> dict[str, Any]:
    return {name: getattr(x, name) for name in x.__dataclass_fields__}


def plain(x: Any) -> dict[str, Any]:
    """Settings as plain values: what YAML can hold."""
    return _plain(asdict(x))  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def build(preset: str, file: Path | None, overrides: Sequence[str]) -> Experiment:
    """Settings of a run: a preset, then a YAML file, then overrides.

    Args:
        preset: a name in `PRESETS`.
        file: YAML with any part of the settings, or none.
        overrides: `key=value` with dots between levels, e.g. `train.steps=10`; values are YAML.

    Raises:
        ValueError: unknown preset, key or method, wrong type, missing or malformed file.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}.{near(preset, PRESETS)}")
    return from_plain(*overlaid(plain(PRESETS[preset]()), preset, file, overrides))


def overlaid(
    values: dict[Any, Any],
    where: str,
    file: Path | None,
    overrides: Sequence[str],
    given: Mapping[str, Any] | None = None,
) -> tuple[dict[Any, Any], str]:
    """Plain values with a YAML file, then what is given, then overrides laid over them, and what to call the place.

    Args:
        values: what to begin with.
        where: what to call that.
        file: YAML with any part of the settings, or none.
        overrides: `key=value` with dots between levels; values are YAML.
        given: values by dotted key, as they are.

    Raises:
        ValueError: a missing or malformed file, an override that is not key=value.
    """
    if file is not None:
        values, where = _over(values, read_yaml(file)), str(file)
    above = [*(given or {}).items()]
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {override}: write it as key=value, e.g. train.steps=10")
        above.append((name, _parse_yaml(text, f"--set {name}")))
    for name, nested in above:
        for step in reversed(name.split(".")):
            nested = {step: nested}
        values, where = _over(values, nested), "settings"
    return values, where


def read_yaml(file: Path) -> dict[Any, Any]:
    """A YAML file that holds settings.

    Raises:
        ValueError: missing, not text, not YAML, or not a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    values = _parse_yaml(text, str(file))
    if not isinstance(values, dict):
        raise ValueError(f"{file}: settings are a mapping of keys to values, got {type(values).__name__}")
    return values


def _parse_yaml(text: str, where: str) -> Any:
    try:
        loader = LOADER(text)
        node = loader.get_single_node()
        if (twice := _twice(node, "", set())) is not None:
            raise ValueError(f"{where}: {twice}")
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, UnicodeEncodeError) as error:  # the latter of what is no text, from the reader in C
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def _twice(node: Any, above: str, seen: set[int]) -> str | None:
    """Which key is given twice at one level, as a sentence: YAML forbids it, its reader takes the last in silence."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):  # an alias is the node it stands for
        return None
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        inside = [(f"{above}[{i}]", n) for i, n in enumerate(node.value)]
    else:
        inside = []
        lines: dict[str, int] = {}
        for k, n in node.value:
            name, line = f"{above}.{k.value}".lstrip("."), k.start_mark.line + 1
            if name in lines:
                return f"{name} stands twice, in lines {lines[name]} and {line}; keep one"
            lines[name] = line
            inside.append((name, n))
    return next((found for name, n in inside if (found := _twice(n, name, seen)) is not None), None)


def _over(below: dict[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    """`above` laid over `below`, level by level; a method whose kind changes is replaced, not mixed."""
    merged = dict(below)
    for name, value in above.items():
        old = below.get(name)
        merged[name] = value
        if isinstance(old, dict) and isinstance(value, Mapping):
            if value.get("kind", old.get("kind")) == old.get("kind"):
                merged[name] = _over(old, value)
    return merged


def from_plain(values: Mapping[Any, Any], where: str) -> Experiment:
    """Check plain values and make them an experiment; methods set to null are left out.

    Raises:
        ValueError: whatever is wrong first, with its place.
    """
    methods = values.get("methods") or {}
    if not isinstance(methods, Mapping):
        raise ValueError(f"{where}.methods: a mapping of labels to settings belongs here, got {methods!r}")
    named = [str(k) for k, v in methods.items() if isinstance(v, Mapping) and "kind" in v]
    chosen = {str(k): _method(str(k), v, where, named) for k, v in methods.items() if v is not None}
    return parse(Experiment, {**values, "methods": chosen}, where)


def of_run(directory: Path) -> Experiment:
    """The experiment a run directory was begun with, whatever defaults were then.

    Args:
        directory: of a run; what its `config.yaml` does not name of a method is as it was before it had a name.

    Raises:
        ValueError: no such file, or whatever is wrong in it first.
    """
    values, where = read_yaml(directory / "config.yaml"), str(directory / "config.yaml")
    methods = values.get("methods")
    if isinstance(methods, Mapping):
        known = {k: v for k, v in methods.items() if isinstance(v, Mapping) and v.get("kind") in FORMER}
        values = {**values, "methods": {**methods, **{k: {**FORMER[v["kind"]], **v} for k, v in known.items()}}}
    return from_plain(values, where)


def _method(label: str, values: Any, where: str, named: Sequence[str]) -> MethodSettings:
    """One method's settings; `named` are the labels that have all they need, of which a mistyped one may be meant."""
    place = f"{where}.methods.{label}"
    if label in (BASE, ORACLE) or not label.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{place}: a label is made of letters, digits, - and _, and not {BASE} or {ORACLE}")
    if not isinstance(values, Mapping) or "kind" not in values:
        meant = difflib.get_close_matches(label, named, n=1)
        hint = f"did you mean the label {meant[0]!r}? " if meant else ""
        raise ValueError(f"{place}: {hint}a method needs its kind, one of {', '.join(METHODS)}")
    kind = str(values["kind"])
    if kind not in METHODS:
        raise ValueError(f"{place}.kind: there is no method {kind!r}.{near(kind, METHODS)}")
    if "topology" in values and kind in TIED:
        raise ValueError(f"{place}.topology: {kind} has none to choose, {TIED[kind]}")
    method: MethodSettings = parse(METHODS[kind], values, place)
    return method


def explain(x: Any) -> str:
    """All settings as YAML with a comment before each; reading it back gives the same settings."""
    return "\n".join(_explained(x, 0))


def _explained(record: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, info in record.__pydantic_fields__.items():
        value = getattr(record, name)
        for text in textwrap.wrap(" ".join((info.description or "").split()), 100 - len(pad)):
            yield f"{pad}# {text}"
        if hasattr(value, "__pydantic_fields__"):
            yield f"{pad}{name}:"
            yield from _explained(value, depth + 1)
        elif name == "methods":
            yield f"{pad}{name}:"
            for label, method in value.items():
                yield f"{pad}  {label}:"
                yield from _explained(method, depth + 2)
        else:
            text = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000).removesuffix("...\n").strip()
            yield f"{pad}{name}: {text}"
