"""π and μ are found under the names of every trainer, and are never taken for one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.column_map import parse_column_map
from drpo.inspection.readers.columns import NAMES, resolve
from support.synthetic_log import as_responses, make_log, write_parquet

TRAINERS = {
    "prime-rl": ("trainer_logprobs", "inference_logprobs", "loss_mask"),
    "NeMo-RL": ("prev_logprobs", "generation_logprobs", "token_mask"),
    "slime": ("log_probs", "rollout_log_probs", "loss_masks"),
    "ms-swift": ("per_token_logps", "rollout_per_token_logps", "completion_mask"),
    "SkyRL": ("action_log_probs", "rollout_logprobs", "loss_mask"),
    "OpenRLHF": ("old_log_probs", "rollout_log_probs", "action_mask"),
    "verl": ("old_log_probs", "rollout_log_probs", "response_mask"),
    "TRL": ("per_token_logps", "sampling_per_token_logps", "completion_mask"),
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_log_with_the_names_of_a_trainer_is_read(tmp_path: Path, trainer: str, ending: str) -> None:
    pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")
    pi, mu, mask = TRAINERS[trainer]
    log = make_log(tokens=1000, drift=0.3)
    columns = as_responses(log)
    count = len(columns["logprobs"])
    named: dict[str, Any] = {
        pi: [[None, *row] for row in columns["logprobs"]],
        mu: [[0.0, *row] for row in columns["behavior_logprobs"]],
        mask: [[False, *[True] * 50] for _ in range(count)],
        # Prompt tokens have no advantage.
        "advantages": [[None, *[a] * 50] for a in columns["advantage"]],
        "ref_log_probs": [[-1.0] * 51] * count,
    }
    if ending == "parquet":
        file = write_parquet(tmp_path / "log.parquet", named)
    else:
        file = tmp_path / "log.jsonl"
        rows = zip(*named.values(), strict=True)
        file.write_text("".join(json.dumps(dict(zip(named, row, strict=True))) + "\n" for row in rows))
    found = inspect([file], objectives=["drpo"])
    expected = inspect([write_parquet(tmp_path / "own.parquet", log)], objectives=["drpo"])
    assert (found.tokens, found.masked_tokens, found.masks) == (1000, count, [mask])
    assert found.figures == pytest.approx(expected.figures)


def test_token_exports_of_prime_rl_are_found_in_their_folders(tmp_path: Path) -> None:
    for step in (2, 10):
        folder = tmp_path / "token_exports" / f"step_{step}"
        folder.mkdir(parents=True)
        (folder / "STABLE").touch()
        record = {
            "schema_version": 1,
            "step": step,
            "rank": 0,
            "env_name": "math",
            "token_ids": [5, 6, 7],
            "position_ids": [0, 1, 2],
            "loss_mask": [False, True, True],
            "advantages": [None, 0.5, 0.5],
            "inference_logprobs": [0.0, -0.5, -1.0],
            "trainer_logprobs": [None, -0.4, -1.1],
            "entropy": [None, 0.1, 0.2],
            "is_masked": [None, False, False],
            "is_masked_low": [None, False, False],
            "rl_weights": [None, None, None],
            "importance_ratio": [None, 1.1, 0.9],
        }
        (folder / "rank_0.jsonl").write_text(json.dumps(record) + "\n")
    found = inspect([tmp_path / "token_exports"], objectives=["drpo"])
    assert found.tokens == 4 and [step.step for step in found.steps] == [2, 10] and found.unusable_tokens == 0


@pytest.mark.parametrize("column", ["logprob", "behavior_logprob"])
@pytest.mark.parametrize(
    "others",
    [
        NAMES["logprob"],
        NAMES["behavior_logprob"],
        ("vllm_logprob", "ref_logprobs"),
        ("sampler_logprob", "logp_rollout", "Rollout_LogProbs"),
    ],
)
def test_a_suggestion_is_never_of_the_other_policy(column: str, others: tuple[str, ...]) -> None:
    """Each name alone in a file that lacks ``column``."""
    for other in others:
        if other in NAMES[column]:
            continue
        with pytest.raises(DataError) as error:
            resolve(["advantage", other], "log")
        text = str(error.value)
        if other in NAMES["logprob"] or other.startswith("ref"):
            assert "Did you mean" not in text, text
        elif column == "logprob":
            assert f"{other!r} for logprob" not in text, text


@pytest.mark.parametrize(
    ("other", "column"),
    [
        ("policy_logprobs", "logprob"),
        ("rollout_logp", "behavior_logprob"),
        ("logprbs", "logprob"),
        ("infer_logprobs", "behavior_logprob"),
    ],
)
def test_a_suggestion_of_the_right_policy_is_made(other: str, column: str) -> None:
    names = {"logprob": "logprobs", "behavior_logprob": "rollout_logprobs", "advantage": "advantage"}
    names[column] = other
    with pytest.raises(DataError, match=f"Did you mean '{other}' for {column}"):
        resolve(list(names.values()), "log")
    assert resolve(list(names.values()), "log", parse_column_map([f"{column}={other}"]))[column] == other


@pytest.mark.parametrize(
    ("names", "column"),
    [
        (["rollout_log_probs", "inference_logprobs", "logprobs"], "behavior_logprob"),
        (["trainer_logprobs", "per_token_logps", "rollout_logprobs"], "logprob"),
    ],
)
def test_two_columns_that_may_be_the_same_policy_are_asked_about(names: list[str], column: str) -> None:
    with pytest.raises(DataError, match=rf"may each be {column}.*--map {column}="):
        resolve([*names, "advantage"], "log")
    assert resolve([*names, "advantage"], "log", parse_column_map([f"{column}={names[1]}"]))[column] == names[1]


def test_all_missing_columns_are_named_in_one_map() -> None:
    with pytest.raises(DataError, match=r"--map logprob=train_logprobs,behavior_logprob=vllm_logp\. Its columns"):
        resolve(["train_logprobs", "vllm_logp", "advantage"], "log")
    with pytest.raises(DataError, match=r"--map logprob=NAME,behavior_logprob=NAME,advantage=NAME\. Its columns"):
        resolve(["prompt", "answer"], "log")


@pytest.mark.parametrize(
    "columns",
    [
        ["schema", "prompt", "answer", "text", "tokens", "reward", "failure", "stop_reason"],
        ["schema", "kind", "step", "reward", "accuracy"],
    ],
)
def test_another_file_of_a_run_names_the_run(columns: list[str]) -> None:
    with pytest.raises(DataError, match=r"not its token log.*drpo inspect RUN"):
        resolve(columns, "log")


def test_a_mapped_name_is_not_taken_for_another_column() -> None:
    """AReaL calls the sampler's log-probabilities logprobs."""
    names = ["logprobs", "prox_logp", "advantages"]
    with pytest.raises(DataError, match="lacks the column logprob"):
        resolve(names, "log", parse_column_map(["behavior_logprob=logprobs"]))
    found = resolve(names, "log", parse_column_map(["behavior_logprob=logprobs,logprob=prox_logp"]))
    assert (found["logprob"], found["behavior_logprob"]) == ("prox_logp", "logprobs")
