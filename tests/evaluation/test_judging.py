"""Free answers judged by what they say."""

from __future__ import annotations

import pytest

from orthomesh.evaluation.judging import answered_code, judge, last_number
from orthomesh.evaluation.sandbox import locked_down
from orthomesh.types import Check


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("2/2=1\n2+1=3\n#### 3", "right"),
        ("The answer is 3.", "right"),
        ("3.0", "right"),
        ("#### 4, not 3", "wrong"),
        ("1+2=3\n#### 3\n\nQuestion: 2+2?\nAnswer: 2+2=4\n#### 4", "right"),  # it asks and answers on
        ("#### 4\n\n#### 3", "wrong"),
        ("it is 3\n####", "unread"),
        ("-3", "wrong"),
        ("three", "unread"),
        ("", "unread"),
        ("13", "wrong"),
    ],
)
def test_the_last_number_decides(text: str, verdict: str) -> None:
    assert judge(Check("number", "", "3"), text) == verdict


def test_thousands_and_signs() -> None:
    assert last_number("costs $-1,234.50 in all") == last_number("-1234.5")


def test_the_program_of_an_answer() -> None:
    body = "    return x\n\nprint(f(1))"
    assert answered_code(body, 'def f(x):\n    """Same."""\n') == "    return x\n\n"
    assert answered_code("Here:\n```python\ny = 2\n```\nDone", "") == "y = 2\n"


@pytest.mark.skipif(not locked_down(), reason="no user namespaces here")
def test_a_program_is_run_against_its_tests() -> None:
    check = Check("program", 'def add(a, b):\n    """Sum."""\n', "\nassert add(1, 2) == 3\n")
    assert judge(check, "    return a + b\n\nprint(nothing)") == "right"
    assert judge(check, "    return a - b\n") == "wrong"
    assert judge(check, "\n") == "unread"
