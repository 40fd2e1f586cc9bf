"""The shape of the house: imports point down, files and functions stay short, every file has its test."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "orthomesh"
FILES = sorted(SOURCE.rglob("*.py"))
WITHOUT_TEST = {"__main__.py"}  # one line
ELSEWHERE = {"tasks/settings.py": "tasks/test_task_settings.py"}  # test files need names of their own
TORCH_AT_TOP = {"experts/mixture.py"}  # beside models/, which is the border


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def test_imports_point_downwards() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py"], ids=relative)
def test_every_file_has_its_test(path: Path) -> None:
    name = relative(path)
    if name in WITHOUT_TEST:
        assert len(path.read_text().splitlines()) < 15
        return
    mirrored = ELSEWHERE.get(name, str(Path(name).with_name(f"test_{path.name}")))
    assert (ROOT / "tests" / mirrored).is_file(), f"{name} has no tests/{mirrored}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    for function in functions(path):
        doc = ast.get_docstring(function, clean=False)
        body = function.end_lineno - function.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
        assert body <= 50, f"{function.name} has a body of {body} lines"
        count = len(function.args.args) + len(function.args.kwonlyargs)
        command = relative(path) == "cli.py" and function.decorator_list  # its arguments are the options a user sees
        command = command or (relative(path).startswith("commands/") and not function.name.startswith("_"))
        assert command or count <= 7, f"{function.name} takes {count} arguments"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_public_functions_are_explained(path: Path) -> None:
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
    assert ast.get_docstring(tree(path)) or path.stat().st_size == 0


def imported_at_top(path: Path) -> set[str]:
    names: set[str] = set()
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_torch_stays_behind_the_models(path: Path) -> None:
    if relative(path).startswith("models/") or relative(path) in TORCH_AT_TOP:
        return
    assert not imported_at_top(path) & {"torch", "transformers", "datasets", "peft"}


def test_no_path_of_a_machine_in_the_project() -> None:
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    homes = tuple("/" + word + "/" for word in ("home", "root", "work", "Users"))
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".txt", ".json") or path.name in ("Makefile", "run"):
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            assert not [home for home in homes if home in text and name != "tests/test_architecture.py"], name


def test_no_mutable_globals() -> None:
    """Module-level lists, dicts and sets are constants by name; nobody may append to a global by surprise."""
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Dict | ast.Set):
                names = [t.id for t in node.targets if isinstance(t, ast.Name)]
                assert all(n.isupper() or n.startswith("__") for n in names), f"{relative(path)}: {names}"
        assert not [n for n in ast.walk(tree(path)) if isinstance(n, ast.Global)], relative(path)
