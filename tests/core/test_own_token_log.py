"""`drpo.TokenLog`: what a loop adds is what `drpo inspect` reads, bounded, whole lines, beside the run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import drpo
from drpo.errors import ConfigError, DataError, WriteError
from drpo.files import read_jsonl
from drpo.inspection.inspect import inspect

LENGTHS = (3, 1, 4)


def batch(lengths: tuple[int, ...] = LENGTHS, seed: int = 0, **fields: Any) -> drpo.TokenBatch:
    draw = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    logprobs = -3 * torch.rand(count, generator=draw) - 0.01
    return drpo.TokenBatch(
        logprobs.clone().requires_grad_(),
        (logprobs - 0.1 * torch.rand(count, generator=draw)).clamp(max=0),
        torch.randn(count, generator=draw),
        sequence_ids=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        **fields,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [record for file in sorted(folder.iterdir()) for record in read_jsonl(file)]


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    first, second = batch(), batch((2,), seed=1)
    with drpo.TokenLog(tmp_path / "a" / "tokens") as log:
        assert log.add(first, step=1, update=0, tokens=range(8), texts=list("abcdefgh")) == 8
        assert log.add(second, step=1, update=1, tokens=torch.tensor([7, 9]), texts=["g", "ö\n"]) == 2
        assert log.add(second, step=2) == 2
        found = inspect([log.path], delta=0.15)  # while the log is open
    assert (found.tokens, found.sequences) == (12, 5)
    lines = records(log.path)
    assert [(r["step"], r.get("update"), r["sequence_id"]) for r in lines] == [
        *[(1, 0, row) for row in range(3)],
        (1, 1, 3),
        (2, None, 0),
    ]
    assert [r["tokens"] for r in lines[:4]] == [[0, 1, 2], [3], [4, 5, 6, 7], [7, 9]]
    assert lines[3]["texts"] == ["g", "ö\n"] and "tokens" not in lines[4] and "texts" not in lines[4]
    for name, key in (("logprobs", "logprobs"), ("behavior_logprobs",) * 2, ("advantages",) * 2):
        read = [value for r in lines[:3] for value in r[name]]
        assert torch.equal(torch.tensor(read), getattr(first, key).detach())
    shift = (torch.cat([b.logprobs.exp() - b.behavior_logprobs.exp() for b in (first, second, second)])).abs()
    assert found.figures["shift_max"] == pytest.approx(float(shift.max()), rel=1e-5)


def test_the_texts_are_the_tokenizers(tmp_path: Path) -> None:
    decoded: list[list[int]] = []

    class Letters:
        def decode(self, token_ids: list[int]) -> str:
            decoded.append(token_ids)
            return chr(97 + token_ids[0])

    with drpo.TokenLog(tmp_path, tokenizer=Letters()) as log:
        log.add(batch((4,)), step=1, tokens=[0, 2, 0, 1])
        log.add(batch((1,)), step=2, tokens=[5], texts=["given"])
    assert [r["texts"] for r in records(tmp_path)] == [["a", "c", "a", "b"], ["given"]]
    assert decoded == [[0], [2], [1]]


def test_further_fields_are_written_and_a_batch_without_ids_is_one_response(tmp_path: Path) -> None:
    values = {"proximal_logprobs": [-1.0, -2.25], "entropy": [0.5, 1.0]}
    fields: dict[str, Any] = {name: torch.tensor(value) for name, value in values.items()}
    packed = drpo.TokenBatch(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.5]), torch.ones(2), **fields)
    drpo.TokenLog(tmp_path).add(packed, step=0)
    (line,) = records(tmp_path)
    assert {name: line[name] for name in values} == values


def test_no_response_is_added_to_a_full_update(tmp_path: Path) -> None:
    log = drpo.TokenLog(tmp_path / "some", limit=4)
    written = [log.add(batch(), step=1, update=update) for update in (0, 0, 1)]
    assert written[0] >= 4 and written[1] == 0 and written[2] >= 4
    assert log.add(batch((9,)), step=2) == 9  # whole responses
    lengths = [len(r["logprobs"]) for r in records(log.path)]
    assert sum(lengths) == sum(written) + 9 and set(lengths) <= {3, 1, 4, 9}
    for update, count in ((0, written[0]), (1, written[2])):
        kept = [len(r["logprobs"]) for r in records(log.path) if r.get("update") == update]
        assert sum(kept[:-1]) < 4 <= sum(kept) == count
    assert [r["sequence_id"] for r in records(log.path)] == [*range(len(lengths) - 1), 0]
    assert drpo.TokenLog(tmp_path / "all", limit=None).add(batch((9000, 9000)), step=1) == 18_000


def test_a_bounded_log_is_a_random_sample_of_what_comes_in_one_call(tmp_path: Path) -> None:
    """Each of 20 responses has the same chance, wherever it stands and however long it is."""
    lengths = tuple(1 + i % 5 for i in range(20))
    whole = batch(lengths)
    starts = [sum(lengths[:i]) for i in range(20)]
    log, kept = drpo.TokenLog(tmp_path, limit=12), [0] * 20
    for step in range(400):
        log.add(whole, step=step, tokens=range(sum(lengths)), texts=[str(i) for i in range(sum(lengths))])
    for record in records(tmp_path):
        row = starts.index(record["tokens"][0])
        kept[row] += 1
        span = range(starts[row], starts[row] + lengths[row])
        assert record["tokens"] == [*span] and record["texts"] == [str(i) for i in span]
        assert record["logprobs"] == pytest.approx(whole.logprobs[span.start : span.stop].tolist())
    expected = sum(kept) / 20
    assert all(abs(count - expected) < 4.5 * expected**0.5 for count in kept)
    again = drpo.TokenLog(tmp_path / "again", limit=12)
    again.add(whole, step=7)
    assert [r["logprobs"] for r in records(again.path)] == [
        r["logprobs"] for r in read_jsonl(tmp_path / "step-000007.jsonl")
    ]


def test_a_loop_that_goes_on_writes_its_steps_again(tmp_path: Path) -> None:
    for first, last, seed in ((1, 5, 0), (3, 4, 1)):
        with drpo.TokenLog(tmp_path) as log:
            for step in range(first, last + 1):
                log.add(batch(seed=seed), step=step)
    (tmp_path / "notes.txt").write_text("mine")
    drpo.TokenLog(tmp_path)  # nothing is deleted before something is added
    assert sorted(file.name for file in tmp_path.glob("*.jsonl")) == [f"step-{step:06d}.jsonl" for step in range(1, 5)]
    old, new = (batch(seed=seed).logprobs.detach()[:3].tolist() for seed in (0, 1))
    for step, expected in ((2, old), (3, new)):
        (line, *_) = read_jsonl(tmp_path / f"step-{step:06d}.jsonl")
        assert line["logprobs"] == pytest.approx(expected)


def test_nothing_of_the_loop_changes(tmp_path: Path) -> None:
    mine = batch()
    loss = drpo.aggregate(drpo.make_objective("drpo")(mine).loss, mine)
    (expected,) = torch.autograd.grad(loss, mine.logprobs, retain_graph=True)
    state = torch.get_rng_state()
    drpo.TokenLog(tmp_path).add(mine, step=1)
    assert torch.equal(torch.get_rng_state(), state)
    (found,) = torch.autograd.grad(loss, mine.logprobs)
    assert torch.equal(found, expected) and mine.logprobs.requires_grad


@pytest.mark.parametrize("as_tensors", [False, True])
def test_rewards_and_groups_are_shown_with_the_responses(tmp_path: Path, as_tensors: bool) -> None:
    mine = batch()
    rewards, groups = [1.0, 0.25, float("nan")], [7, 7, 8]
    given: Any = {"rewards": torch.tensor(rewards), "groups": torch.tensor(groups)} if as_tensors else {}
    with drpo.TokenLog(tmp_path) as log:
        log.add(mine, step=1, **(given or {"rewards": rewards, "groups": groups}))
        log.add(mine, step=2, rewards=[1, 0, 1], groups=["a", "b", "a"])
        log.add(mine, step=3)
    lines = records(tmp_path)
    assert [line.get("reward", "none") for line in lines] == [1.0, 0.25, None, 1.0, 0.0, 1.0, *["none"] * 3]
    assert [line.get("group_id", "none") for line in lines] == [7, 7, 8, "a", "b", "a", *["none"] * 3]
    found = inspect([tmp_path], delta=0.15)
    shown = [(one.step, one.group, one.reward) for one in found.sampled]
    assert shown[:6] == [(1, "7", 1.0), (1, "7", 0.25), (1, "8", None), (2, "a", 1.0), (2, "a", 1.0), (2, "b", 0.0)]
    # Nothing is computed from them: the advantages are those of the batch.
    assert "group_advantages" not in {finding.name for finding in found.findings}
    assert found.sampled[0].advantages == pytest.approx(mine.advantages[:3].tolist())


def test_of_a_bounded_log_each_response_keeps_its_own_reward_and_group(tmp_path: Path) -> None:
    lengths = (3,) * 20
    log = drpo.TokenLog(tmp_path, limit=12)
    log.add(batch(lengths), step=1, tokens=range(60), rewards=range(20), groups=[f"g{i}" for i in range(20)])
    kept = records(tmp_path)
    assert len(kept) == 4
    for line in kept:
        row = line["tokens"][0] // 3
        assert (line["reward"], line["group_id"]) == (row, f"g{row}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewards": [1.0, 2.0]}, r"rewards must hold a number for each of the batch's 3 responses, .* got \[2\]"),
        ({"rewards": torch.zeros(8)}, r"rewards must hold a number for each of the batch's 3 responses"),
        ({"rewards": ["good", "bad", "bad"]}, "rewards must be a tensor, a NumPy array or a list of numbers"),
        ({"groups": [1, 2]}, r"groups must hold a whole number or text for each of the batch's 3 .* got \[1, 2\]"),
        ({"groups": "abc"}, "groups must hold a whole number or text"),
        ({"groups": 4}, "groups must hold a whole number or text"),
        ({"groups": [0.5, 1, 2]}, "a group must be a whole number from 0, got 0.5"),
        (
            {"tokens": torch.zeros(2, 4, dtype=torch.int64)},
            r"tokens must be \[N\] = \[8\].*got \[2, 4\]; .*ids\[mask\]",
        ),
        ({"tokens": torch.zeros(7, dtype=torch.int64)}, r"tokens must be \[N\] = \[8\]"),
        ({"tokens": torch.zeros(8)}, "tokens must be whole numbers"),
        ({"tokens": ["a"] * 8}, "tokens must be a tensor, a NumPy array or a list of numbers"),
        ({"texts": ["a"] * 3}, "a text for each of the batch's 8 tokens, got 3"),
        ({"texts": "abcdefgh"}, "a text for each of the batch's 8 tokens, got one text"),
        ({"step": -1}, "step must be a whole number from 0, got -1"),
        ({"step": True}, "step must be a whole number from 0, got True"),
        ({"update": 0.5}, "update must be a whole number from 0, got 0.5"),
        ({"step": 1}, "step 1 was added after step 2; .*never fall"),
        ({"batch": {"logprobs": [-1.0]}}, r"batch must be a drpo\.TokenBatch, got dict; make one with"),
    ],
)
def test_what_cannot_be_logged_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    log = drpo.TokenLog(tmp_path)
    log.add(batch((1,)), step=2)
    with pytest.raises(DataError, match=message):
        log.add(**{"batch": batch(), "step": 3, **given})
    assert len(records(tmp_path)) == 1


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    with drpo.TokenLog(tmp_path) as log:
        pass
    with pytest.raises(DataError, match=r"the token log .* is closed; add inside its `with` block"):
        log.add(batch(), step=1)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "all"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit must be a whole number of tokens above 0, or None"):
        drpo.TokenLog(tmp_path, limit=limit)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "tokens"):
        with pytest.raises(WriteError, match=r"cannot write to .*file.* choose another folder"):
            drpo.TokenLog(path)
    log = drpo.TokenLog(tmp_path / "log")
    os.rmdir(log.path)
    with pytest.raises(WriteError, match=r"cannot write to .*log"):
        log.add(batch(), step=1)


def test_a_missing_number_is_written_as_null_and_reported(tmp_path: Path) -> None:
    """An engine that left a token out: the log keeps it, and the inspection counts it."""
    nan = drpo.TokenBatch(
        torch.full((20,), -1.0), torch.tensor([float("nan")] + [-1.1] * 19), torch.ones(20), validate=False
    )
    drpo.TokenLog(tmp_path).add(nan, step=1)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["behavior_logprobs"][0] is None
    assert "unusable_logprobs" in {finding.name for finding in inspect([tmp_path], delta=0.15).findings}
