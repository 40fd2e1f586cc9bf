from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation import page
from orthomesh.evaluation.axes import figure_of


class Text(HTMLParser):
    """What a reader sees, and which elements there are."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.seen, self.tags = "", []
        self.feed(source)
        self.close()

    def handle_data(self, data: str) -> None:
        self.seen += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_from_the_data_is_seen_as_it_is(name: str) -> None:
    read = Text(page.table(["h"], [[page.Cell(text=name, tip=name, head=True)], [page.Cell(text="")]]))
    assert read.seen.replace("\n", "") == "h" + name
    tips = [attrs["title"] for tag, attrs in read.tags if tag == "th" and "title" in attrs]
    assert tips == ([name] if name else [])


@pytest.mark.parametrize(
    "build",
    [
        lambda name: page.card(name, name, "x"),
        lambda name: page.tiles([(name, name, name)]),
        lambda name: page.panels({name: "x", "other": "y"}),
        lambda name: page.chart(None, "id", name, name),
        lambda name: page.chart(figure_of(100), "id", name, name),
    ],
)
def test_no_builder_lets_markup_through(build: Callable[[str], str]) -> None:
    made = build("<img src=x onerror=alert(1)>")
    assert "<img" not in made
    assert "img" not in [tag for tag, _ in Text(made).tags]


def test_a_figure_s_data_cannot_close_its_script() -> None:
    figure = figure_of(120).add_scatter(x=[1], y=[1], name="</script><script>alert(1)</script>")
    made = page.chart(figure, "one", "")
    data = re.search(r'<script type="application/json" data-for="one">(.*?)</script>', made)
    assert data is not None
    assert json.loads(data[1])["data"][0]["name"] == "</script><script>alert(1)</script>"
    assert 'style="height:120px"' in made


def test_one_panel_needs_no_choice_and_two_are_one_seen_one_hidden() -> None:
    assert page.panels({"only": "<p>x</p>"}) == "<p>x</p>"
    both = page.panels({"first": "x", "second": "y"})
    assert [attrs["class"] for tag, attrs in Text(both).tags if attrs.get("class", "").startswith("panel")] == [
        "panel",
        "panel hidden",
    ]


def test_the_document_carries_the_library_once_and_forbids_requests() -> None:
    whole = page.document("a & b", "<p>body</p>")
    assert whole.count('id="plotly-library"') == 1
    assert "<title>a &amp; b</title>" in whole
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)
    assert policy is not None
    assert html.unescape(policy[1]).startswith("default-src 'none'")
    assert "connect-src" not in policy[1]


def test_the_lead_row_is_marked() -> None:
    rows = [[page.Cell(text="a", head=True)], [page.Cell(text="b", head=True)]]
    assert '<tr class="lead"><th scope="row">b' in page.table(["h"], rows, 1)
    assert "lead" not in page.table(["h"], rows)
