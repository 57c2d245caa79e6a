"""What the page's own script does, in a real browser with real keys, and what its policy keeps out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from drpo.report.html.command import command
from drpo.report.html.data import json_attribute, json_block, json_text
from drpo.report.html.example import Answer, example
from drpo.report.html.frame import Section, document
from drpo.report.html.heat import heat_map
from drpo.report.html.table import Cell, Column, Row, number, share, table, words
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point
from support.browser import needs_browser
from support.devtools import Browser, browser
from support.page_check import check

HOSTILE = "</script><script>document.title = 'ran'</script><img src=x onerror=\"document.title='ran'\">\u202e\x00"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def page(tmp_path: Path) -> Path:
    columns = [Column("name", words=True), Column("value", "what it is"), Column("share")]
    rows = [
        Row([words("b10"), number(2.0), share(0.5)]),
        Row([words("=cmd()"), number(-1.5), share(None)], own=True),
        Row([words('say "hi", b9'), number(10.0), share(0.0)]),
    ]
    lines = [
        Line("train", [Point(step, step / 10, None, None) for step in (1, 2, 3, 4)]),
        Line(HOSTILE, [Point(step, step / 5, None, None) for step in (2, 4)], 2),
    ]
    body = document(
        HOSTILE,
        "<h1>A page</h1>",
        [
            Section("Table", table("some values", columns, rows)),
            Section(HOSTILE, draw(Chart("Chart", "", lines), (0.0, 4.0)), name="chart"),
            Section("Heat", heat_map("agreement", ["a", "b"], [[1.0, 0.25], [0.25, 1.0]])),
            Section("Command", command("drpo inspect 'a b'") + json_block("data", {HOSTILE: HOSTILE}), folded=True),
        ],
    )
    file = tmp_path / "page.html"
    file.write_text(check(body), encoding="utf-8")
    return file


def test_data_never_becomes_markup() -> None:
    block = json_block("x", [HOSTILE])
    inside = block.removeprefix("<script type='application/json' id='x'>").removesuffix("</script>")
    for text in (json_text([HOSTILE]), json_attribute([HOSTILE]), inside):
        assert not set("<>\u2028") & set(text), text
    assert json.loads(json_text([HOSTILE, "\u2028&", "\ud800"])) == [HOSTILE, "\u2028&", "\ud800"]
    json_text(["\ud800"]).encode("utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text([float("nan")])


def test_sections_get_ids_of_their_own() -> None:
    page = check(
        document("t", "", [Section("Same", "1"), Section("Same", "2"), Section("Δ", "3"), None, Section("π", "")])
    )
    for name in ("same", "same-2", "section", "section-2"):
        assert f"<section id='{name}'>" in page and f"href='#{name}'" in page


@needs_browser
@pytest.mark.slow
def test_a_table_is_sorted_by_click_and_by_key(tab: Browser, page: Path) -> None:
    tab.open(page)
    names = "[...document.querySelectorAll('.grid tbody tr')].map(row => row.cells[0].textContent)"
    sorting = "[...document.querySelectorAll('.grid thead th')].map(head => head.ariaSort)"
    tab.point(*tab.center(".grid thead th:nth-child(2) button"), click=True)
    assert tab.evaluate(names) == ['say "hi", b9', "b10", "=cmd()"]  # 10 before 2: numbers, the largest first
    assert tab.evaluate(sorting) == ["none", "descending", "none"]
    tab.press("Enter")
    assert tab.evaluate(names) == ["=cmd()", "b10", 'say "hi", b9']
    tab.press("Tab", " ")
    assert tab.evaluate(names)[:1] == ["b10"] and tab.evaluate(names)[2:] == ["=cmd()"]  # what is missing comes last
    tab.press(" ")
    assert tab.evaluate(names)[2:] == ["=cmd()"]
    assert tab.console == []


@needs_browser
@pytest.mark.slow
def test_a_table_is_saved_as_csv(tab: Browser, page: Path) -> None:
    tab.open(page)
    tab.evaluate(
        "(() => { window.saved = []; const make = URL.createObjectURL; "
        "URL.createObjectURL = blob => { saved.push(blob); return make(blob); }; })()"
    )
    tab.point(*tab.center("#table button.tool"), click=True)
    tab.point(*tab.center("#heat button.tool"), click=True)
    first, second = (tab.evaluate(f"saved[{place}].text()") for place in (0, 1))
    assert first.split("\r\n") == ["name,value,share", "b10,2,0.5", "'=cmd(),-1.5,", '"say ""hi"", b9",10,0', ""]
    assert second.split("\r\n") == [",a,b", "a,1,0.25", "b,0.25,1", ""]
    assert tab.console == []


@needs_browser
@pytest.mark.slow
def test_values_are_read_by_pointer_and_by_key(tab: Browser, page: Path) -> None:
    tab.open(page)
    tip = "document.querySelector('.tip').hidden ? null : document.querySelector('.tip').innerText.split('\\n')"
    x, y = tab.center("svg")
    tab.point(x, y)
    assert tab.evaluate(tip) is not None
    tab.point(1, 1)
    assert tab.evaluate(tip) is None
    tab.evaluate("document.querySelector('svg').focus()")
    tab.press("ArrowRight", "ArrowRight")
    said = tab.evaluate("document.getElementById('announced').textContent")
    assert said.startswith("step 2: train 0.2, </script>") and "[U+202E]" in said and said.endswith("0.4")
    tab.press("End", "ArrowLeft", "Escape")
    assert tab.evaluate(tip) is None
    tab.evaluate("document.querySelector('.heat').focus()")
    tab.press("ArrowRight", "ArrowRight")
    assert tab.evaluate("document.querySelector('.readout').textContent") == "a and b: 25 %"
    assert tab.console == []


@needs_browser
@pytest.mark.slow
def test_a_link_opens_what_it_leads_into_and_a_command_is_copied(tab: Browser, page: Path) -> None:
    tab.open(page)
    assert not tab.evaluate("document.querySelector('details').open")
    tab.point(*tab.center("nav a[href='#command']"), click=True)
    assert not tab.evaluate("document.querySelector('details').open")  # the section itself is no part of the fold
    tab.evaluate("location.hash = 'data'")
    tab.evaluate("new Promise(done => setTimeout(done))")
    assert tab.evaluate("document.querySelector('details').open")
    tab.evaluate("document.execCommand = name => (window.copied = name + ':' + getSelection(), true)")
    tab.evaluate("navigator.clipboard && (navigator.clipboard.writeText = async text => { window.copied = text; })")
    tab.point(*tab.center("#command button.tool"), click=True)
    tab.evaluate("new Promise(done => setTimeout(done))")
    assert "drpo inspect 'a b'" in tab.evaluate("copied")
    assert tab.console == []


@needs_browser
@pytest.mark.slow
def test_examples_are_chosen_by_kind_and_by_their_last_reward(tab: Browser, tmp_path: Path) -> None:
    shown = [("worse", 0.5, 0.0), ("worse", 1.0, 0.25), ("better", 0.0, 1.0), ("better", 0.0, None)]
    examples = "".join(
        example("p", None, [("step 0", Answer("a", first)), ("step 8", Answer("b", last))], kind)
        for kind, first, last in shown
    )
    file = tmp_path / "page.html"
    file.write_text(check(document("t", "", [Section("S", f"<div data-kinds>{examples}</div>")])), encoding="utf-8")
    tab.open(file)
    choose = (
        "(i, at) => {{ const select = document.querySelectorAll('.choice select')[i]; select.selectedIndex = at; "
        "select.dispatchEvent(new Event('change')); "
        "return [...document.querySelectorAll('.example')].map(one => !one.hidden); }}"
    )

    def choice(which: int, place: int) -> list[bool]:
        return tab.evaluate(f"({choose.format()})({which}, {place})")

    texts = "[...document.querySelectorAll('.choice select')[1].options].map(one => one.text)"
    assert tab.evaluate(texts) == ["any", "1", "0.25", "0"]
    assert choice(1, 2) == [False, True, False, False]
    assert choice(0, 2) == [False] * 4  # both choices hold
    assert choice(1, 0) == [False, False, True, True]
    assert tab.evaluate("document.querySelector('.choice [role=status]').textContent") == "2 of 4 are shown."


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_asks_for_nothing_and_runs_nothing_else(tab: Browser, page: Path, width: int, dark: bool) -> None:
    tab.open(page, width, dark=dark)
    assert tab.evaluate("document.title").startswith("</script>"), "the hostile title is text"
    assert tab.overflow() <= 0 and tab.broken_words() == [] and tab.console == []
    assert tab.requests == [page.resolve().as_uri()]


@needs_browser
@pytest.mark.slow
def test_the_policy_keeps_out_what_is_injected(tab: Browser, page: Path) -> None:
    """Were text from data ever to become markup, it could still not run or load anything."""
    injected = "<script>document.title='ran'</script><img src='x.png' onerror=\"document.title='ran'\">"
    page.write_text(page.read_text(encoding="utf-8").replace("<main>", f"<main>{injected}"), encoding="utf-8")
    tab.open(page)
    assert tab.evaluate("document.title") != "ran"
    refused = [line for line in tab.console if "Content Security Policy" in line]
    assert len(refused) >= 2 and tab.evaluate("document.querySelectorAll('.grid thead button').length") == 3


@needs_browser
@pytest.mark.slow
def test_without_a_script_everything_is_there_to_read(tab: Browser, page: Path) -> None:
    tab.open(page, script=False)
    assert tab.requests == [page.resolve().as_uri()]
    text = page.read_text(encoding="utf-8")
    assert "<button" not in text.partition("<main>")[2].partition("</main>")[0]
    assert Cell("x").value is None and "say &quot;hi&quot;, b9" in text
