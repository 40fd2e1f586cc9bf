"""Rows of instruction data, from JSONL files or Hugging Face data sets, as examples."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..types import Check, Example
from .hub import SOURCES, how_to_get, ours
from .settings import TaskSettings

STAND_INS = {"humaneval": "mbpp"}
"""Tasks without a training split of their own, and whose is taken."""


def read_directory(settings: TaskSettings, task: str, split: str) -> list[Example]:
    """All examples of a task under the data directory: of NAME/SPLIT.jsonl or NAME/SPLIT.jsonl.gz, else of a copy of
    a data set of the hub in NAME, as `hf download` leaves it (Parquet, JSON Lines).

    Each row has the prompt and the answer under the settings' columns, with optional `answer` (the part of the output
    that is scored) and `choices` (admissible answers); or it is one of the paper's data sets under its own columns.

    Raises:
        ValueError: directory, file or column missing, a damaged file, a line that is no JSON object, an empty prompt
            or answer.
    """
    root = Path(settings.data)
    if not root.is_dir():
        raise ValueError(
            f"tasks.data: there is no directory {root}; one holds {task}/train.jsonl and {task}/test.jsonl, rows with "
            f"instruction, output and, where one is chosen, answer and choices.{how_to_get(task)}"
        )
    if split == "train" and task in STAND_INS and (root / STAND_INS[task]).is_dir():
        task = STAND_INS[task]
    folder = root / task
    found = [p for p in (folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz") if p.is_file()]
    if found:
        return _examples(_lines(found[0]), settings, task)
    kinds = (".parquet", ".jsonl", ".json") if task in SOURCES else (".parquet",)
    if any(p.suffix in kinds for p in folder.rglob("*")):
        return _loaded(settings, task, split, str(folder))
    known = sorted(p.name for p in root.iterdir() if p.is_dir())
    stand_in = STAND_INS.get(task, task) if split == "train" else task
    why = f" {task} has no training split of its own, {stand_in} is taken in its place." if stand_in != task else ""
    raise ValueError(
        f"task {task!r}: no {split}.jsonl or {split}.jsonl.gz in {folder}; {root} has {', '.join(known)}.{why}"
        f"{how_to_get(stand_in, known)}"
    )


def read_hub(settings: TaskSettings, task: str, split: str) -> list[Example]:
    """All examples of one split of a data set on the hub: of the paper's by our names, of others by theirs, or by
    directory.

    Raises:
        ValueError: not to be had, no such split, or a row without the columns.
    """
    if split == "train" and task in STAND_INS:
        task = STAND_INS[task]
    return _loaded(settings, task, split, SOURCES[task].path if task in SOURCES else task)


def _loaded(settings: TaskSettings, task: str, split: str, place: str) -> list[Example]:
    """What `datasets.load_dataset` makes of a place: a name on the hub or a directory."""
    from datasets import Image, get_dataset_config_names, load_dataset

    source = SOURCES.get(task)
    config, name = None, split
    if source is not None:
        config, name = source.config, (source.train if split == "train" else source.test) or split
    try:
        if Path(place).is_dir() and config not in get_dataset_config_names(place):
            config = None  # files without a card have one configuration
        table = load_dataset(place, config, split=name)
        for column in [c for c, kind in table.features.items() if isinstance(kind, Image)]:
            table = table.cast_column(column, Image(decode=False))  # nobody looks at it
    except Exception as error:  # whatever the loader finds wrong, the user needs one sentence
        reason = " ".join(str(error.__cause__ or error).split())[:300].rstrip(".")
        raise ValueError(
            f"task {task!r}: its split {name!r} does not load from {_called(place)}: {reason}.{how_to_get(task)}"
        ) from None
    return _examples(((f"{place}/{name}:{n + 1}", dict(row)) for n, row in enumerate(table)), settings, task)


def _called(place: str) -> str:
    return place if Path(place).is_dir() else f"the hub ({place})"


def _examples(rows: Iterable[tuple[str, Mapping[str, Any]]], settings: TaskSettings, task: str) -> list[Example]:
    """Rows with their places as examples, data sets' own columns turned into ours."""
    columns = (settings.prompt_column, settings.answer_column)
    found = []
    for where, row in rows:
        made = ours(task, row, columns, where)
        if made is not None:
            found.append(to_example(made, settings if made is row else TaskSettings(), where))
    return found


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
    ends the output behind its only `####` as GSM8K has it, with or without separators of thousands.

    >>> check_of({"output": "1+1=2 #### 2", "answer": "2"}, "1+1?")
    Check(kind='number', before='', after='2')
    """
    if row.get("test") and row.get("entry_point"):
        return Check("program", prompt, f"\n{row['test']}\ncheck({row['entry_point']})\n")
    if row.get("test_list"):
        return Check("program", f"{row.get('test_setup_code') or ''}\n", "\n" + "\n".join(row["test_list"]) + "\n")
    (_, mark, ending), answer = str(row.get("output", "")).partition("####"), row.get("answer")
    if isinstance(answer, str) and mark and ending.strip().replace(",", "") == answer.replace(",", ""):
        return Check("number", "", answer)
    return None


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, each with its place."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{path}:{number}: a row must be a JSON object, got {type(row).__name__}")
                yield f"{path}:{number}", row
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: not a line of JSON: {error.msg}") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read beyond line {number}: {error}") from None
