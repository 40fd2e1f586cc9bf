"""Instruction data as examples: JSONL files, Hugging Face data sets, and one sentence for whatever is wrong."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.tasks.rows import read_directory, read_hub, to_example
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Check, Example

Row = dict[str, Any]
Write = Callable[..., TaskSettings]

FREE = {"instruction": "Name a colour.", "output": "red"}
CHOICE = {
    "instruction": "Is the sky green? answer1: yes answer2: no",
    "output": "the correct answer is answer2",
    "answer": "answer2",
    "choices": ["answer1", "answer2"],
}
READ_CHOICE = Example(
    CHOICE["instruction"],
    " the correct answer is answer2",
    (" the correct answer is answer1", " the correct answer is answer2"),
)
words = st.text(min_size=1, max_size=5).filter(str.strip)


def lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Puts a text where the training split of task `colours` is looked for; the settings that find it."""

    def put(text: str, suffix: str = ".jsonl", **columns: str) -> TaskSettings:
        path = tmp_path / "colours" / f"train{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
        return TaskSettings(names=("colours",), data=str(tmp_path), **columns)

    return put


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that `load_dataset` takes for a data set; what it caches goes beside it."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "data"
    place.mkdir()
    return place


# example


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_rows_on_paper(write: Write, suffix: str) -> None:
    settings = write(lines([FREE, CHOICE]), suffix)
    assert read_directory(settings, "colours", "train") == [Example("Name a colour.", " red"), READ_CHOICE]


def test_columns_are_called_what_the_settings_say(write: Write) -> None:
    settings = write(lines([{"text": "2+2=", "label": "4"}]), prompt_column="text", answer_column="label")
    assert read_directory(settings, "colours", "train") == [Example("2+2=", " 4")]


def test_whole_outputs_can_be_the_choices() -> None:
    row = {"instruction": "Sky?", "output": "blue", "choices": ["red", "blue", "red"]}
    assert to_example(row, TaskSettings(), "x:1") == Example("Sky?", " blue", (" red", " blue"))


def test_what_a_table_fills_with_null_is_not_there() -> None:
    free = {**FREE, "answer": None, "choices": None}
    assert to_example(free, TaskSettings(), "x:1") == Example("Name a colour.", " red")
    whole = {**FREE, "answer": None, "choices": ["red", "blue"]}
    assert to_example(whole, TaskSettings(), "x:1").choices == (" red", " blue")


def test_a_plain_file_comes_before_a_compressed_one(write: Write) -> None:
    write(lines([CHOICE]), ".jsonl.gz")
    assert read_directory(write(lines([FREE])), "colours", "train") == [Example("Name a colour.", " red")]


def test_a_data_set_that_the_loader_knows(hub: Path) -> None:
    (hub / "train.jsonl").write_text(lines([CHOICE, {**FREE, "answer": None, "choices": None}]))
    (hub / "test.jsonl").write_text(lines([{**CHOICE, "instruction": "Is it?"}]))
    settings = TaskSettings(names=(str(hub),), data="hub")
    assert read_hub(settings, str(hub), "train") == [READ_CHOICE, Example("Name a colour.", " red")]
    assert read_hub(settings, str(hub), "test") == [READ_CHOICE._replace(prompt="Is it?")]


# law


@given(prompt=words, stem=st.text(max_size=5), options=st.lists(words, min_size=1, max_size=4), data=st.data())
def test_the_target_is_always_among_the_choices(
    prompt: str, stem: str, options: list[str], data: st.DataObject
) -> None:
    answer = data.draw(st.sampled_from(options))
    row = {"instruction": prompt, "output": stem + answer, "answer": answer, "choices": options}
    read = to_example(row, TaskSettings(), "x:1")
    assert (read.prompt, read.target) == (prompt, f" {stem}{answer}")
    assert read.choices.count(read.target) == 1
    assert [c.removeprefix(f" {stem}") for c in read.choices] == list(dict.fromkeys(options))


# edge


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"instruction": "a", ', "not a line of JSON: "),
        ("", "not a line of JSON: "),
        ('["a", "b"]', "a row must be a JSON object, got list"),
        ('{"output": "b"}', "'instruction' must be a text that is not empty, got None"),
        ('{"instruction": " ", "output": "b"}', "'instruction' must be a text that is not empty, got ' '"),
        ('{"instruction": "a"}', "'output' must be a text that is not empty, got None"),
        ('{"instruction": "a", "output": 4}', "'output' must be a text that is not empty, got 4"),
        ('{"instruction": "a", "output": "b", "choices": ["c", "d"]}', "answer 'b' must be one of ['c', 'd']"),
        (
            '{"instruction": "a", "output": "b c", "answer": "b", "choices": ["b"]}',
            "answer 'b' must be one of ['b'] and end the output 'b c'",
        ),
        ('{"instruction": "a", "output": "b", "answer": 2, "choices": ["b"]}', "answer 2 must be one of ['b']"),
        ('{"instruction": "a", "output": "b", "choices": "b"}', "'choices' must be a list of texts, got 'b'"),
        ('{"instruction": "a", "output": "b", "choices": ["b", ""]}', "'choices' must be a list of texts"),
    ],
)
def test_a_bad_line_is_one_sentence_with_its_place(write: Write, line: str, reason: str, suffix: str) -> None:
    settings = write(f"{lines([FREE])}{line}\n{lines([FREE])}", suffix)
    place = Path(settings.data) / "colours" / f"train{suffix}"
    with pytest.raises(ValueError, match=re.escape(f"{place}:2: {reason}")) as caught:
        read_directory(settings, "colours", "train")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_sentence(write: Write) -> None:
    settings = write(lines([FREE] * 200), ".jsonl.gz")
    path = Path(settings.data) / "colours" / "train.jsonl.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:20], b"no gzip at all", whole[:12] + bytes(20) + whole[32:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train\.jsonl\.gz cannot be read beyond line \d+: "):
            read_directory(settings, "colours", "train")


def test_a_file_that_is_no_utf8_is_one_sentence(write: Write) -> None:
    settings = write("")
    (Path(settings.data) / "colours" / "train.jsonl").write_bytes(b'{"instruction": "caf\xe9", "output": "b"}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl cannot be read beyond line 0: .*utf-8"):
        read_directory(settings, "colours", "train")


def test_an_empty_file_has_no_rows(write: Write) -> None:
    assert read_directory(write(""), "colours", "train") == []


def test_a_missing_file_is_told_what_there_is(write: Write) -> None:
    settings = write(lines([FREE]))
    with pytest.raises(ValueError, match=r"task 'colours': no test\.jsonl or test\.jsonl\.gz in .*has colours\."):
        read_directory(settings, "colours", "test")
    with pytest.raises(ValueError, match=r"task 'colors': no train\.jsonl .*has colours\. Did you mean 'colours'\?"):
        read_directory(settings, "colors", "train")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"tasks.data: there is no directory {tmp_path / 'none'}")):
        read_directory(TaskSettings(names=("colours",), data=str(tmp_path / "none")), "colours", "train")
    with pytest.raises(ValueError, match=r"one holds boolq/train\.jsonl .* To get it: .* hf download google/boolq"):
        read_directory(TaskSettings(names=("boolq",), data=str(tmp_path / "none")), "boolq", "train")


def test_what_stands_in_for_a_training_split_is_what_has_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "humaneval").mkdir()
    settings = TaskSettings(names=("humaneval",), data=str(tmp_path))
    with pytest.raises(ValueError, match=r"mbpp is taken in its place\. .* hf download google-research-datasets/mbpp"):
        read_directory(settings, "humaneval", "train")
    with pytest.raises(ValueError, match=r"has humaneval\. .* hf download openai/openai_humaneval"):
        read_directory(settings, "humaneval", "test")


def test_an_unknown_name_on_the_hub_is_one_sentence(hub: Path) -> None:
    settings = TaskSettings(names=("nobody/nothing",), data="hub")
    with pytest.raises(ValueError, match=r"^task 'nobody/nothing': its split 'train' does not load .* reach"):
        read_hub(settings, "nobody/nothing", "train")


def test_what_the_loader_finds_wrong_is_one_sentence(hub: Path) -> None:
    settings = TaskSettings(names=(str(hub),), data="hub")
    (hub / "train.jsonl").write_text(lines([FREE]))
    with pytest.raises(ValueError, match=r"its split 'dev' does not load from .*data: Unknown split \"dev\""):
        read_hub(settings, str(hub), "dev")
    (hub / "train.jsonl").write_text('{"instruction": \n')
    with pytest.raises(ValueError, match=r"does not load from .*data: JSON parse error") as caught:
        read_hub(settings, str(hub), "train")
    assert "\n" not in str(caught.value)


def test_a_row_of_a_data_set_is_named_by_its_number(hub: Path) -> None:
    (hub / "train.jsonl").write_text(lines([FREE, {"instruction": "", "output": "b"}]))
    with pytest.raises(ValueError, match=re.escape(f"{hub}/train:2: 'instruction' must be a text")):
        read_hub(TaskSettings(names=(str(hub),), data="hub"), str(hub), "train")


def test_free_answers_say_what_decides() -> None:
    number = to_example({"instruction": "1+1?", "output": "2 #### 2", "answer": "2"}, TaskSettings(), "x:1")
    assert number.check == Check("number", "", "2")
    assert number.target == " 2 #### 2"
    large = to_example({"instruction": "?", "output": "so\n#### 2,125", "answer": "2125"}, TaskSettings(), "x:1")
    assert large.check == Check("number", "", "2125")
    other = to_example({"instruction": "?", "output": "so 2,125", "answer": "2125"}, TaskSettings(), "x:1")
    assert other.check is None
    twice = to_example({"instruction": "?", "output": "#### 1\n#### 2", "answer": "2"}, TaskSettings(), "x:1")
    assert twice.check is None  # what judges would read the first
    tests = {"test": "def check(f):\n    assert f(1)", "entry_point": "g"}
    body = to_example({"instruction": "def g(x):\n", "output": "    return x\n", **tests}, TaskSettings(), "x:1")
    assert body.target == "    return x\n"  # no space, it would break the indentation
    assert body.check == Check("program", "def g(x):\n", "\ndef check(f):\n    assert f(1)\ncheck(g)\n")
    listed = to_example(
        {"instruction": "f?", "output": "x", "test_list": ["assert a", "assert b"]}, TaskSettings(), "x"
    )
    assert listed.check == Check("program", "\n", "\nassert a\nassert b\n")


def test_a_task_without_training_rows_takes_its_stand_ins(tmp_path: Path) -> None:
    for name, split in (("humaneval", "test"), ("mbpp", "train")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{split}.jsonl").write_text(json.dumps({"instruction": name, "output": "x"}) + "\n")
    settings = TaskSettings(names=("humaneval",), data=str(tmp_path))
    assert read_directory(settings, "humaneval", "train")[0].prompt == "mbpp"
    assert read_directory(settings, "humaneval", "test")[0].prompt == "humaneval"
