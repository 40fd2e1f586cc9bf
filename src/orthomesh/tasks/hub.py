"""The paper's data sets as they lie on the hub: where, under which columns, and as which prompts of ours.

Prompts of questions with choices are those of LLM-Adapters (arXiv 2304.01933), whose files the paper's code family
trains and tests on: the options are numbered, the answer names one, and BoolQ is asked without its passage. Where a
data set keeps the answers of its test split to itself, its validation split is the test, as there. Neither an
instruction template nor a chat template is put around a prompt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Source(NamedTuple):
    """One data set. path: on the hub. config: of several, which. train, test: splits, none where it has none. convert:
    a row's columns into ours, none for a row that is left out."""

    path: str
    config: str | None
    train: str | None
    test: str
    convert: Callable[[Row], dict[str, Any] | None]


def numbered(
    prompt: str, kind: str, options: Sequence[str], right: int, between: str = " ", after: str = "\n\n"
) -> dict[str, Any]:
    """A question whose options are numbered and whose answer names one.

    Args:
        prompt: what comes before the options.
        kind: what an option is called: answer, solution, ending, option.
        options: their texts.
        right: index of the right one, from 0.
        between: two options. after: the last one.

    >>> row = numbered("Sky?", "answer", ("red", "blue"), 1)
    >>> row["instruction"], row["output"]
    ('Sky?\\n\\nAnswer1: red Answer2: blue\\n\\nAnswer format: answer1/answer2', 'the correct answer is answer2')
    """
    if not 0 <= right < len(options):
        raise ValueError(f"answer {right + 1} of {len(options)}")
    names = [f"{kind}{n}" for n in range(1, len(options) + 1)]
    listed = between.join(f"{name.capitalize()}: {text}" for name, text in zip(names, options, strict=True))
    return {
        "instruction": f"{prompt}\n\n{listed}{after}Answer format: {'/'.join(names)}",
        "output": f"the correct answer is {names[right]}",
        "answer": names[right],
        "choices": names,
    }


CORRECT = "Please choose the correct answer to"


def _boolq(row: Row) -> dict[str, Any]:
    answer = {True: "true", False: "false"}[row["answer"]]
    asked = f"Please answer the following question with true or false, question: {row['question']}?"
    return {
        "instruction": f"{asked}\n\nAnswer format: true/false",
        "output": f"the correct answer is {answer}",
        "answer": answer,
        "choices": ["true", "false"],
    }


def _piqa(row: Row) -> dict[str, Any]:
    asked = f"Please choose the correct solution to the question: {row['goal']}"
    return numbered(asked, "solution", (row["sol1"], row["sol2"]), int(row["label"]), between="\n\n")


def _social_i_qa(row: Row) -> dict[str, Any]:
    asked = f"{CORRECT} the question: {row['context']} {row['question']}"
    return numbered(asked, "answer", [row[f"answer{c}"] for c in "ABC"], int(row["label"]) - 1)


def _listed(row: Row, question: str) -> dict[str, Any]:
    """ARC and OpenBookQA: texts and labels of the options in two lists, A to D or 1 to 4."""
    options = row["choices"]
    return numbered(
        f"{CORRECT} the question: {row[question]}", "answer", options["text"],
        list(options["label"]).index(row["answerKey"].strip()),
    )  # fmt: skip


def _arc(row: Row) -> dict[str, Any]:
    return _listed(row, "question")


def _openbookqa(row: Row) -> dict[str, Any]:
    return _listed(row, "question_stem")


def _hellaswag(row: Row) -> dict[str, Any]:
    begun = f"{row['activity_label']}: {row['ctx']}"
    asked = f"Please choose the correct ending to complete the given sentence: {begun}"
    return numbered(asked, "ending", row["endings"], int(row["label"]))


def _winogrande(row: Row) -> dict[str, Any]:
    asked = f"{CORRECT} fill in the blank to complete the given sentence: {row['sentence']}"
    return numbered(asked, "option", (row["option1"], row["option2"]), int(row["answer"]) - 1, after=" ")


def _scienceqa(row: Row) -> dict[str, Any] | None:
    """Questions with an image are left out, as a language model cannot see it."""
    if row["image"] is not None:
        return None
    return numbered(f"{CORRECT} the question: {row['question']}", "answer", row["choices"], int(row["answer"]))


def _gsm8k(row: Row) -> dict[str, Any]:
    """The solution without its calculator marks; the number behind `####` is what counts."""
    solution = re.sub(r"<<.*?>>", "", row["answer"])
    return {"instruction": row["question"], "output": solution, "answer": solution.partition("####")[2].strip()}


def _humaneval(row: Row) -> dict[str, Any]:
    tests = {name: row[name] for name in ("task_id", "test", "entry_point")}
    return {"instruction": row["prompt"], "output": row["canonical_solution"], **tests}


def _mbpp(row: Row) -> dict[str, Any]:
    """The first test is shown, as it says what the function is called."""
    return {
        "instruction": f"{row['text']}\nYour code should pass this test:\n{row['test_list'][0]}",
        "output": row["code"].replace("\r\n", "\n"),
        "test_list": list(row["test_list"]),
        "test_setup_code": row.get("test_setup_code") or "",
    }


def _dolly(row: Row) -> dict[str, Any]:
    told = f"{row['instruction']}\n\n{row['context']}" if row["context"].strip() else row["instruction"]
    return {"instruction": told, "output": row["response"]}


SOURCES: Mapping[str, Source] = {
    "boolq": Source("google/boolq", None, "train", "validation", _boolq),
    "piqa": Source("baber/piqa", None, "train", "validation", _piqa),
    "social_i_qa": Source("lighteval/siqa", None, "train", "validation", _social_i_qa),
    "gsm8k": Source("openai/gsm8k", "main", "train", "test", _gsm8k),
    "arc_easy": Source("allenai/ai2_arc", "ARC-Easy", "train", "test", _arc),
    "arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", "train", "test", _arc),
    "hellaswag": Source("Rowan/hellaswag", None, "train", "validation", _hellaswag),
    "winogrande": Source("allenai/winogrande", "winogrande_xl", "train", "validation", _winogrande),
    "openbookqa": Source("allenai/openbookqa", "main", "train", "test", _openbookqa),
    "humaneval": Source("openai/openai_humaneval", None, None, "test", _humaneval),
    "mbpp": Source("google-research-datasets/mbpp", "full", "train+validation+prompt", "test", _mbpp),
    "scienceqa": Source("derek-thomas/ScienceQA", None, "train", "test", _scienceqa),
    "dolly": Source("databricks/databricks-dolly-15k", None, "train[:90%]", "train[90%:]", _dolly),
}
"""By task. PIQA and SocialIQA are copies in Parquet, as the originals are scripts that `datasets` no longer runs."""


def ours(task: str, row: Row, columns: tuple[str, str], where: str) -> Row | None:
    """A row under our columns: as it is if it has them already, or if the task is none of the paper's.

    Args:
        task: its name.
        row: as it was read.
        columns: of prompt and answer, as the settings call them.
        where: what to call the row in an error.

    Returns:
        The row; none where it is left out.

    Raises:
        ValueError: a row that is not as the data set has them.
    """
    if task not in SOURCES or all(column in row for column in columns):
        return row
    try:
        return SOURCES[task].convert(row)
    except KeyError as error:
        raise ValueError(
            f"{where}: a row of {task} has the columns {' and '.join(columns)}, or those of {SOURCES[task].path}; this "
            f"one lacks {error} and has {', '.join(row)}"
        ) from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{where}: not a row as {SOURCES[task].path} has them: {error}") from None


def how_to_get(task: str, others: Iterable[str] = ()) -> str:
    """A sentence on how a data set is had, or which of these and `others` the name may mean.

    >>> how_to_get("bolq")
    " Did you mean 'boolq'?"
    """
    if task not in SOURCES:
        close = difflib.get_close_matches(task, [*others, *SOURCES], n=1)
        return f" Did you mean {close[0]!r}?" if close else ""
    return (
        f" To get it: where there is a network, hf download {SOURCES[task].path} --repo-type dataset --local-dir "
        f"DIR/{task}; then --data DIR"
    )
