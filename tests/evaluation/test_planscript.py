"""Script and style of the page: what they look for is there, and nothing they do needs a network."""

from __future__ import annotations

import re

from orthomesh.evaluation.planpage import page
from orthomesh.evaluation.planscript import SCRIPT, STYLE
from orthomesh.planning.plan import plan
from orthomesh.planning.settings import PlanSettings


def test_what_the_script_looks_for_is_on_the_page() -> None:
    text = page(plan(PlanSettings(devices=8)))
    for name in set(re.findall(r'querySelector(?:All)?\("#([\w-]+)', SCRIPT)):
        assert f'id="{name}"' in text, name
    for name in set(re.findall(r'querySelectorAll\("\[(data-\w+)\]"\)', SCRIPT)):
        assert f"{name}=" in text, name
    for name in re.findall(r'data-layer="(\w+)"', text):
        assert f'<g class="{name}"' in text, name


def test_brackets_are_closed_and_nothing_is_fetched() -> None:
    bare = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "", SCRIPT)
    for one, other in ("()", "{}", "[]"):
        assert bare.count(one) == bare.count(other)
        assert STYLE.count(one) == STYLE.count(other)
    assert not re.search(r"fetch\(|XMLHttpRequest|import |url\(|eval\(", SCRIPT + STYLE)
