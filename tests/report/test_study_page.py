"""The page of a study: what it says, whatever stands in it, and how it looks in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from page_check import check

from drpo.report.study_page import build_study_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARMS = {
    "surrogate": {"objective": {"name": "surrogate"}},
    **{f"drpo_{delta}": {"objective": {"name": "drpo", "delta": delta}} for delta in (0.05, 0.15, 0.3, 12.5)},
}
STUDY: dict[str, Any] = {
    "title": "A <b>study</b>", "question": "Is it & so?", "arms": ARMS, "settings": {"one": {}, "two": {}},
    "seeds": [0, 1],
}  # fmt: skip


def curves(*points: tuple[int, float]) -> dict[str, list[tuple[int, float]]]:
    return {"accuracy": list(points), "beyond_delta": list(points), "corrective_share": []}


def row(setting: str, arm: str, seed: int, **changes: Any) -> dict[str, Any]:
    return {"phase": "shared", "setting": setting, "arm": arm, "attempt": "", "seed": seed, "status": "finished",
            "reason": "", "final_accuracy": 0.5 + 0.01 * seed, "seconds": 12.0,
            "curves": curves((0, 0.4), (5, 0.5 + 0.1 * seed)),
            "command": f"drpo train objective.name={arm} seed={seed} --out D", **changes}  # fmt: skip


def summary(setting: str, arm: str, final: float | None) -> dict[str, Any]:
    names = ("spread", "area", "best_accuracy", "drawdown", "shift", "shift_p99", "beyond_delta_positive",
             "beyond_delta_negative", "corrective_share", "mismatch", "entropy")  # fmt: skip
    low, high = (None, None) if final is None else (final - 0.1, final + 0.1)
    return {"setting": setting, "arm": arm, "runs": 2, "finished": 1, "failed": 1, "collapsed": 0,
            "final_accuracy": final, "low": low, "high": high, **dict.fromkeys(names, 0.125)}  # fmt: skip


def page(**changes: Any) -> str:
    rows = [row(setting, arm, seed) for setting in STUDY["settings"] for arm in ARMS for seed in STUDY["seeds"]]
    rows[0] |= {"status": "failed", "reason": "exit code 3: <script>alert(1)</script>"}
    rows[-1] |= {"status": "missing", "final_accuracy": None, "curves": curves()}
    verdicts = [{"hypothesis": {"claim": "It is > that."}, "sentence": "In one, it is.", "answer": "better"},
                {"hypothesis": {"claim": "It is not."}, "sentence": "In one, not shown.",
                 "answer": "not shown"}]  # fmt: skip
    shared = [summary(setting, arm, 0.2 * place) for setting in STUDY["settings"] for place, arm in enumerate(ARMS)]
    given = {"study": STUDY, "rows": rows, "verdicts": verdicts, "summaries": {"shared": shared, "best": []}}
    return check(build_study_page(**(given | changes)))


def test_verdicts_runs_and_reasons_are_all_there() -> None:
    text = page()
    assert "<h1>A &lt;b&gt;study&lt;/b&gt;</h1>" in text and "<script>" not in text
    assert "1 failed, 18 finished, 1 missing" in text
    assert "<li><b>It is &gt; that.</b> In one, it is.</li>" in text
    assert "<li class=warn><b>It is not.</b> In one, not shown.</li>" in text
    assert len(re.findall(r"<pre>drpo train objective.name=[\w.]+ seed=\d --out D</pre>", text)) == 20
    assert "exit code 3: &lt;script&gt;" in text
    assert text == page()


def test_curves_are_of_all_arms_with_the_range_over_seeds() -> None:
    text = page()
    drawn = re.findall(r"<b>Held-out accuracy</b>.*?</figure>", text, re.S)
    assert len(drawn) == 2 * 2  # four arms, then the fifth, in each setting
    assert all(f"{arm} from 0.4 to 0.55" in drawn[0] for arm in list(ARMS)[:4])
    assert "drpo_12.5 from 0.4 to 0.55" in drawn[1] and drawn[0].count("class='band'") == 4
    assert "drpo_12.5 from 0.4 to 0.5'" in drawn[3]  # of the seed that ran
    beyond = re.findall(r"<b>Tokens with \|π − μ\| beyond δ</b>.*?</figure>", text, re.S)
    assert len(beyond) == 4 and "surrogate from 40 % to 55 %" in beyond[0]
    assert text.count("Nothing was recorded.") == 4  # nobody measured the corrective share


def test_accuracy_over_delta_is_drawn_where_arms_differ_in_it() -> None:
    (one, _) = re.findall(r"<b>Final accuracy against δ</b>.*?</figure>", page(), re.S)
    assert "drpo from 0.2 to 0.8" in one and one.count("class='whisker'") == 4 and one.count("<circle") == 4
    ticks = [float(tick) for tick in re.findall(r"text-anchor='middle'>([\d.]+)<", one)]
    assert ticks[0] <= 0.1 and ticks[-1] >= 10  # a logarithmic axis
    few = {arm: ARMS[arm] for arm in ("surrogate", "drpo_0.05", "drpo_0.3")}
    shared = [summary("one", arm, 0.3) for arm in few]
    assert "against δ" not in page(study={**STUDY, "arms": few}, summaries={"shared": shared, "best": []})


def test_a_study_without_a_single_run_has_a_page() -> None:
    rows = [row("one", arm, 0, status="missing", final_accuracy=None, curves=curves(), seconds=0.0) for arm in ARMS]
    text = page(rows=rows, verdicts=[], summaries={"shared": [summary("one", arm, None) for arm in ARMS], "best": []})
    assert "Nothing was recorded." in text and "The study claims nothing." in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
def test_nothing_overflows_in_a_browser_and_nothing_complains(tmp_path: Path) -> None:
    """At the width of a phone and of a desk; the page's own policy forbids requests."""
    (tmp_path / "page.html").write_text(page())
    for width in (390, 1200):
        harness = (
            "<!DOCTYPE html><link rel=icon href='data:,'><body><script>const frame = document.createElement('iframe');"
            f"frame.style.cssText = 'width:{width}px;height:800px;border:0'; frame.src = 'page.html';"
            "frame.onload = () => {{ const page = frame.contentDocument;"
            "document.body.dataset.found = JSON.stringify({{"
            "wide: page.documentElement.scrollWidth, drawings: page.querySelectorAll('figure svg').length}}) }};"
            "document.body.append(frame)</script>"
        ).replace("{{", "{").replace("}}", "}")
        (tmp_path / "harness.html").write_text(harness)
        done = subprocess.run(
            [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
             "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
             "--dump-dom", (tmp_path / "harness.html").as_uri()],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "CONSOLE" not in done.stderr, done.stderr
        (found,) = re.findall(r'data-found="(.*?)"', done.stdout)
        measured = json.loads(found.replace("&quot;", '"'))
        assert measured["wide"] <= width and measured["drawings"] == 2 * (2 + 2 + 1)
