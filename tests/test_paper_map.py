"""Every numbered equation of the paper is mapped to a function that names it and to a test that exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = tomllib.loads((ROOT / "docs" / "paper_map.toml").read_text(encoding="utf-8"))["eq"]
BUILT = sorted((int(n) for n, e in MAP.items() if e["status"] == "built"))


def test_all_thirty_five_equations_are_there() -> None:
    assert sorted(int(n) for n in MAP) == list(range(1, 36))
    assert {e["status"] for e in MAP.values()} <= {"built", "open", "statement"}
    assert all(e["what"] for e in MAP.values())


@pytest.mark.parametrize("number", BUILT)
def test_the_function_names_its_equation(number: int) -> None:
    module, _, name = MAP[str(number)]["function"].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    words = inspect.getdoc(function) or ""
    assert re.search(rf"\({number}[a-c]?\)", words), f"{name} does not name ({number})"


@pytest.mark.parametrize("number", BUILT)
def test_the_test_exists(number: int) -> None:
    file, _, name = MAP[str(number)]["test"].partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_what_is_open_or_a_statement_claims_no_function() -> None:
    assert all("function" not in e for e in MAP.values() if e["status"] != "built")
