"""The README names every source file once, with what it is for, and promises nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_every_source_file_with_a_comment() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    folder, named = "", []
    for line in tree.splitlines():
        if found := re.match(r"^(\S+/)\s", line + " "):
            folder = found[1]
        elif found := re.match(r"^ +(\S+\.py)  +\S", line):
            named.append(f"{folder}{found[1]}")
    source = ROOT / "src" / "orthomesh"
    files = sorted(str(p.relative_to(ROOT)) for p in source.rglob("*.py") if p.name != "__init__.py")
    assert sorted(named) == files


def test_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
