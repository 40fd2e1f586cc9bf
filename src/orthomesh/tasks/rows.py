"""Rows of instruction data, from JSONL files or Hugging Face data sets, as examples."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..types import Check, Example
from .settings import TaskSettings

STAND_INS = {"humaneval": "mbpp"}
"""Tasks without a training split of their own, and whose is taken."""


def read_jsonl(settings: TaskSettings, task: str, split: str) -> list[Example]:
    """All examples of NAME/SPLIT.jsonl or NAME/SPLIT.jsonl.gz under the data directory.

    Each line is an object with the prompt and the answer under the settings' columns; optional `answer` (the
    part of the output that is scored) and `choices` (admissible answers).

    Raises:
        ValueError: directory, file or column missing, a damaged file, a line that is no JSON object, an empty prompt
            or answer.
    """
    root = Path(settings.data)
    if not root.is_dir():
        raise ValueError(f"tasks.data: there is no directory {root}")
    folder = root / task
    if split == "train" and task in STAND_INS and (root / STAND_INS[task]).is_dir():
        folder = root / STAND_INS[task]
    found = [p for p in (folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz") if p.is_file()]
    if not found:
        known = sorted(p.name for p in root.iterdir() if p.is_dir())
        raise ValueError(f"task {task!r}: no {split}.jsonl or {split}.jsonl.gz in {folder}; {root} has {known}")
    return [to_example(row, settings, f"{found[0]}:{number}") for number, row in _lines(found[0])]


def read_hub(settings: TaskSettings, task: str, split: str) -> list[Example]:
    """All examples of one split of a data set that `datasets.load_dataset` can load by name or directory.

    Raises:
        ValueError: not to be had, no such split, or a row without the columns.
    """
    from datasets import load_dataset

    try:
        table = load_dataset(task, split=split)
    except Exception as error:  # whatever the loader finds wrong, the user needs one sentence
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(f"task {task!r}: its split {split!r} does not load from the hub: {reason}") from None
    return [to_example(dict(row), settings, f"{task}/{split}:{n + 1}") for n, row in enumerate(table)]


def to_example(row: Mapping[str, Any], settings: TaskSettings, where: str) -> Example:
    """One row as prompt, target and, where answers are chosen, every admissible target.

    >>> to_example({"instruction": "Sky?", "output": "it is blue", "answer": "blue", "choices": ["blue", "red"]},
    ...            TaskSettings(), "x:1").choices
    (' it is blue', ' it is red')
    """
    prompt, output = (row.get(c) for c in (settings.prompt_column, settings.answer_column))
    for column, text in ((settings.prompt_column, prompt), (settings.answer_column, output)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {column!r} must be a text that is not empty, got {text!r}")
    assert isinstance(prompt, str)
    assert isinstance(output, str)
    choices = row.get("choices")
    if not choices:
        check = check_of(row, prompt)
        glue = "" if check is not None and check.kind == "program" else " "  # a space would break the indentation
        return Example(prompt, glue + output, check=check)
    answer = output if row.get("answer") is None else row["answer"]  # tables fill what a row lacks with null
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        raise ValueError(f"{where}: 'choices' must be a list of texts, got {choices!r}")
    if answer not in choices or not output.endswith(answer):
        raise ValueError(f"{where}: answer {answer!r} must be one of {choices} and end the output {output!r}")
    stem = output.removesuffix(answer)
    return Example(prompt, " " + output, tuple(f" {stem}{c}" for c in dict.fromkeys(choices)))


def check_of(row: Mapping[str, Any], prompt: str) -> Check | None:
    """What decides over a free answer, where the row says so.

    HumanEval's columns `test` and `entry_point`, MBPP's `test_list` (and `test_setup_code`), or `answer`, a number that
    ends the output behind `####` as GSM8K has it.

    >>> check_of({"output": "1+1=2 #### 2", "answer": "2"}, "1+1?")
    Check(kind='number', before='', after='2')
    """
    if row.get("test") and row.get("entry_point"):
        return Check("program", prompt, f"\n{row['test']}\ncheck({row['entry_point']})\n")
    if row.get("test_list"):
        return Check("program", f"{row.get('test_setup_code') or ''}\n", "\n" + "\n".join(row["test_list"]) + "\n")
    output, answer = str(row.get("output", "")), row.get("answer")
    if isinstance(answer, str) and output.endswith(f"#### {answer}"):
        return Check("number", "", answer)
    return None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{path}:{number}: a row must be a JSON object, got {type(row).__name__}")
                yield number, row
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: not a line of JSON: {error.msg}") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read beyond line {number}: {error}") from None
