"""Logs with rewards and groups in the place of advantages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drpo.advantages import group_advantages
from drpo.errors import ConfigError, DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers import record_tokens
from drpo.inspection.readers.column_map import parse_column_map
from support.inspections import close, comparable
from support.synthetic_log import as_responses, make_log, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

OBJECTIVES = ["drpo", "grpo"]
COUNT, LENGTH = 60, 20


@pytest.fixture(scope="module")
def rewards() -> dict[str, Any]:
    """Of each response: reward, group, step. Groups stand scattered, and their ids come again in the next step."""
    random = np.random.default_rng(3)
    step = np.arange(COUNT) // 30
    group = random.permutation(np.arange(COUNT) % 10)
    # Groups 8 and 9 have equal rewards.
    reward = np.where(group < 8, random.integers(0, 2, COUNT), 1).astype(np.float32)
    advantage = group_advantages(torch.tensor(reward), torch.tensor(step * 10 + group))
    return {"reward": reward, "group": group, "step": step, "advantage": advantage.numpy()}


def tokens(rewards: dict[str, Any], given: tuple[str, ...]) -> dict[str, Any]:
    """One row a token, with the columns ``given`` of ``rewards``."""
    log = make_log(tokens=COUNT * LENGTH, drift=0.4, length=LENGTH)
    index = np.arange(COUNT * LENGTH) // LENGTH
    log = {name: log[name] for name in ("logprob", "behavior_logprob", "sequence_id")}
    return log | {name: rewards[name][index] for name in given}


def lists(rewards: dict[str, Any], given: tuple[str, ...]) -> list[dict[str, Any]]:
    """One dict a response, likewise."""
    log = make_log(tokens=COUNT * LENGTH, drift=0.4, length=LENGTH)
    rows = as_responses(log)
    columns = {name: rows[name] for name in ("logprobs", "behavior_logprobs")}
    columns |= {name: rewards[name].tolist() for name in given}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write(file: Path, records: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


GIVEN = ("reward", "group", "step")
NAMED = "group=group"


@pytest.mark.parametrize("kind", ["tokens.jsonl", "tokens.parquet", "lists.jsonl", "lists.parquet", "two.jsonl"])
def test_advantages_are_the_rewards_less_their_groups_mean(
    tmp_path: Path, rewards: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_tokens, "CHUNK_TOKENS", 150)
    expected = inspect(
        [write_parquet(tmp_path / "own.parquet", tokens(rewards, ("advantage", "step")))], objectives=OBJECTIVES
    )
    layout, ending = kind.split(".")
    files = [tmp_path / kind]
    records = lists(rewards, GIVEN)
    if layout == "tokens":
        (write_parquet if ending == "parquet" else write_jsonl)(files[0], tokens(rewards, GIVEN))
    elif ending == "parquet":
        write_parquet(files[0], {name: [record[name] for record in records] for name in records[0]})
    else:
        halves = [records[::2], records[1::2]] if layout == "two" else [records]
        files = [write(tmp_path / f"{i}.jsonl", half) for i, half in enumerate(halves)]
    found = inspect(files, objectives=OBJECTIVES, columns=parse_column_map([NAMED]))
    (note,) = [finding for finding in found.findings if finding.name == "group_advantages"]
    assert note.severity == "note" and "60 responses in 20 groups" in note.evidence
    if layout == "two":  # another order of responses
        assert found.figures == pytest.approx(expected.figures)
        return
    a, b = comparable(found), comparable(expected)
    a["findings"] = [finding for finding in a["findings"] if finding["name"] != "group_advantages"]
    assert close(a, b)


def test_samples_of_a_dump_with_both_policies_need_no_advantage(tmp_path: Path, rewards: dict[str, Any]) -> None:
    """slime's samples with a field log_probs that a rollout function of one's own adds; a file a rollout."""
    expected = inspect(
        [write_parquet(tmp_path / "own.parquet", tokens(rewards, ("advantage", "step")))], objectives=OBJECTIVES
    )
    records = lists(rewards, GIVEN)
    for step in (0, 1):
        samples = [
            {
                "index": i,
                "group_index": record["group"],
                "prompt": "2 + 2 =",
                "tokens": [7, 7, *range(LENGTH)],
                "response_length": LENGTH,
                "reward": record["reward"],
                "loss_mask": None,
                "rollout_log_probs": record["behavior_logprobs"],
                "log_probs": record["logprobs"],
                "status": "completed",
                "metadata": {},
            }
            for i, record in enumerate(records)
            if record["step"] == step
        ]
        torch.save({"rollout_id": step, "samples": samples}, tmp_path / f"rollout_{step}.pt")
    found = inspect(sorted(tmp_path.glob("*.pt")), objectives=OBJECTIVES)
    assert found.figures == pytest.approx(expected.figures)
    assert found.layouts == ["the training data of slime, vime or miles"]
    assert {token.token for token in found.affected} <= {str(i) for i in range(LENGTH)}


def test_a_masked_response_counts_in_the_mean_of_its_group(tmp_path: Path) -> None:
    records = [
        {"logprobs": [-0.5], "behavior_logprobs": [-0.4], "reward": reward, "uid": "a", "loss_mask": [mask]}
        for reward, mask in ((1.0, 1), (0.0, 0), (0.0, 1), (0.0, 0))
    ]
    found = inspect([write(tmp_path / "log.jsonl", records)], objectives=OBJECTIVES)
    assert found.tokens == 2 and found.masked_tokens == 2
    assert sorted(token.advantage for token in found.affected) in ([0.75], [-0.25, 0.75])


def test_logged_advantages_are_better_than_rewards_unless_these_are_named(tmp_path: Path) -> None:
    records = [
        {"logprobs": [-0.5], "behavior_logprobs": [-0.9], "advantage": 3.0, "reward": reward, "uid": 1}
        for reward in (1.0, 0.0)
    ]
    file = write(tmp_path / "log.jsonl", records)
    assert {token.advantage for token in inspect([file], objectives=OBJECTIVES).affected} <= {3.0}
    found = inspect([file], objectives=OBJECTIVES, columns=parse_column_map(["reward=reward"]))
    assert {token.advantage for token in found.affected} == {0.5, -0.5}
    with pytest.raises(ConfigError, match="names advantage and reward"):
        parse_column_map(["reward=reward,advantage=advantage"])


BASE = {"logprobs": [-0.5], "behavior_logprobs": [-0.4], "reward": 1.0, "uid": 1}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"uid": 2}, "each of its 2 responses is alone in its group"),
        ({"reward": None}, "line 2: reward must be one finite number a response"),
        ({"reward": [1.0]}, "line 2: reward must be one finite number a response"),
        ({"reward": float("nan")}, "line 2: reward is nan"),
        ({"reward": 1e300}, "line 2: reward is inf"),
        ({"reward": 10**400}, "line 2: reward must be a number of a usual size"),
        ({"uid": None}, "line 2: uid must be a whole number or text"),
        ({"uid": 1.5}, "line 2: uid must be a whole number or text"),
        ({"uid": {}}, "line 2: uid must be a whole number or text"),
        ({"advantage": 1.0}, "line 2: the column 'advantage' is not in the lines before"),
    ],
)
def test_a_bad_reward_or_group_is_one_message(tmp_path: Path, second: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        inspect([write(tmp_path / "log.jsonl", [BASE, {**BASE, **second}])])


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_response_has_one_reward(tmp_path: Path, rewards: dict[str, Any], ending: str) -> None:
    log = tokens(rewards, GIVEN)
    log["reward"] = log["reward"].copy()
    log["reward"][5] = 7
    file = tmp_path / f"log.{ending}"
    (write_parquet if ending == "parquet" else write_jsonl)(file, log)
    with pytest.raises(DataError, match=r"6: reward must be .*, as in its response, got 7.0"):
        inspect([file], columns=parse_column_map([NAMED]))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("reward", ["a", "b"], "'reward' must hold one finite number a response"),
        ("reward", [1.0, None], "row 2: reward is null"),
        ("reward", [1.0, float("inf")], "row 2: reward is inf"),
        ("uid", [1.5, 2.0], "row 1: uid must be a whole number or text"),
        ("uid", [1, None], "row 2: uid is null"),
        ("uid", [[1], [1]], "'uid' must hold a whole number or text"),
    ],
)
def test_a_bad_column_of_parquet_is_one_message(tmp_path: Path, column: str, values: list[Any], message: str) -> None:
    columns = {name: [value, value] for name, value in BASE.items()} | {column: values}
    with pytest.raises(DataError, match=message):
        inspect([write_parquet(tmp_path / "log.parquet", columns)])


def test_files_with_and_without_advantages_are_not_read_together(tmp_path: Path) -> None:
    without = write(tmp_path / "0.jsonl", [BASE, BASE])
    having = write(tmp_path / "1.jsonl", [{**BASE, "advantage": 1.0}])
    with pytest.raises(DataError, match=r"1\.jsonl has advantages where the files before have none"):
        inspect([without, having])
    with pytest.raises(DataError, match=r"0\.jsonl has no advantages where the files before have them"):
        inspect([having, without])


def test_a_reward_without_a_group_is_no_advantage(tmp_path: Path) -> None:
    record = {name: value for name, value in BASE.items() if name != "uid"}
    with pytest.raises(DataError, match=r"lacks the column advantage .*computed from a reward .* and a group"):
        inspect([write(tmp_path / "log.jsonl", [record])])
    with pytest.raises(DataError, match="lacks the column"):
        inspect([write(tmp_path / "log.jsonl", [record])], columns=parse_column_map(["reward=reward"]))
