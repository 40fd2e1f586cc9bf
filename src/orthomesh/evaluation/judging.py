"""Whether a free answer is right by what it says: the last number in it, or a program that passes its tests."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from ..types import Check
from .sandbox import run_program

Verdict = Literal["right", "wrong", "unread"]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
END = re.compile(r"\n(?=def |class |if |print\(|#|@|assert )")
"""Where an answer that goes on with a function's body has left it."""


def judge(check: Check, text: str) -> Verdict:
    """Right, wrong, or no answer at all, which counts as wrong and is counted.

    Args:
        check: what decides.
        text: what was written after the prompt.

    Raises:
        ValueError: a program cannot be run locked down on this machine.

    >>> judge(Check("number", "", "1,200"), "so 3 * 400 = 1200.0"), judge(Check("number", "", "3"), "no idea")
    ('right', 'unread')
    """
    if check.kind == "number":
        found = last_number(text)
        if found is None:
            return "unread"
        return "right" if found == last_number(check.after) else "wrong"
    code = answered_code(text, check.before)
    if not code.strip():
        return "unread"
    return "right" if run_program(check.before + code + check.after) else "wrong"


def last_number(text: str) -> Decimal | None:
    """The last number, thousands separators aside; the first behind the first `####` where there is one.

    That is how GSM8K marks it, and a model that writes on may mark the answers to questions of its own.

    >>> last_number("2/2=1 #### 1,234 bolts of 5"), last_number("none")
    (Decimal('1234'), None)
    """
    head, mark, tail = text.partition("####")
    found = NUMBER.findall(tail)[:1] if mark else NUMBER.findall(head)[-1:]
    return Decimal(found[0].replace(",", "")) if found else None


def answered_code(text: str, before: str) -> str:
    """The program in an answer: what is fenced, else everything; a function's body ends where something else begins.

    >>> answered_code("```python\\nx = 1\\n```", "")
    'x = 1\\n'
    """
    fenced = re.search(r"```(?:python)?\n(.*?)(?:```|\Z)", text, re.DOTALL)
    code = fenced[1] if fenced else text
    goes_on = before.rstrip().endswith(('"""', "'''", ":"))
    return END.split(code)[0] + "\n" if goes_on and not fenced else code
