from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation import page as page_module
from orthomesh.evaluation.report import Run, read_run, render, write_report

Summary = dict[str, Any]
Write = Callable[[Summary], Path]
LIBRARY = page_module.get_plotlyjs
VOID = {"meta", "br", "img", "link", "input", "hr"}


@pytest.fixture(autouse=True, scope="module")
def light() -> Iterator[None]:
    """Pages without the library's megabytes, except where a test asks for the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "get_plotlyjs", lambda: "/* the library */")
        yield


def without_library(page: str) -> str:
    """The page as we wrote it."""
    return re.sub(r'(<script id="plotly-library">).*?(</script>)', r"\1\2", page, count=1, flags=re.DOTALL)


class Strict(HTMLParser):
    """Complains about what a browser would silently repair."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def figures_of(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" data-for="([^"]*)">(.*?)</script>', page, re.DOTALL)
    return {name: json.loads(data) for name, data in found}


def test_the_page_fetches_nothing_and_parses(
    summary: Summary, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "get_plotlyjs", LIBRARY)
    whole = page_of(write_run(summary))
    assert whole.count(LIBRARY()) == 1
    page = without_library(whole)
    assert len(page) < 300_000
    read = Strict(page)
    assert not [name for name, _ in read.attributes if name in ("src", "href", "srcset", "action")]
    assert not re.search(r"https?://|url\(|@import", page)
    assert len(read.ids) == len(set(read.ids))


def test_every_figure_has_its_place(summary: Summary, write_run: Write) -> None:
    page = page_of(write_run(summary))
    figures = figures_of(page)
    assert set(figures) == {
        "accuracy-rounds", "accuracy-bytes", "accuracy-tasks", "map-0",
        "bytes", "byte-shares", "energy", "airtime", "loss", "collisions",
    }  # fmt: skip
    assert set(figures) <= set(Strict(without_library(page)).ids)


def test_names_from_the_data_stay_text(summary: Summary, write_run: Write) -> None:
    page = without_library(page_of(write_run(summary)))
    assert "<i>run" not in page
    assert "<b>beta" not in page
    assert "alert(1)</script>" not in page
    assert "&lt;b&gt;beta&lt;/b&gt; &amp; co" in page


def test_methods_with_clusters_have_a_map_each_ours_first(summary: Summary, write_run: Write) -> None:
    summary["rows"].insert(0, {**summary["rows"][3], "label": "paper", "kind": "paper"})
    page = without_library(page_of(write_run(summary)))
    assert {"map-0", "map-1"} <= set(figures_of(page))
    assert re.findall(r"<option[^>]*>([^<]*)<", page) == ["orthomesh", "paper"]


def test_the_same_records_give_the_same_page(summary: Summary, write_run: Write) -> None:
    run = write_run(summary)
    assert page_of(run) == page_of(run)


def one_method(s: Summary) -> None:
    s["rows"] = s["rows"][3:4]


def no_clusters(s: Summary) -> None:
    for row in s["rows"]:
        row["clusters"] = []


def one_device(s: Summary) -> None:
    s["devices"] = s["devices"][:1]
    s["rows"] = [{**row, "clusters": [[0]] if row["clusters"] else []} for row in s["rows"]]


def one_round(s: Summary) -> None:
    s["rounds"] = 1


def no_bytes(s: Summary) -> None:
    s["rows"] = s["rows"][:2]


def no_collision(s: Summary) -> None:
    s["rows"][3]["collision"] = None


def base_only(s: Summary) -> None:
    s["rows"] = s["rows"][:1]


def no_rows(s: Summary) -> None:
    s["rows"] = []


def no_radio_no_notes(s: Summary) -> None:
    s |= {"radio": None, "notes": []}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (one_method, "with orthomesh every device answers every task"),
        (no_clusters, "This method does not form clusters."),
        (one_device, "1 device, 2 rounds"),
        (one_round, "3 devices, 1 round"),
        (no_bytes, "No method sent anything."),
        (no_collision, "No method of this run has masks that could collide."),
        (base_only, "The accuracy was not recorded round by round."),
        (no_rows, "no method was run"),
        (no_radio_no_notes, "<li>none</li>"),
    ],
)
def test_a_run_with_something_missing_still_makes_a_page(
    summary: Summary, write_run: Write, change: Callable[[Summary], None], says: str
) -> None:
    change(summary)
    page = without_library(page_of(write_run(summary)))
    Strict(page)
    assert says in page.replace("\u00a0", " ")


def test_a_missing_table_is_said_where_its_figure_would_be(summary: Summary, write_run: Write) -> None:
    run = write_run(summary)
    for name in ("rounds", "accuracy", "links"):
        (run / f"{name}.parquet").unlink()
    page = without_library(page_of(run))
    assert "The accuracy was not recorded round by round." in page
    assert "No training loss was recorded." in page
    assert "map-0" in figures_of(page)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no summary\.json here"):
        write_report(tmp_path)


def test_another_schema_is_refused(summary: Summary, write_run: Write) -> None:
    with pytest.raises(ValueError, match="schema 2, but this version reads schema 1"):
        read_run(write_run({**summary, "schema": 2}))


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_any_name_of_a_run_leaves_the_page_whole(name: str) -> None:
    empty = {"tasks": [], "devices": [], "rounds": 1, "seed": 0, "wall_s": 1.0, "notes": [name], "rows": []}
    facts = {
        "model": {"name": name, "parameters": 1, "layers": 1},
        "versions": {name: name},
        "final_sha256": name,
    }
    Strict(without_library(render(Run(summary={**empty, **facts, "name": name}))))
