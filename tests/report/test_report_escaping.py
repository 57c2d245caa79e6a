"""Nothing that a model, a data set or a setting says becomes markup, hides, or reorders its neighbors."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.report import build_report
from drpo.report.html.escape import visible, visible_plain
from drpo.run_directory import RunDirectory
from support.page_check import check
from support.synthetic_run import config, manifest, sampled

HOSTILE = (
    "<script>alert(1)</script></svg></title></style>\"'`<img src=x onerror=alert(1)>&lt;\x00\u202eabc\u2066 $title {}"
)


def test_hostile_text_everywhere_stays_text(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a<b>&'run")
    hostile = {
        "model": HOSTILE,
        HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}],
        "task": {"name": HOSTILE, "path": HOSTILE},
        "objective": {"name": HOSTILE, HOSTILE: HOSTILE},
    }
    odd = {"status": "failed", **dict.fromkeys(["failure", "device", "started"], HOSTILE)}
    odd_lists = {"command": ["drpo", HOSTILE], "versions": {HOSTILE: HOSTILE}}
    run.create({**config(2, 1), **hostile}, manifest(**odd, **odd_lists))
    for step in (0, 2):
        record = {**sampled(HOSTILE, HOSTILE, answer=HOSTILE), "stop_reason": HOSTILE}
        run.write_rollouts("evaluation", step, [record])
    page = check(build_report(run))
    assert page.count("<script") == 1 and "<img" not in page
    assert not re.search("[\x00\u202e\u2066]", page)
    assert page.count("</title>") == page.count("</style>") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 15
    assert "<i>U+202E</i>" in page and "<i>U+0000</i>" in page
    assert page.index("</title>") < page.index("<i>"), "no tag fits into a title"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b & c > 'd' \"e\"", "a &lt; b &amp; c &gt; &#x27;d&#x27; &quot;e&quot;"),
        ("\x00\x00\x00", "<i>U+0000×3</i>"),
        ("a\u202eb", "a<i>U+202E</i>b"),
        ("line\r\nnext\tcell", "line<i>U+000D</i>\nnext\tcell"),
        ("\ud800", "<i>U+D800</i>"),
        ("\U000e0041", "<i>U+E0041</i>"),
        ("می\u200cخواهم 👩\u200d🔬 naïve", "می\u200cخواهم 👩\u200d🔬 naïve"),
        (None, "null"),
        ({"a": [1, "ü"]}, "{&quot;a&quot;: [1, &quot;ü&quot;]}"),
    ],
)
def test_visible(text: object, expected: str) -> None:
    assert visible(text) == expected


def test_long_text_loses_its_middle_and_says_how_much() -> None:
    shown = visible("a" * 700 + "b" * 400, limit=100)
    assert shown == "a" * 75 + "<em class='cut'>… 1,000 characters left out …</em>" + "b" * 25
    assert visible("a" * 100, limit=100) == "a" * 100


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(codec=None, categories=None), max_size=40))
def test_any_text_is_kept_but_for_what_is_invisible(text: str) -> None:
    shown = visible_plain(text)
    shown.encode("utf-8")
    assert not set(shown) & set("<>\"'")
    kept = re.sub(r"\[U\+[0-9A-F]{4,6}(×\d+)?\]", "", html.unescape(shown))
    assert all(character in text for character in kept)
