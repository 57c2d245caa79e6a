"""The token viewer: what it holds, and what a reader sees and does in a real browser."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drpo.inspection.result import SampledResponse
from drpo.report.html.frame import Section, document
from drpo.report.tokens.encoding import flags, floats, places, shown_text, vocabulary, weights
from drpo.report.tokens.viewer import TokenTest, token_viewer
from support.browser import needs_browser
from support.devtools import Browser, browser
from support.page_check import check

HOSTILE = [
    "</script><script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "\u202eabc",
    "\x00",
    "\u0301\u0301",
    "a" + "\u0301" * 300,
    "x" * 5000,
    "\ud800",
    "\u2028\u2029",
    " \t ",
    "\n\n",
    "__proto__",
]
DELTA = 0.15
TESTS = [
    TokenTest("|π − μ| > δ", "shift", DELTA),
    TokenTest("w ≤ 0", "below_weight"),
]


def response(texts: list[str] | None, **changes: Any) -> SampledResponse:
    """Tokens with μ = 0.5 that are likelier by the step, with falling weights: 1, 0.5, 0, −0.5, then 2 and none."""
    count = len(texts) if texts is not None else 6
    shifts = [(0, 0.1, 0.2, 0.3, -0.1, 0)[i % 6] for i in range(count)]
    chosen = [(1.0, 0.5, 0.0, -0.5, 2.0, math.nan)[i % 6] for i in range(count)]
    given: dict[str, Any] = {
        "source": "log.jsonl",
        "row": 1,
        "step": 3,
        "update": 0,
        "group": None,
        "reward": 1.0,
        "first": 0,
        "length": count,
        "texts": texts,
        "ids": None if texts is None else [str(100 + i) for i in range(count)],
        "behavior_logprobs": [math.log(0.5)] * count,
        "logprobs": [math.log(0.5 + shift) for shift in shifts],
        "advantages": [0.75] * count,
        "weights": {"drpo": chosen, "grpo": [1.0] * count},
        "why": ["random"],
    }
    return SampledResponse(**(given | changes))


def written(file: Path, responses: list[SampledResponse]) -> Path:
    file.write_text(
        check(
            document("Tokens", "<h1>Tokens</h1>", [Section("Tokens", token_viewer(responses, DELTA, TESTS))]), 3_000_000
        ),
        encoding="utf-8",
    )
    return file


def test_numbers_are_packed_and_unpacked() -> None:
    assert struct.unpack("<3f", base64.b64decode(floats([-0.5, -1e300, 1.0]))) == (-0.5, -math.inf, 1.0)
    assert struct.unpack("<4h", base64.b64decode(weights([1.0, -0.4564, math.nan, 99]))) == (1000, -456, -32768, 32000)
    assert base64.b64decode(flags([0, 3, 9, 15], 17)) == bytes([0b1001, 0b10000010, 0])
    assert struct.unpack("<2I", base64.b64decode(places([0, 70_000]))) == (0, 70_000)
    assert vocabulary(["a", None, "b", "a"]) == (["", "a", "b"], [1, 0, 2, 1])


def test_text_is_shown_as_what_it_is() -> None:
    assert shown_text("\u202eabc") == "[U+202E]abc" and shown_text("\ud800") == "[U+D800]"
    assert shown_text("\u0301") == "◌\u0301"
    assert shown_text("e\u0301") == "e\u0301"
    assert shown_text("a" + "\u0301" * 300) == "a" + "\u0301" * 4 + "[296 more combining characters]"
    assert len(shown_text("x" * 5000)) < 300 and "characters left out" in shown_text("x" * 5000)


def test_a_page_of_50000_tokens_stays_small() -> None:
    draw = random.Random(0)
    known = [f" word{i}" for i in range(8000)]
    kept = [
        response(
            [draw.choice(known) for _ in range(250)],
            row=row,
            weights={name: [draw.uniform(-1, 2) for _ in range(250)] for name in "abcde"},
            logprobs=[-draw.expovariate(1) for _ in range(250)],
            behavior_logprobs=[-draw.expovariate(1) for _ in range(250)],
            pointed={name: list(range(250)) for name in "abcdefghi"},
        )
        for row in range(200)
    ]
    assert len(token_viewer(kept, DELTA, TESTS).encode("utf-8")) < 2_800_000


def test_hostile_text_is_data_and_nothing_else(tmp_path: Path) -> None:
    page = written(tmp_path / "p.html", [response(HOSTILE, source=HOSTILE[0], group=HOSTILE[0])]).read_text()
    assert page.count("<script") == 2 and "onerror=" not in page.partition("<body>")[2].replace("onerror=\\", "")
    (data,) = re.findall(r"<script type='application/json' id='tokens-data'>(.*?)</script>", page)
    assert HOSTILE[0] in json.loads(data)["texts"] and not set("<>&\u202e\x00\u2028") & set(data)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def show(tab: Browser, page: Path, width: int = 1000, dark: bool = False) -> None:
    """Open the page and wait until tokens are drawn."""
    tab.open(page, width, dark=dark)
    tab.wait("document.querySelector('.text .t')")


def text_of(tab: Browser, selector: str) -> str:
    """What the first such element says; what is moved is drawn, and has text, from the next frame on."""
    tab.wait(f"document.querySelector({json.dumps(selector)}).innerText")
    return tab.evaluate(f"document.querySelector({json.dumps(selector)}).innerText.replace(/\\s+/g, ' ').trim()")


def choose(tab: Browser, label: str, option: str) -> None:
    """Select an option by what it says, as a change that the reader makes."""
    assert tab.evaluate(
        f"(() => {{ const label = [...document.querySelectorAll('.controls > label')].find(l => "
        f"l.textContent.startsWith({json.dumps(label)})); const select = label.querySelector('select'); "
        f"const at = [...select.options].findIndex(o => o.text === {json.dumps(option)}); select.selectedIndex = at; "
        "select.dispatchEvent(new Event('change')); return at >= 0; })()"
    )


def shown_rows(tab: Browser) -> list[str]:
    heads = "[...document.querySelectorAll('.response')].filter(r => !r.hidden && !r.closest('[hidden]'))"
    return tab.evaluate(f"{heads}.map(r => r.querySelector('.where b').textContent.match(/row (\\d+)/)[1])")


@needs_browser
@pytest.mark.slow
def test_tokens_are_read_by_keys_alone(tab: Browser, tmp_path: Path) -> None:
    page = written(
        tmp_path / "p.html",
        [response(list("abcdef")), response(list("ghij"), row=2, weights={"drpo": [1.0] * 4, "grpo": [1.0] * 4})],
    )
    show(tab, page)
    while not tab.evaluate("document.activeElement.classList.contains('tokens')"):
        tab.press("Tab")
    tab.press("ArrowRight")
    assert text_of(tab, ".reading") == ("a μ 0.5 π 0.5 r 1 π − μ 0 Â +0.75 w of drpo 1 id 100 token 1 of 6")
    tab.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert "d μ 0.5 π 0.8 r 1.6 π − μ +0.3 Â +0.75 w of drpo −0.5 (corrective)" in text_of(tab, ".reading")
    assert "w of drpo −0.5 (corrective)" in text_of(tab, "#announced")
    tab.press("ArrowLeft")
    assert "w of drpo 0 (masked)" in text_of(tab, ".reading")
    tab.press("End")
    assert "w of drpo –" in text_of(tab, ".reading")
    tab.press("ArrowRight")
    assert text_of(tab, ".reading").startswith("g ") and tab.evaluate("document.querySelectorAll('.at').length") == 1
    tab.press("p")
    assert "w of drpo −0.5" in text_of(tab, ".reading")  # the one before that is held back
    tab.press("p", "n")
    assert "w of drpo −0.5" in text_of(tab, ".reading")
    tab.press("ArrowDown", "Home", "ArrowUp")
    assert text_of(tab, ".reading").startswith("a ") and tab.console == []


@needs_browser
@pytest.mark.slow
def test_colors_words_and_a_second_cue(tab: Browser, tmp_path: Path) -> None:
    show(tab, written(tmp_path / "p.html", [response(list("abcdef"))]))
    color = "[...document.querySelectorAll('.text .t')].map(t => getComputedStyle(t).backgroundColor)"
    by_weight = tab.evaluate(color)
    assert by_weight[0] == by_weight[5] and by_weight[2] == by_weight[3], "1 and no weight have no color; ≤ 0 the same"
    assert len(set(by_weight)) == 4
    lines = tab.evaluate("[...document.querySelectorAll('.text .t')].map(t => getComputedStyle(t).borderBottom)")
    assert "dotted" in lines[2] and "solid" in lines[3] and lines[0] != lines[3]
    assert "w ≤ 0" in text_of(tab, ".legend") and "w < 0" in text_of(tab, ".legend")
    tab.point(*tab.center(".controls label:nth-of-type(2) input"), click=True)
    by_shift = tab.evaluate(color)
    assert by_shift[0] == by_shift[5] and len({by_shift[i] for i in (0, 1, 2, 4)}) == 4
    assert "beyond δ = 0.15" in text_of(tab, ".legend")
    choose(tab, "Objective", "grpo")
    assert "gradient changed 0 %" in text_of(tab, ".where") and tab.console == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_on_every_color(tab: Browser, tmp_path: Path, dark: bool) -> None:
    show(tab, written(tmp_path / "p.html", [response(list("abcdef"))]), dark=dark)
    contrasts = tab.evaluate("""(() => {
      const channels = text =>
        text.match(/[\\d.]+/g).slice(0, 3).map(c => text.startsWith("color") ? Number(c) : c / 255);
      const light = text => channels(text).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const ink = light(getComputedStyle(document.body).color);
      return [...document.querySelectorAll(".legend .t")].slice(0, 11).filter((_, i) => i !== 5).map(t => {
        const [low, high] = [ink, light(getComputedStyle(t).backgroundColor)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
      });
    })()""")
    assert len(contrasts) == 10 and min(contrasts) >= 4.5, contrasts


#: The framed tokens of each response that is shown and has some.
HITS = """[...document.querySelectorAll('.response')].filter(r => !r.hidden && !r.closest('[hidden]'))
  .map(r => [...r.querySelectorAll('.t.hit')].map(t => t.textContent))"""


@needs_browser
@pytest.mark.slow
def test_responses_are_chosen_and_groups_stand_side_by_side(tab: Browser, tmp_path: Path) -> None:
    plain = {"drpo": [1.0] * 6, "grpo": [1.0] * 6}
    kept = [
        response(list("abcdef"), row=1, group="7", why=["changed"]),
        response(
            list("abcdef"),
            row=2,
            group="7",
            reward=0.0,
            advantages=[-0.75] * 6,
            weights=plain,
            pointed={"outliers": [1]},
        ),
        response(list("abcdef"), row=3, reward=0.0, weights=plain, logprobs=[math.log(0.5)] * 6),
        response(list("abcdef"), row=4, step=4, group="7", pointed={"outliers": [0, 5], "mask_edge": [4]}),
    ]
    show(tab, written(tmp_path / "p.html", kept))
    assert text_of(tab, ".group h4") == "Group 7 step 3, 2 responses"
    tops = "[...document.querySelectorAll('.group .response')].map(r => Math.round(r.getBoundingClientRect().top))"
    assert len(set(tab.evaluate(tops))) == 1
    choose(tab, "Reward", "0")
    assert shown_rows(tab) == ["2", "3"]
    choose(tab, "Advantage", "Â < 0")
    assert shown_rows(tab) == ["2"] and "1 of 4" in text_of(tab, ".viewer [role=status]")
    choose(tab, "Advantage", "any")
    choose(tab, "Reward", "any")
    choose(tab, "With a token that has", "|π − μ| > δ")
    assert shown_rows(tab) == ["1", "2", "4"] and tab.evaluate("document.querySelectorAll('.text .hit').length") == 6
    choose(tab, "With a token that has", "w ≤ 0")
    assert sorted(shown_rows(tab)) == ["1", "4"]
    choose(tab, "With a token that has", "the finding outliers")
    assert shown_rows(tab) == ["2", "4"] and tab.evaluate(HITS) == [["b"], ["a", "f"]]
    choose(tab, "With a token that has", "the finding mask_edge")
    assert shown_rows(tab) == ["4"] and tab.evaluate(HITS) == [["e"]]
    choose(tab, "With a token that has", "anything")
    choose(tab, "Show", "changed most")
    assert shown_rows(tab) == ["1"]
    choose(tab, "Show", "all")
    choose(tab, "Order", "as logged")
    assert shown_rows(tab) == ["1", "2", "3", "4"] and tab.console == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_hostile_text_fits_and_does_nothing(tab: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page = written(tmp_path / "p.html", [response(HOSTILE, source=HOSTILE[0], group=HOSTILE[0])] * 2)
    show(tab, page, width, dark)
    assert tab.evaluate("document.querySelectorAll('.text .t').length") == 2 * len(HOSTILE)
    assert tab.evaluate("document.title") == "Tokens" and tab.evaluate("document.querySelectorAll('img').length") == 0
    assert tab.overflow() <= 0 and tab.broken_words() == [] and tab.console == []
    assert tab.requests == [page.resolve().as_uri()]
    tab.evaluate("document.querySelector('.tokens').focus()")
    tab.press("ArrowRight", *["ArrowRight"] * 6)
    assert tab.overflow() <= 0 and "characters left out" in text_of(tab, ".reading")


@needs_browser
@pytest.mark.slow
def test_without_text_or_weights_there_are_still_tokens(tab: Browser, tmp_path: Path) -> None:
    show(tab, written(tmp_path / "p.html", [response(None, weights={}, reward=None, step=None, update=None)]))
    assert text_of(tab, ".where") == "row 1 Â +0.75 · 6 tokens"
    widths = tab.evaluate("[...document.querySelectorAll('.text .t')].map(t => t.getBoundingClientRect().width)")
    assert len(widths) == 6 and min(widths) >= 4
    assert tab.evaluate("document.querySelectorAll('.controls input').length") == 2  # no color by weight
    show(tab, written(tmp_path / "q.html", [response(None, ids=["11", "12", "13", "14", "15", None])]))
    assert text_of(tab, ".text").startswith("11 12 13 14 15") and tab.console == []


@needs_browser
@pytest.mark.slow
def test_50000_tokens_are_drawn_where_they_are_seen(tab: Browser, tmp_path: Path) -> None:
    kept = [response([f"w{i % 900} " for i in range(250)], row=row) for row in range(200)]
    show(tab, written(tmp_path / "p.html", kept))
    drawn = "document.querySelectorAll('.text .t').length"
    first = tab.evaluate(drawn)
    assert 0 < first < 12_000
    # Another coloring touches no token, whatever their number: it is one class of the list.
    assert (
        tab.evaluate("""(() => {
      let changes = 0;
      const watch = new MutationObserver(found => { changes += found.length; });
      watch.observe(document.querySelector(".tokens"), { subtree: true, attributes: true, childList: true });
      document.querySelectorAll(".controls input")[2].click();
      return new Promise(done => setTimeout(() => done(changes)));
    })()""")
        <= 4
    )
    tab.evaluate("document.querySelector('.tokens').focus()")
    tab.press("ArrowRight", "ArrowDown", "End")
    assert "token 250 of 250" in text_of(tab, ".reading") and tab.evaluate(drawn) < 25_000
