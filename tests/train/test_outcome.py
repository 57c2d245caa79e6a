"""What a run came to: the sentence, the likely reason, and what to try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drpo.inspection.inspect import inspect
from drpo.intervals import difference_interval, wilson_interval
from drpo.report import write_report
from drpo.run_directory import RunDirectory
from drpo.train.config import TrainConfig
from drpo.train.manifest import continued_manifest, ended_manifest
from drpo.train.outcome import outcome

CONFIG = {"learning_rate": 3e-4, "updates_per_step": 16, "max_new_tokens": 64, "eval_examples": 256}


def evaluation(correct: int, samples: int = 512, **more: Any) -> dict[str, Any]:
    return {"accuracy": correct / samples, "correct": correct, "samples": samples, **more}


def updates(count: int = 12, **changes: Any) -> list[dict[str, Any]]:
    """One update a step; a callable gives the value of its step."""
    healthy = {"truncated_share": 0.0, "gradient_norm": 1.0, "shift_p99": 0.1, "shift_max": 0.5, "delta": 0.15}
    return [
        {"step": step, **{k: v(step) if callable(v) else v for k, v in (healthy | changes).items()}}
        for step in range(1, count + 1)
    ]


def test_newcombe_s_interval_of_a_difference() -> None:
    """Newcombe (1998), Table II, (a): 56/70 − 48/80, method 10: 0.0524 to 0.3339."""
    found = difference_interval((48 / 80, *wilson_interval(48, 80)), (56 / 70, *wilson_interval(56, 70)))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (185, 483, "improved", "Held-out accuracy improved: 0.361 → 0.943 (+0.582, 95 % confidence interval +0.53"),
        (185, 102, "worse", "Held-out accuracy got worse: 0.361 → 0.199 (-0.162, 95 % confidence interval -0.21"),
        (185, 190, "unchanged", "Held-out accuracy did not change measurably: 0.361 → 0.371 (+0.010"),
    ],
)
def test_the_sentence(before: int, after: int, kind: str, words: str) -> None:
    found = outcome([evaluation(before), evaluation(after)], updates(), CONFIG)
    assert found.kind == kind and found.sentence.startswith(words)
    assert bool(found.reason) == bool(found.try_next) == (kind != "improved")


def test_the_interval_over_problems_counts_where_it_was_recorded() -> None:
    """16 samples of a prompt are no 16 independent ones."""
    wide = evaluation(185, avg_at_k={"low": 0.2, "high": 0.55})
    found = outcome([wide, evaluation(230)], updates(), CONFIG)
    assert found.kind == "unchanged"
    assert outcome([evaluation(185), evaluation(230)], updates(), CONFIG).kind == "improved"


@pytest.mark.parametrize("records", [[], [evaluation(185)], [{"accuracy": 0.5}, {"step": 1}]])
def test_nothing_is_said_without_two_evaluations(records: list[dict[str, Any]]) -> None:
    assert outcome(records, updates(), CONFIG).kind == "unknown"


BEYOND = updates(shift_p99=lambda step: 0.6 if step >= 4 else 0.1)
BACK_WITHIN = updates(shift_p99=lambda step: 0.6 if step < 4 else 0.1)


@pytest.mark.parametrize(
    ("after", "records", "reason", "try_next"),
    [
        (
            102,
            BEYOND,
            "From step 4 on some update of each step has |π − μ| beyond δ = 0.15",
            "learning_rate=0.0001, or updates_per_step=8",
        ),
        (185, BEYOND, "From step 4 on", "learning_rate=0.0001"),
        (102, BACK_WITHIN, "stayed within δ while it got worse", "learning_rate=0.0001"),
        (102, updates(truncated_share=0.95), "95% of the responses reached the length limit", "max_new_tokens=128"),
        (185, updates(gradient_norm=0.0), "100% of the updates had no gradient", "larger group_size"),
        (185, updates(shift_max=0.01), "hardly moved: |π − μ| was at most 0.01", "learning_rate=0.0009"),
        (185, updates(), "cannot be told from none with 512 held-out samples", "larger eval_examples"),
        (102, [], "No update was made", "Raise steps"),
        (102, updates(truncated_share=0.95, gradient_norm=0.0), "reached the length limit", "max_new_tokens"),
    ],
)
def test_the_reason_and_what_to_try(after: int, records: list[dict[str, Any]], reason: str, try_next: str) -> None:
    found = outcome([evaluation(185), evaluation(after)], records, CONFIG)
    assert reason in found.reason and try_next in found.try_next
    assert found.text.endswith(found.try_next)


def test_a_run_that_got_worse_is_called_that_by_manifest_report_and_inspect(tmp_path: Path) -> None:
    found = outcome([evaluation(185), evaluation(102)], BEYOND, CONFIG)
    run = RunDirectory(tmp_path / "run")
    run.create({"objective": {"name": "drpo", "delta": 0.15}, "task": {"name": "copy"}}, {"status": "running"})
    run.write_manifest(ended_manifest(run.read_manifest(), "finished", None, found))
    run.write_tokens(1, [{"step": 1, "logprobs": [-0.5, -1.0], "behavior_logprobs": [-0.7, -0.6], "advantage": 1.0}])

    assert run.read_manifest()["outcome"]["kind"] == "worse"
    write_report(run)
    page = run.report_file.read_text(encoding="utf-8")
    assert "got worse: 0.361 → 0.199" in page and "Try learning_rate=0.0001" in page
    assert "class='status '>finished" in page, "not in green"
    (finding,) = (finding for finding in inspect([run.path]).findings if finding.name == "got_worse")
    assert "From step 4 on" in finding.evidence and finding.fix == found.try_next
    # Once it goes on, how it ended last time no longer holds.
    manifest = continued_manifest(run.read_manifest(), TrainConfig(), 1, {}, [])
    assert "outcome" not in manifest


def test_one_update_a_step_is_not_halved() -> None:
    found = outcome([evaluation(185), evaluation(102)], BEYOND, CONFIG | {"updates_per_step": 1})
    assert "updates_per_step" not in found.try_next
