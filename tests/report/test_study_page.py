"""The page of a study: what it says, whatever stands in it, and how it looks in a real browser."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drpo.report.study.page import build_study_page
from drpo.report.svg.charts import LABEL_HEIGHT
from support.browser import looks, needs_browser
from support.page_check import check

ARMS = {
    "surrogate": {"objective": {"name": "surrogate"}},
    **{f"drpo_{delta}": {"objective": {"name": "drpo", "delta": delta}} for delta in (0.05, 0.15, 0.3, 12.5)},
}
STUDY: dict[str, Any] = {
    "title": "A <b>study</b>",
    "question": "Is it & so?",
    "arms": ARMS,
    "settings": {"one": {}, "two": {}},
    "seeds": [0, 1],
}


def curves(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], list[tuple[int, float, float, float]]]:
    """Of the runs that started: every seed begins at 0.4 and ends at 0.5 + 0.1 × seed."""
    ends: dict[tuple[str, str, str], list[float]] = {}
    for run in rows:
        if run["status"] != "missing":
            ends.setdefault((run["phase"], run["setting"], run["arm"]), []).append(0.5 + 0.1 * run["seed"])
    return {
        (*place, name): [(0, 0.4, 0.4, 0.4), (5, sum(values) / len(values), min(values), max(values))]
        for place, values in ends.items()
        for name in ("accuracy", "beyond_delta")
    }


def row(setting: str, arm: str, seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "phase": "shared",
        "setting": setting,
        "arm": arm,
        "attempt": "",
        "seed": seed,
        "status": "finished",
        "reason": "",
        "accuracy_before": 0.4,
        "final_accuracy": 0.5 + 0.01 * seed,
        "drawdown": 0.1 * (1 + seed),
        "collapsed": False,
        "seconds": 12.0,
        "command": f"drpo train objective.name={arm} seed={seed} --out D",
        **changes,
    }


def summary(setting: str, arm: str, final: float | None) -> dict[str, Any]:
    names = (
        "spread",
        "area",
        "best_accuracy",
        "drawdown",
        "shift",
        "shift_p99",
        "beyond_delta_positive",
        "beyond_delta_negative",
        "corrective_share",
        "mismatch",
        "entropy",
    )
    low, high = (None, None) if final is None else (final - 0.1, final + 0.1)
    return {
        "setting": setting,
        "arm": arm,
        "runs": 2,
        "finished": 1,
        "failed": 1,
        "collapsed": 1,
        "collapse_interval": None if final is None else SimpleNamespace(low=0.0126, high=0.9874),
        "final_accuracy": final,
        "low": low,
        "high": high,
        **dict.fromkeys(names, 0.125),
    }


def verdict(setting: str, answer: str, found: tuple[float, float, float] | None, **hypothesis: Any) -> dict[str, Any]:
    claim = {"claim": "It is > that.", "ours": "a", "theirs": "b", "compare": "mean", "at": "shared"} | hypothesis
    return {
        "hypothesis": claim,
        "setting": setting,
        "metric": "final_accuracy",
        "answer": answer,
        "sentence": f"In {setting}, {answer}.",
        "found": found and dict(zip(("value", "low", "high"), found, strict=True)),
    }


def page(**changes: Any) -> str:
    rows = [row(setting, arm, seed) for setting in STUDY["settings"] for arm in ARMS for seed in STUDY["seeds"]]
    rows[0] |= {"status": "failed", "reason": "exit code 3: <script>alert(1)</script>", "collapsed": True}
    rows[-1] |= {"status": "missing", "final_accuracy": None}
    verdicts = [
        verdict("one", "better", (0.2, 0.1, 0.3)),
        verdict("two", "worse", (-0.2, -0.3, -0.1)),
        verdict("all", "undecided", (0.0, -0.1, 0.1)),
        verdict("one", "not judged", None, claim="It is not."),
        verdict("one", "equivalent", (0.01, -0.02, 0.03), claim="It is the same."),
        verdict("one", "better", (0.1, 0.01, 0.9), claim="It varies less.", compare="variance"),
    ]
    shared = [summary(setting, arm, 0.2 * place) for setting in STUDY["settings"] for place, arm in enumerate(ARMS)]
    given = {"study": STUDY, "rows": rows, "verdicts": verdicts, "summaries": {"shared": shared, "best": []}}
    given |= changes
    return check(build_study_page(**{"curves": curves(given["rows"]), **given}))


def figures(text: str, title: str) -> list[str]:
    return re.findall(rf"<figure><figcaption><b>{re.escape(title)}</b>.*?</figure>", text, re.S)


def test_a_study_with_draws_shows_its_arms_along_each_axis_and_its_basins() -> None:
    """The arm that has not run is in no figure; numbers of an axis that would touch its label end before it."""
    draws = {"learning_rate": {"log": [1e-5, 4e-4]}, "rollout_lag": [0, 4]}
    share = SimpleNamespace(value=0.625, low=0.41, high=0.8)
    blocks = [(1e-5, 0.4), (4e-4, 0.6)]
    area = {
        "label": "final accuracy",
        "along": {
            "learning_rate": {arm: (blocks, blocks) if arm == "surrogate" else ([], []) for arm in ARMS},
            "rollout_lag": {arm: ([(0.0, 0.45), (4.0, 0.55)], [(0.0, 0.45), (4.0, 0.55)]) for arm in ARMS},
        },
        "basins": [
            SimpleNamespace(arm="surrogate", kept=0.12, width=share, collapsed=share),
            SimpleNamespace(arm="drpo_0.05", kept=0.12, width=None, collapsed=share),
        ],
    }
    text = page(study={**STUDY, "draws": draws}, areas={"one": area})
    (rate,) = figures(text, "Final accuracy against learning rate")
    assert "parts of the range" in rate and "surrogate <tspan>0.6" in rate and "drpo_0.05" not in rate
    assert "text-anchor='end'>5e-4" in rate.replace("−", "-")
    (lag,) = figures(text, "Final accuracy against rollout lag")
    assert "the blocks of each value" in lag and all(arm in lag for arm in ARMS)
    (basin,) = figures(text, "Basin width")
    assert "62 % (41–80 %)" in basin and "rises by 0.12 or more" in basin and "drpo_0.05" not in basin
    assert "Over all drawn configurations" in text and "shared learning rate" not in text
    assert not figures(page(), "Basin width")


def places(drawing: str, shape: str) -> list[float]:
    """How far to the right the marks of a kind lie."""
    return [float(x) for x in re.findall(rf"<{shape} (?:cx|x)='([\d.]+)'", drawing)]


def test_verdicts_runs_and_reasons_are_all_there() -> None:
    text = page()
    assert "<h1>A &lt;b&gt;study&lt;/b&gt;</h1>" in text and text.count("<script>") == 1
    assert "1 failed, 18 finished, 1 missing" in text
    words = text.split("<summary>The same in words</summary>")[1].split("</details>")[0]
    assert "<p>It is &gt; that.</p>" in words
    assert "<li class='c1'><span>In one, better.</span></li><li class='c2'><span>In two, worse.</span></li>" in text
    assert "<li class=''><span>In all, undecided.</span></li>" in text
    assert "<li class=''><span>In one, not judged.</span></li>" in text
    head = text.split("<section")[0]
    assert "<b>2 of 4 hypotheses are decided.</b>" in head
    variance = "<b>a</b> than b in variance of final accuracy"
    assert f"<li class='c1'><span><b>● Better</b>: {variance}.</span>" in head
    assert "<li class='c3'><span><b>◆ Equivalent</b>: <b>a</b> and b.</span>" in head
    assert "<li class=''><span><b>○ Undecided</b>: <b>a</b> against b.</span>" in head  # over all settings
    assert "<b>– Not judged</b>: <b>a</b> against b." in head
    assert text.count("Right of the line a is higher.") == 3 and text.count("Left of the line a varies less.") == 1
    assert set(re.findall(r"href='#(run-\d+)'", text)) <= set(re.findall(r"<p id='(run-\d+)'", text))
    assert "href='#run-1'" in text
    assert len(re.findall(r"<pre data-copy>drpo train objective.name=[\w.]+ seed=\d --out D</pre>", text)) == 20
    assert "<details open><summary>one, shared: 9 of 10 finished</summary>" in text
    assert "exit code 3: &lt;script&gt;" in text
    assert text == page()


def test_a_forest_has_each_setting_with_its_answer_on_one_side_of_the_line() -> None:
    text = page()
    (forest,) = figures(text, "It is &gt; that.")
    (zero,) = re.findall(r"<path class='zero' d='M([\d.]+) ", forest)
    (better,), (worse,) = places(forest, "circle"), places(forest, "rect")
    assert worse + 3.5 < float(zero) < better  # squares are placed by their corner
    assert better - float(zero) == pytest.approx(float(zero) - worse - 3.5, abs=0.2)
    ends = [tuple(map(float, pair)) for pair in re.findall(r"<path class='whisker' d='M(\S+) \S+H(\S+)'", forest)]
    assert len(ends) == 2 and ends[0][0] < better < ends[0][1] < 275 and ends[1][1] < float(zero)
    assert "<circle class='ring'" in forest and "class='whisker bold'" in forest  # over all settings, and open
    for said in ("+0.200 better", "−0.200 worse", "+0.000 undecided"):
        assert f">{said}<" in forest
    (unknown,) = figures(text, "It is not.")
    assert ">not judged<" in unknown and not places(unknown, "circle") and "class='zero'" in unknown
    (same,) = figures(text, "It is the same.")
    assert ">+0.010 equivalent<" in same and "<g class='c3'>" in same and "l4.6 -4.6l4.6 4.6" in same
    (ratio,) = figures(text, "It varies less.")
    (one,) = re.findall(r"<path class='zero' d='M([\d.]+) ", ratio)
    assert places(ratio, "circle")[0] < float(one) and "Variance of final accuracy: a / b." in ratio


def test_every_seed_is_a_dot_and_a_collapsed_one_a_cross() -> None:
    text = page()
    final, drawdown = figures(text, "Final accuracy of every seed"), figures(text, "Drawdown and collapse")
    assert [one.count("r='2'") for one in final + drawdown] == [9, 9, 9, 9]  # one collapsed; one is missing
    assert [one.count("class='cross'") for one in final + drawdown] == [1, 0, 1, 0]
    assert ">0.2 (0.1–0.3)<" in final[0] and ">1 of 2 (1–99 %)<" in drawdown[0]
    (cross,) = re.findall(r"class='cross' d='M([\d.]+) ", drawdown[0])
    second = places(drawdown[0].split(">surrogate<")[1], "circle")[0]
    assert float(cross) + 3 < second  # a drawdown of 0.1, then one of 0.2


def test_all_arms_of_a_setting_are_in_one_plot_and_no_two_are_alike() -> None:
    text = page()
    one, two = figures(text, "Held-out accuracy")
    for arm in ARMS:
        assert f"{arm} from 0.4 to 0.55" in one
    assert one.count("class='band'") == 5
    assert "drpo_12.5 from 0.4 to 0.5;" in two  # of the seed that ran
    folded = text.split("<summary>Tokens beyond δ and corrective tokens over training</summary>")[1]
    assert len(figures(folded.split("</details>")[0], "Tokens beyond δ")) == 1
    assert text.count("Nothing was recorded.") == 2  # nobody measured the corrective share
    many = {f"drpo_{delta}": {"objective": {"name": "drpo", "delta": delta}} for delta in (0.3, 0.1, 0.2, 0.5, 0.4)}
    many |= {name: {"objective": {"name": name}} for name in ("dppo_tv", "grpo", "ppo", "surrogate")}
    study = {**STUDY, "arms": many, "hypotheses": [{"ours": "ppo", "theirs": "grpo"}]}
    rows = [row("one", arm, seed) for arm in many for seed in (0, 1)]
    text = page(study=study, rows=rows, summaries={"shared": [summary("one", arm, 0.3) for arm in many], "best": []})
    (one,) = figures(text, "Held-out accuracy")
    drawn = re.findall(r"<g (class='c\d[^>]*)><title>([^<]*)</title><path class='line'", one)
    assert [arm for _, arm in drawn] == [f"drpo_0.{i}" for i in range(1, 6)] + ["ppo", "grpo", "dppo_tv", "surrogate"]
    assert len({paint for paint, _ in drawn}) == len(many)
    mixed = re.findall(r"class='c1 ramp' style='color:color-mix\(in srgb, var\(--c1\) (\d+)%", one)
    assert mixed[:5] == ["40", "70", "100", "60", "20"]  # towards the ground, then towards the ink
    ends = [float(y) for y in re.findall(r"<text class='name inked' x='326' y='([\d.]+)'", one)]
    assert len(ends) == len(many) and all(b - a >= LABEL_HEIGHT for a, b in pairwise(sorted(ends)))
    height = re.search(r"viewBox='0 0 \d+ (\d+)'", one)
    assert height is not None and max(ends) < int(height[1])


def test_a_curve_ends_with_the_final_accuracy_of_the_table() -> None:
    """The last evaluation alone says something else: a reader must not find two figures for one thing."""
    (one, _) = figures(page(), "Held-out accuracy")
    assert "Labels: final accuracy, the mean of the last evaluations, as in the table." in one
    labels = dict(re.findall(r">(\S+) <tspan>([^<]*)</tspan>", one))
    assert labels == {arm: str(round(0.2 * place, 1)).removesuffix(".0") for place, arm in enumerate(ARMS)}


def test_an_arm_has_the_color_of_its_objective_in_every_picture() -> None:
    text = page()
    for title in ("Held-out accuracy", "Tokens beyond δ"):
        for one in figures(text, title):
            colors = dict(re.findall(r"<g class='c(\d)[^>]*><title>([^<]*)</title><path class='band'", one))
            assert set(colors) == {"1", "7"}
    for title in ("Final accuracy of every seed", "Drawdown and collapse"):
        for one in figures(text, title):
            named = dict(re.findall(r"<g class='c(\d)'><text class='name inked'[^>]*>([^<]*)</text>", one))
            assert named["7"] == "surrogate" and named["1"].startswith("drpo")


def test_a_run_leads_to_its_own_report() -> None:
    rows = [row("one", "surrogate", 0, page="runs/a b/report.html"), row("one", "surrogate", 1)]
    text = page(rows=rows)
    assert text.count("report of this run") == 1
    assert "<a href='runs/a%20b/report.html'>report of this run</a>" in text


def test_settings_that_differ_in_a_number_are_an_axis() -> None:
    numbers = {"updates-1": (1, 0), "updates-4": (4, 0), "updates-16": (16, 0), "lag-2": (4, 2), "lag-4": (4, 4)}
    settings = {
        name: {"model": "m", "sparse": True, "updates_per_step": updates, "rollout_lag": lag}
        for name, (updates, lag) in numbers.items()
    }
    study = {**STUDY, "settings": settings}
    rows = [row(setting, arm, seed) for setting in settings for arm in ARMS for seed in (0, 1)]
    shared = [summary(setting, arm, 0.1 * place) for place, setting in enumerate(settings) for arm in ARMS]
    text = page(study=study, rows=rows, summaries={"shared": shared, "best": []})
    (updates,) = figures(text, "Final accuracy against updates per step")
    assert re.findall(r"text-anchor='middle'>([\d.]+)<", updates) == ["1", "4", "16"]
    assert "surrogate from 0 to 0.2'" in updates and "drpo_12.5 from 0 to 0.2;" in updates
    assert updates.count("r='1.6'") == 5 * 3 * 2 and updates.count("class='whisker'") == 5 * 3
    (lag,) = figures(text, "Final accuracy against rollout lag")
    assert re.findall(r"text-anchor='middle'>([\d.]+)<", lag) == ["0", "2", "4"]
    assert "surrogate from 0.1 to 0.4'" in lag  # from updates-4, which has no lag
    settings["lag-4"]["model"] = "another"
    text = page(study=study, rows=rows, summaries={"shared": shared, "best": []})
    assert "against updates per step" in text and "against rollout lag" not in text


def test_accuracy_over_delta_is_drawn_where_arms_differ_in_it() -> None:
    one, two = figures(page(), "Final accuracy against δ")
    assert "drpo from 0.2 to 0.8" in one and one.count("class='whisker'") == 4 and one.count("r='3'") == 4
    assert one.count("r='1.6'") == 8 and two.count("r='1.6'") == 7
    assert "surrogate from 0 to 0;" in one and "before training from 0.4 to 0.4" in one
    assert one.count("class='band'") == 1  # the surrogate's interval, level
    ticks = [float(tick) for tick in re.findall(r"text-anchor='middle'>([\d.]+)<", one)]
    assert ticks[0] <= 0.1 and ticks[-1] >= 10  # a logarithmic axis
    few = {arm: ARMS[arm] for arm in ("surrogate", "drpo_0.05", "drpo_0.3")}
    shared = [summary("one", arm, 0.3) for arm in few]
    assert "against δ" not in page(study={**STUDY, "arms": few}, summaries={"shared": shared, "best": []})


def test_a_study_without_a_single_run_has_a_page() -> None:
    rows = [row("one", arm, 0, status="missing", final_accuracy=None, seconds=0.0) for arm in ARMS]
    text = page(rows=rows, verdicts=[], summaries={"shared": [summary("one", arm, None) for arm in ARMS], "best": []})
    assert "Nothing was recorded." in text and "no hypotheses" in text


def test_what_has_not_run_takes_no_room() -> None:
    """One line and its commands; what is claimed over all settings waits for them."""
    rows = [row("one", arm, seed) for arm in ARMS for seed in (0, 1)]
    rows += [row("two", arm, 0, status="missing", final_accuracy=None) for arm in ARMS]
    verdicts = [
        verdict("one", "better", (0.2, 0.1, 0.3)),
        verdict("two", "not judged", None),
        verdict("all", "not judged", None),
    ]
    text = page(rows=rows, verdicts=verdicts)
    assert "Not run yet (this page has only their commands): two.</p>" in text
    assert "<h2>one<" in text and "<h2>two<" not in text
    assert "In one, better." in text and "not judged" not in text
    assert "<details><summary>two, shared: 0 of 5 finished</summary>" in text
    assert "Not run yet" not in page()


@needs_browser
def test_nothing_overflows_in_a_browser_and_nothing_complains(tmp_path: Path) -> None:
    for found in looks(page(), tmp_path / "profile"):
        assert found["overflow"] <= 0 and found["outside"] == found["holes"] == [], found
        assert found["drawings"] == 4 + 2 * (1 + 1 + 2 + 1)  # the last is folded
