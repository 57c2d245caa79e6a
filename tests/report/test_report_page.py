"""The page: every legal run gives one, self-contained, and it says what happened."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.errors import CheckpointError, DataError
from drpo.report import build_report, write_report
from drpo.run_directory import RunDirectory
from support.page_check import check
from support.synthetic_run import config, evaluation_record, make_run, manifest, sampled, update_record

HOSTILE = "</script><script>alert(1)</script>"


def test_a_finished_run_shows_everything(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = check(build_report(run))
    for said in (
        "drpo on countdown",
        "drpo(delta=0.15, deadzone=0.0, advantage_weighted=true)",
        "Qwen/Qwen3-0.6B-Base",
        "4.5 % <span>→</span> 64.5 %",
        "129 of 200 correct, 95 % confidence interval 57.7 % to 70.8 %",
        "step 0</span> · <span class='reward'>reward 0",
        "reward full'>reward 1",
        "drpo train countdown.yaml",
        "&#x27;runs/count down&#x27;",
        "<th>eval.<wbr>every</th>",
        "<dt>failed rewards</dt><dd>0</dd>",
        "8, 16 updates",
    ):
        assert said in page, said
    for title in (
        "Accuracy",
        "Reward",
        "Absolute probability shift |π − μ|",
        "Tokens beyond δ",
        "Corrective and masked tokens",
        "Ratio π/μ",
        "Mismatch",
        "Distribution of |π − μ|",
        "Distribution of the gradient weight w",
        "Staleness",
        "Entropy",
        "Gradient norm",
        "Response length",
        "Truncated responses",
        "Seconds per step",
        "Throughput",
    ):
        assert f"<b>{title}" in page, title
    assert "class=warn" not in page
    assert "Nothing was recorded" not in page


def test_the_same_run_gives_the_same_bytes_on_disk(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2)
    write_report(run)
    assert run.report_file.read_text(encoding="utf-8") == build_report(run)


def test_no_update_at_all(tmp_path: Path) -> None:
    page = check(build_report(make_run(tmp_path / "run", steps=0, planned=8, status="failed", failure="Boom: a < b")))
    assert "0 of 8" in page
    assert "No update was recorded" in page
    assert "Boom: a &lt; b" in page
    assert "no later evaluation was recorded" in page
    assert "Trust region" not in page


def test_a_run_without_any_record(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create({}, {})
    page = check(build_report(run))
    assert "No evaluation was recorded" in page
    assert "unnamed on unnamed" in page


def test_killed_half_way_with_a_cut_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=4, planned=8, status="running")
    with run.metrics_file.open("a") as stream:
        stream.write('{"kind": "update", "step": 5, "lo')
    page = check(build_report(run))
    assert "not finished (status: running); 4 of 8 steps" in page


def test_the_reason_of_an_earlier_attempt_is_not_shown_once_the_run_finished(tmp_path: Path) -> None:
    assert "Boom" not in check(build_report(make_run(tmp_path / "run", steps=1, failure="Boom")))


def test_no_manifest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1)
    run.manifest_file.unlink()
    assert "status unknown" in check(build_report(run))


def test_no_evaluation_shows_training_responses(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", every=0)
    run.write_rollouts("step", 8, [sampled("Add 1 and 2.", "3", reward=1.0)])
    page = check(build_report(run))
    assert "No evaluation was recorded" in page
    assert "training prompts of step 8" in page


@pytest.mark.parametrize("updates", [1, 3])
def test_a_single_step(tmp_path: Path, updates: int) -> None:
    page = check(build_report(make_run(tmp_path / "run", steps=1, updates=updates, every=1)))
    assert ("Staleness" in page) == (updates > 1)
    assert "<circle" in page


def test_figures_that_are_not_finite(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=4, updates=1)
    record = update_record(5, 0, 8, np.random.default_rng(1))
    run.append_metrics({key: float("nan") if isinstance(value, float) else value for key, value in record.items()})
    page = check(build_report(run))
    assert "gradient norm was not finite in 1 of 5 updates, first at step 5" in page


@pytest.mark.parametrize("value", [None, 0.0, -1.0, 1e-300, 1e300, 10**400, True, "many", [], {}])
def test_any_value_in_the_place_of_a_number(tmp_path: Path, value: object) -> None:
    run = make_run(tmp_path / "run", steps=2, updates=1, every=0)
    rng = np.random.default_rng(1)
    for step in (3, 4):
        record: dict[str, Any] = update_record(step, 0, 4, rng)
        odd = {key: value for key in record if key not in {"kind", "step", "update"}}
        run.append_metrics({**odd, "kind": "update", "step": step, "update": 0})
    odd = {key: value for key in evaluation_record(4, 3) if key not in {"kind", "step"}}
    run.append_metrics({**odd, "kind": "evaluation", "step": 4})
    check(build_report(run))


def test_records_with_no_keys_but_kind_and_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=0, every=0)
    run.append_metrics({"kind": "update", "step": 1})
    run.append_metrics({"kind": "evaluation", "step": 1})
    run.write_rollouts("evaluation", 1, [{}, {"prompt": ["a", 1], "answer": None, "text": None, "reward": None}])
    assert "Nothing was recorded" in check(build_report(run))


def test_failed_rewards_are_counted_and_warned_about(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2, updates=1, every=0)
    run.append_metrics({**update_record(3, 0, 4, np.random.default_rng(1)), "failed_rewards": 3})
    run.append_metrics({**evaluation_record(3, 50), "failed_rewards": 2})
    page = check(build_report(run))
    assert "<dt>failed rewards</dt><dd>5</dd>" in page
    assert "5 rewards could not be computed" in page


def test_an_inert_region_and_a_vacuous_delta_are_named(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create({**config(2, 1), "objective": {"name": "drpo", "delta": 12.5}}, manifest())
    record = update_record(1, 0, 2, np.random.default_rng(1))
    still = dict.fromkeys(["shift", "shift_p99", "shift_max", "beyond_delta", "mismatch", "mismatch_p95"], 0.0)
    run.append_metrics({**record, **still})
    page = check(build_report(run))
    assert "δ = 12.5" in page and "|π − μ| cannot exceed 1" in page
    assert "π equals μ on every token" in page


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=0, planned=600, every=0)
    template = update_record(1, 0, 600, np.random.default_rng(1))
    lines = [{**template, "step": step, "shift_p99": 0.01 + step * 1e-4} for step in range(1, 601)]
    for line in lines:
        run.append_metrics(line)
    for step in range(0, 601, 5):
        run.append_metrics(evaluation_record(step, 20))
    run.write_rollouts("evaluation", 600, [sampled("p\x00\u202e" * 40_000, "\x00\u202e" * 400_000)] * 9)
    assert len(check(build_report(run))) < 700_000


def test_without_a_run_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        build_report(RunDirectory(tmp_path))


def test_a_malformed_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1)
    run.metrics_file.write_text("not json\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1"):
        write_report(run)


def test_neither_torch_nor_the_trainer_is_imported() -> None:
    program = (
        "import sys, drpo.report, drpo.report.figures.weights\n"
        "found = {m for m in sys.modules if m == 'torch' or m.startswith(('torch.', 'drpo.train'))}\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_message_comes_first_then_what_others_would_hold_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    outcome = {"kind": "worse", "sentence": "Held-out accuracy fell.", "reason": "Too many updates."}
    run.write_manifest(manifest(outcome=outcome))
    page = check(build_report(run))
    assert "<h1 class='bad'>Held-out accuracy fell.</h1><p>Too many updates.</p>" in page
    assert re.findall(r"<section id='([^']*)'", page)[:2] == ["others", "learning"]
    assert page.index("<pre data-copy>drpo train") < page.index("<section id='others'>")
    assert 'http-equiv="refresh"' not in page
    run.write_manifest(manifest(status="running"))
    assert '<meta http-equiv="refresh" content="15">' in check(build_report(run))


def test_prompts_whose_answer_became_wrong_come_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    for step, rewards in ((0, (1.0, 0.0, 1.0)), (3, (1.0, 1.0, 0.0))):
        run.write_rollouts(
            "evaluation", step, [sampled(f"p{i}", "t", reward=reward) for i, reward in enumerate(rewards)]
        )
    page = check(build_report(run))
    kinds = re.findall(r"data-kind='([^']*)'", page)
    assert kinds == ["right became wrong", "wrong became right", "right both times"]
    assert "1 right became wrong, 1 wrong became right, 1 right both times" in page


def test_a_long_key_breaks_between_its_words(tmp_path: Path) -> None:
    page = check(build_report(make_run(tmp_path / "run", steps=1)))
    assert "<th>objective.<wbr>advantage_<wbr>weighted</th>" in page


def test_logged_tokens_are_shown_as_far_as_there_is_room(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    good = {
        "step": 1,
        "update": 0,
        "group_id": 4,
        "reward": 1.0,
        "advantage": 0.5,
        "tokens": [1, 2],
        "texts": ["a", HOSTILE],
        "logprobs": [-0.5, -0.1],
        "behavior_logprobs": [-0.4, -0.2],
    }
    odd = [
        {**good, "logprobs": [-0.5]},
        {**good, "logprobs": None},
        {"step": "x"},
        {**good, "texts": 3, "advantage": None},
    ]
    for step in range(1, 13):
        run.write_tokens(step, [good, *odd] * 10)
    page = check(build_report(run))
    assert "<section id='tokens'>" in page and "8 of 12 steps" in page
    (data,) = re.findall(r"<script type='application/json' id='tokens-data'>(.*?)</script>", page)
    found = json.loads(data)
    assert len(found["responses"]) == 8 * 10 and found["weights"] == {}  # of 24 lines a step, each second one
    assert found["responses"][0]["group"] == "4" and found["texts"][2] == HOSTILE
    assert page.count("<script") == 2 and "shows its gradient weight too" in page


def test_logged_gradient_weights_color_the_tokens_and_older_lines_have_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    old = {"step": 1, "reward": 1.0, "advantage": 0.5, "logprobs": [-0.5, -0.1], "behavior_logprobs": [-0.4, -0.2]}
    new = {**old, "step": 2, "gradient_weights": [0.5, None]}
    run.write_tokens(1, [old])
    run.write_tokens(2, [new, {**new, "gradient_weights": [0.5]}])  # the last: of another length
    page = check(build_report(run))
    (data,) = re.findall(r"<script type='application/json' id='tokens-data'>(.*?)</script>", page)
    ((name, packed),) = json.loads(data)["weights"].items()
    weights = array("h", base64.b64decode(packed))
    assert name == "drpo" and list(weights) == [-32768, -32768, 500, -32768, -32768, -32768]
    assert "shows its gradient weight too" not in page and "w ≤ 0" in json.loads(data)["tests"][1]["title"]
