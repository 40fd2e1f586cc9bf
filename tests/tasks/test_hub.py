"""The paper's data sets: one hand-made row under each one's own columns, as the prompt LLM-Adapters makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orthomesh.reproduction.printed import TASKS
from orthomesh.tasks.hub import SOURCES, how_to_get, numbered, ours
from orthomesh.tasks.rows import STAND_INS, read_directory, read_hub, to_example
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Check

COLUMNS = ("instruction", "output")
FOUR = {"text": ["Sun", "Moon", "Mars", "Ice"], "label": ["A", "B", "C", "D"]}

ROWS: dict[str, dict[str, Any]] = {
    "boolq": {"question": "is ice cold", "passage": "Ice is frozen water.", "answer": True},
    "piqa": {"goal": "dry a cup", "sol1": "use a towel", "sol2": "use water", "label": 0},
    "social_i_qa": {
        "context": "Ann fell.", "question": "How does Ann feel?",
        "answerA": "hurt", "answerB": "glad", "answerC": "rich", "label": "1",
    },
    "arc_easy": {"id": "M1", "question": "What warms us?", "choices": FOUR, "answerKey": "A"},
    "arc_challenge": {
        "id": "M2", "question": "What is red?", "choices": {**FOUR, "label": ["1", "2", "3", "4"]}, "answerKey": "3",
    },
    "openbookqa": {"id": "7-1", "question_stem": "What melts is", "choices": FOUR, "answerKey": "D"},
    "hellaswag": {
        "ind": 4, "activity_label": "Canoeing", "ctx_a": "A man rows.", "ctx_b": "he", "ctx": "A man rows. he",
        "endings": ["stops.", "flies.", "melts.", "sings."], "source_id": "x~1", "split": "val", "label": "0",
    },
    "winogrande": {"sentence": "The _ is wet.", "option1": "sea", "option2": "fire", "answer": "1"},
    "scienceqa": {"image": None, "question": "Is ice solid?", "choices": ["no", "yes"], "answer": 1, "hint": ""},
    "gsm8k": {"question": "1+1?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 2"},
    "humaneval": {
        "task_id": "HumanEval/0", "prompt": "def one():\n", "canonical_solution": "    return 1\n",
        "test": "def check(f):\n    assert f() == 1", "entry_point": "one",
    },
    "mbpp": {
        "task_id": 601, "text": "Write a function that gives 1.", "code": "def one():\r\n    return 1",
        "test_list": ["assert one() == 1", "assert one() != 2"], "test_setup_code": "", "challenge_test_list": [],
    },
    "dolly": {"instruction": "Who?", "context": "Ann came.", "response": "Ann.", "category": "closed_qa"},
}  # fmt: skip

PROMPTS = {
    "boolq": "Please answer the following question with true or false, question: is ice cold?\n\n"
    "Answer format: true/false",
    "piqa": "Please choose the correct solution to the question: dry a cup\n\nSolution1: use a towel\n\n"
    "Solution2: use water\n\nAnswer format: solution1/solution2",
    "social_i_qa": "Please choose the correct answer to the question: Ann fell. How does Ann feel?\n\n"
    "Answer1: hurt Answer2: glad Answer3: rich\n\nAnswer format: answer1/answer2/answer3",
    "hellaswag": "Please choose the correct ending to complete the given sentence: Canoeing: A man rows. he\n\n"
    "Ending1: stops. Ending2: flies. Ending3: melts. Ending4: sings.\n\n"
    "Answer format: ending1/ending2/ending3/ending4",
    "winogrande": "Please choose the correct answer to fill in the blank to complete the given sentence: "
    "The _ is wet.\n\nOption1: sea Option2: fire Answer format: option1/option2",
    "scienceqa": "Please choose the correct answer to the question: Is ice solid?\n\nAnswer1: no Answer2: yes\n\n"
    "Answer format: answer1/answer2",
    "mbpp": "Write a function that gives 1.\nYour code should pass this test:\nassert one() == 1",
    "dolly": "Who?\n\nAnn came.",
}
ANSWERS = {
    "boolq": "true", "piqa": "solution1", "social_i_qa": "answer1", "arc_easy": "answer1", "arc_challenge": "answer3",
    "openbookqa": "answer4", "hellaswag": "ending1", "winogrande": "option1", "scienceqa": "answer2",
}  # fmt: skip


# example


@pytest.mark.parametrize("task", SOURCES)
def test_a_row_of_each_on_paper(task: str) -> None:
    row = ours(task, ROWS[task], COLUMNS, "x:1")
    assert row is not None
    read = to_example(row, TaskSettings(), "x:1")
    assert read.prompt == PROMPTS.get(task, read.prompt)
    if task in ANSWERS:
        assert read.target == f" the correct answer is {ANSWERS[task]}"
        assert read.target in read.choices


def test_arc_counts_its_options_whatever_they_are_called() -> None:
    asked = {"arc_easy": "What warms us?", "arc_challenge": "What is red?", "openbookqa": "What melts is"}
    for task, what in asked.items():
        assert ours(task, ROWS[task], COLUMNS, "x:1")["instruction"] == (  # type: ignore[index]
            f"Please choose the correct answer to the question: {what}\n\nAnswer1: Sun Answer2: Moon Answer3: Mars "
            "Answer4: Ice\n\nAnswer format: answer1/answer2/answer3/answer4"
        )


def test_free_answers_are_judged_by_what_decides_them() -> None:
    read = {
        t: to_example(ours(t, ROWS[t], COLUMNS, "x") or {}, TaskSettings(), "x") for t in ("gsm8k", "humaneval", "mbpp")
    }
    assert (read["gsm8k"].target, read["gsm8k"].check) == (" It is 1+1=2.\n#### 2", Check("number", "", "2"))
    assert read["humaneval"].check == Check("program", "def one():\n", f"\n{ROWS['humaneval']['test']}\ncheck(one)\n")
    assert read["mbpp"].target == "def one():\n    return 1"
    assert read["mbpp"].check == Check("program", "\n", "\nassert one() == 1\nassert one() != 2\n")


def test_every_column_of_the_tables_has_its_data_set() -> None:
    assert set(TASKS) <= set(SOURCES)
    assert all(source.train or STAND_INS[task] in SOURCES for task, source in SOURCES.items())


# reference: the loader itself, on files as the hub has them


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A data directory with one task's splits in Parquet, as a download leaves them."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def put(task: str, card: str = "", **splits: list[dict[str, Any]]) -> Path:
        (tmp_path / "data" / task).mkdir(parents=True)
        for split, rows in splits.items():
            table = datasets.Dataset.from_list(rows)
            table.to_parquet(tmp_path / "data" / task / f"{split}-00000-of-00001.parquet")
        if card:
            (tmp_path / "data" / task / "README.md").write_text(card)
        return tmp_path / "data"

    return put


def test_a_downloaded_copy_stands_in_for_the_hub(copy: Callable[..., Path]) -> None:
    data = copy("boolq", train=[ROWS["boolq"]], validation=[ROWS["boolq"] | {"answer": False}])
    settings = TaskSettings(names=("boolq",), data=str(data))
    assert [e.target for e in read_directory(settings, "boolq", "train")] == [" the correct answer is true"]
    assert [e.target for e in read_directory(settings, "boolq", "test")] == [" the correct answer is false"]


def test_a_copy_with_several_configurations_gives_the_right_one(copy: Callable[..., Path]) -> None:
    files = "\n".join(
        f"- config_name: {name}\n  data_files:\n  - {{split: test, path: {path}-*}}"
        for name, path in (("ARC-Challenge", "other"), ("ARC-Easy", "test"))
    )
    data = copy("arc_easy", f"---\nconfigs:\n{files}\n---\n", other=[ROWS["arc_challenge"]], test=[ROWS["arc_easy"]])
    settings = TaskSettings(names=("arc_easy",), data=str(data))
    assert "What warms us?" in read_directory(settings, "arc_easy", "test")[0].prompt


def test_lines_in_a_data_sets_own_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "dolly").mkdir()
    (tmp_path / "dolly" / "train.jsonl").write_text(json.dumps(ROWS["dolly"]) + "\n")
    settings = TaskSettings(names=("dolly",), data=str(tmp_path), prompt_column="text", answer_column="label")
    assert read_directory(settings, "dolly", "train")[0].target == " Ann."


# edge


def test_what_is_ours_already_stays() -> None:
    row = {"instruction": "a", "output": "b"}
    assert ours("boolq", row, COLUMNS, "x:1") is row
    assert ours("nobody/nothing", {"a": 1}, COLUMNS, "x:1") == {"a": 1}


def test_a_question_with_an_image_is_left_out() -> None:
    assert ours("scienceqa", {**ROWS["scienceqa"], "image": {"bytes": b"x"}}, COLUMNS, "x:1") is None


@pytest.mark.parametrize(
    ("task", "change", "sentence"),
    [
        ("piqa", {"goal": None}, None),
        ("piqa", {"label": -1}, "x:3: not a row as baber/piqa has them: answer 0 of 2"),
        ("hellaswag", {"label": ""}, "x:3: not a row as Rowan/hellaswag has them: invalid literal"),
        ("arc_easy", {"answerKey": "E"}, "x:3: not a row as allenai/ai2_arc has them: 'E' is not in list"),
        ("dolly", {"context": None}, "x:3: not a row as databricks/databricks-dolly-15k has them"),
    ],
)
def test_a_row_that_is_not_one_is_named(task: str, change: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        row = {k: v for k, v in ROWS[task].items() if k not in change}
        sentence = (
            "x:3: a row of piqa has the columns instruction and output, or those of baber/piqa; this one lacks 'goal'"
        )
    else:
        row = ROWS[task] | change
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ours(task, row, COLUMNS, "x:3")


def test_an_answer_outside_its_options_is_refused() -> None:
    with pytest.raises(ValueError, match="answer 3 of 2"):
        numbered("?", "answer", ("a", "b"), 2)


def test_a_data_set_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not load from the hub \(google/boolq\): .* hf download google/boolq"):
        read_hub(TaskSettings(names=("boolq",), data="hub"), "boolq", "train")
    (tmp_path / "piqa").mkdir()
    with pytest.raises(ValueError, match=r"has piqa\. To get it: .* hf download Rowan/hellaswag"):
        read_directory(TaskSettings(names=("hellaswag",), data=str(tmp_path)), "hellaswag", "test")
    with pytest.raises(ValueError, match=r"Did you mean 'boolq'\?"):
        read_directory(TaskSettings(names=("bolq",), data=str(tmp_path)), "bolq", "test")
    assert how_to_get("owner/name") == ""
