"""The sample of whole responses: bounded, the same for the same log, groups whole, with reward and group as logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.inspection import sampled
from drpo.inspection.inspect import inspect
from drpo.inspection.readers import record_tokens
from drpo.inspection.result import Inspection
from support.synthetic_log import as_responses, make_log, write_parquet

OBJECTIVES = ["drpo", "dppo_tv", "grpo"]


def rows(count: int, length: int, seed: int = 0) -> list[dict[str, Any]]:
    log = as_responses(make_log(tokens=count * length, seed=seed, drift=0.3, length=length))
    return [dict(zip(log, values, strict=True)) for values in zip(*log.values(), strict=True)]


def write(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def found(file: Path) -> Inspection:
    return inspect([file], objectives=OBJECTIVES)


def test_a_small_log_is_kept_with_what_it_says(tmp_path: Path) -> None:
    lines = rows(3, 8)
    for place, line in enumerate(lines):
        line |= {"reward": float(place), "group_id": "g", "update": 2, "texts": [f"t{i}" for i in range(8)]}
    log = found(write(tmp_path / "log.jsonl", lines))
    assert len(log.sampled) == 3
    for place, (response, line) in enumerate(zip(log.sampled, lines, strict=True)):
        assert (response.row, response.step, response.update) == (place + 1, line["step"], 2)
        assert (response.group, response.reward) == ("g", float(place))
        assert (response.first, response.length) == (0, 8)
        assert response.texts == line["texts"] and response.ids == [str(token) for token in line["tokens"]]
        assert response.logprobs == pytest.approx(line["logprobs"])
        assert response.behavior_logprobs == pytest.approx(line["behavior_logprobs"])
        assert list(response.weights) == OBJECTIVES and "random" in response.why
    weights = log.sampled[0].weights["drpo"]
    shift = np.abs(np.exp(log.sampled[0].logprobs) - np.exp(log.sampled[0].behavior_logprobs))
    assert (np.array(weights)[shift > 0.15] < 1).any() or not (shift > 0.15).any()


def test_it_is_bounded_and_has_what_is_changed_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "log.jsonl", rows(600, 40))
    log = found(file)
    tokens = sum(len(response.logprobs) for response in log.sampled)
    assert 100 < len(log.sampled) <= sampled.MOST_RESPONSES and tokens <= sampled.MOST_TOKENS
    assert {token.row for token in log.affected} <= {response.row for response in log.sampled}
    assert [response.row for response in log.sampled] == sorted(response.row for response in log.sampled)
    drawn = [response.row for response in log.sampled if "random" in response.why]
    assert len(drawn) == 80 and 200 < np.mean(drawn) < 400 and len({row // 60 for row in drawn}) == 10
    # In parts of another size the sample is the same.
    monkeypatch.setattr(record_tokens, "CHUNK_TOKENS", 1000)
    assert found(file).sampled == log.sampled


def test_a_group_is_kept_whole(tmp_path: Path) -> None:
    lines = rows(800, 10)
    for place, line in enumerate(lines):
        line |= {"group_id": place // 4, "reward": 1.0}
    kept = found(write(tmp_path / "log.jsonl", lines)).sampled
    sizes = {group: sum(response.group == group for response in kept) for group in {one.group for one in kept}}
    assert set(sizes.values()) == {4} and len(sizes) > 20


def test_of_a_long_response_the_part_around_the_most_changed_token_is_kept(tmp_path: Path) -> None:
    (line,) = rows(1, 9000)
    line["logprobs"] = list(line["behavior_logprobs"])
    line["behavior_logprobs"][7000], line["logprobs"][7000] = -2.0, -0.1
    (response,) = found(write(tmp_path / "log.jsonl", [line])).sampled
    assert response.length == 9000 and len(response.logprobs) == sampled.WINDOW
    assert response.logprobs[7000 - response.first] == pytest.approx(-0.1)


@pytest.mark.parametrize("reward", [None, "high", [1, 2], True, float("nan"), 10**400])
def test_a_reward_beside_an_advantage_may_be_anything(tmp_path: Path, reward: Any) -> None:
    lines = rows(2, 4)
    lines[1] |= {"reward": reward, "group_id": {"any": "thing"}}
    lines[0] |= {"reward": 0.5, "group_id": None}
    kept = found(write(tmp_path / "log.jsonl", lines)).sampled
    assert [one.reward for one in kept] == [0.5, 1.0 if reward is True else None]
    assert [one.group for one in kept] == [None, "{'any': 'thing'}"]
    del lines[1]["reward"], lines[1]["group_id"]
    assert [one.reward for one in found(write(tmp_path / "log.jsonl", lines)).sampled] == [0.5, None]


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("layout", ["tokens", "responses"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_reward_and_group_are_read_in_every_layout(tmp_path: Path, ending: str, layout: str, derived: bool) -> None:
    lines = [line | {"reward": float(i % 2), "group_id": i // 2} for i, line in enumerate(rows(4, 5))]
    if layout == "tokens":
        lines = [
            {
                "logprob": line["logprobs"][t],
                "behavior_logprob": line["behavior_logprobs"][t],
                "sequence_id": i,
                **{name: line[name] for name in ("reward", "group_id", "advantage")},
            }
            for i, line in enumerate(lines)
            for t in range(5)
        ]
    if derived:
        for line in lines:
            del line["advantage"]
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        file = write_parquet(tmp_path / "log.parquet", {name: [line[name] for line in lines] for name in lines[0]})
    else:
        file = write(tmp_path / "log.jsonl", lines)
    kept = found(file).sampled
    assert [(one.group, one.reward) for one in kept] == [("0", 0.0), ("0", 1.0), ("1", 0.0), ("1", 1.0)]
    if derived:
        assert [one.advantages[0] for one in kept] == [-0.5, 0.5, -0.5, 0.5]


def test_json_leaves_the_sample_out(tmp_path: Path) -> None:
    log = found(write(tmp_path / "log.jsonl", rows(3, 8)))
    values = log.figures_only()
    assert "sampled" not in values and values["tokens"] == 24 and log.sampled
