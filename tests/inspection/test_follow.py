"""A log that grows is counted like one that is whole: line by line, file by file, and again where it was replaced."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from drpo.errors import ConfigError, DataError, SchemaError
from drpo.inspection.follow import Following
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.growing import growing_lines
from drpo.inspection.readers.reading import Reading
from drpo.inspection.result import Inspection
from drpo.inspection.steps import Steps
from drpo.run_directory import RunDirectory
from support.inspections import close, comparable

OBJECTIVES = ["drpo", "ppo"]


def response(step: int, seed: int, length: int = 3) -> dict[str, Any]:
    draw = random.Random(f"{step} {seed}")
    mu = [-draw.random() * 3 for _ in range(length)]
    return {
        "logprobs": [value * draw.uniform(0.8, 1.2) for value in mu],
        "behavior_logprobs": mu,
        "advantage": draw.choice([-1.0, 1.0]),
        "step": step,
        "texts": ["ä", "∑", "b"][:length] + ["c"] * max(0, length - 3),
    }


def lines_of(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def token_rows(step: int, count: int = 3) -> list[dict[str, Any]]:
    """Responses with a row a token."""
    names = {"logprobs": "logprob", "behavior_logprobs": "behavior_logprob"}
    return [
        {name: found[key][i] for key, name in names.items()}
        | {"advantage": found["advantage"], "sequence_id": seed, "step": step}
        for seed in range(count)
        for found in [response(step, seed)]
        for i in range(3)
    ]


def follow(*paths: Path, **options: Any) -> Following:
    return Following(paths, objectives=OBJECTIVES, **options)


def same(found: Inspection, *paths: Path, **options: Any) -> bool:
    whole = inspect(paths, objectives=OBJECTIVES, **options)
    return set(found.files) == set(whole.files) and close(comparable(found), comparable(whole))


def tokens(following: Following) -> int:
    return 0 if following.waits_for() else following.result().tokens


def append(file: Path, content: bytes) -> None:
    with file.open("ab", buffering=0) as stream:
        stream.write(content)


def test_a_response_counts_once_its_line_is_whole_wherever_the_file_ends(tmp_path: Path) -> None:
    file, content = tmp_path / "log.jsonl", lines_of(*(response(1, seed) for seed in range(3)))
    following = follow(file)
    for end in range(len(content)):
        append(file, content[end : end + 1])
        following.look()
        assert tokens(following) == 3 * content[: end + 1].count(b"\n")
    following.finish()
    assert not following.notes and same(following.result(), file)


@pytest.mark.parametrize("records", [[response(1, seed) for seed in range(2)], token_rows(1, 2)])
def test_following_may_begin_in_the_middle_of_a_line(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    content = lines_of(*records)
    file = tmp_path / "log.jsonl"
    file.write_bytes(content)
    whole = inspect([file], objectives=OBJECTIVES)
    for end in range(0, len(content), 7):
        file.write_bytes(content[:end])
        following = follow(file)
        following.look()
        append(file, content[end:])
        following.look()
        following.finish()
        assert close(comparable(following.result()), comparable(whole)), end


def test_a_line_is_whole_or_not_read_at_every_byte(tmp_path: Path) -> None:
    content = lines_of(*token_rows(1, 1)).replace(b"\n", b"\r\n", 1) + b"\n" + lines_of(response(1, 0))
    file = tmp_path / "log.jsonl"
    for end in range(len(content) + 1):
        file.write_bytes(content[:end])
        reading = Reading(follows=True)
        lines = growing_lines(file, reading)
        before = list(itertools.takewhile(lambda item: item[1] is not None, lines))
        append(file, content[end:])
        reading.ended = True
        assert [line for _, line in [*before, *lines]] == content.splitlines(keepends=True)
        assert [number for number, _ in before] == [*range(1, content[:end].count(b"\n") + 1)]


def test_a_log_of_tokens_holds_back_the_response_that_may_go_on(tmp_path: Path) -> None:
    file, following = tmp_path / "log.jsonl", follow(tmp_path)
    counted = []
    for row in [*token_rows(1), *token_rows(2)]:
        append(file, lines_of(row))
        following.look()
        counted.append(tokens(following))
    assert counted == [3 * (i // 3) for i in range(18)]
    following.finish()
    assert following.result().tokens == 18 and same(following.result(), file)


def test_tokens_of_a_response_that_come_apart_are_refused_as_ever(tmp_path: Path) -> None:
    file, following = tmp_path / "log.jsonl", follow(tmp_path)
    first, second, _ = (token_rows(1)[i : i + 3] for i in (0, 3, 6))
    for part in (first[:2], second):
        append(file, lines_of(*part))
        following.look()
    append(file, lines_of(first[2]))
    with pytest.raises(DataError, match=r"line 6: .*comes a second time"):
        following.look()


def test_a_process_that_writes_is_read_line_by_line(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "with open(sys.argv[1], 'ab', buffering=0) as log:\n"
        "    for line in sys.stdin.buffer:\n"
        "        log.write(line)\n"
        "        print(flush=True)\n"
    )
    file, following = tmp_path / "log.jsonl", follow(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for step in range(1, 6):
            writer.stdin.write(lines_of(response(step, 0)))
            writer.stdin.flush()
            writer.stdout.readline()
            assert following.look() and not following.look()
            assert [figures.step for figures in following.result().steps] == [*range(1, step + 1)]
        writer.stdin.close()
    assert same(following.result(), file)


def test_new_files_are_found_at_any_depth_while_others_grow(tmp_path: Path) -> None:
    """As prime-rl writes them: several ranks at once, a folder a step."""
    following = follow(tmp_path)
    assert not following.look() and following.waits_for() == f"the first tokens of {tmp_path}"
    for step in (9, 10):
        for part in range(2):
            for rank in range(3):
                file = tmp_path / f"step_{step}" / f"rank_{rank}.jsonl"
                file.parent.mkdir(exist_ok=True)
                append(file, lines_of(response(step, 10 * rank + part)))
                assert following.look()
    following.finish()
    assert following.result().sequences == 12 and same(following.result(), tmp_path)


def test_files_that_vanish_and_empty_ones_do_not_stop_the_search(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "a").mkdir()
    following = follow(tmp_path)
    assert not following.look()
    (tmp_path / "a").rmdir()
    append(tmp_path / "empty.jsonl", lines_of(response(1, 0)))
    assert following.look() and not following.notes


def parquet(records: list[dict[str, Any]]) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(arrow.Table.from_pylist(records), stream)
    return stream.getvalue()


def pickled(records: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    torch.save(records, stream)
    return stream.getvalue()


def zstd(records: list[dict[str, Any]]) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="zstd needs pyarrow")
    return arrow.compress(lines_of(*records), codec="zstd", asbytes=True)


WRITTEN_ONCE: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "parquet": parquet,
    "pt": pickled,
    "json": lambda records: json.dumps(records).encode(),
    "jsonl.gz": lambda records: gzip.compress(lines_of(*records)),
    "jsonl.zst": zstd,
}


@pytest.mark.parametrize("ending", WRITTEN_ONCE)
def test_a_file_of_another_kind_counts_when_it_is_whole(tmp_path: Path, ending: str) -> None:
    following = follow(tmp_path)
    for step in (1, 2):
        content = WRITTEN_ONCE[ending]([response(step, seed) for seed in range(4)])
        file = tmp_path / f"log-{step}.{ending}"
        before = tokens(following)
        for end in sorted({1, 4, 13, len(content) // 3, len(content) // 2, len(content) - 9, len(content) - 1}):
            file.write_bytes(content[:end])
            following.look()
            assert tokens(following) == before, end
        file.write_bytes(content)
        assert following.look() and tokens(following) == before + 12 and not following.look()
    following.finish()
    assert not following.notes and same(following.result(), tmp_path)


def test_a_file_that_never_becomes_whole_is_named_at_the_end(tmp_path: Path) -> None:
    append(tmp_path / "1.jsonl", lines_of(response(1, 0)))
    half = tmp_path / "2.jsonl.gz"
    half.write_bytes(gzip.compress(lines_of(response(2, 0)))[:-5])
    following = follow(tmp_path)
    following.look()
    following.finish()
    assert following.notes == [f"{half} is not whole and was not read"] and following.result().tokens == 3


def truncate(file: Path) -> None:
    os.truncate(file, len(lines_of(response(1, 0))))


def write_longer(file: Path) -> None:
    file.write_bytes(lines_of(*(response(1, seed) for seed in range(10, 15))))


def write_as_long(file: Path) -> None:
    content = lines_of(response(1, 1), response(1, 0))
    assert len(content) == file.stat().st_size
    file.write_bytes(content)
    os.utime(file, ns=(0, 10**18))


def put_another_in_place(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes() + lines_of(response(1, 2)))
    other.replace(file)


def replace_by_another_of_that_name(file: Path) -> None:
    file.unlink()
    file.with_name("2.jsonl").write_bytes(lines_of(response(1, 4)))


@pytest.mark.parametrize(
    "change", [truncate, write_longer, write_as_long, put_another_in_place, replace_by_another_of_that_name]
)
def test_a_log_that_was_written_anew_is_counted_anew_and_said(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file = tmp_path / "1.jsonl"
    same_length = [response(1, seed) for seed in (0, 1)]
    append(file, lines_of(*same_length))
    following = follow(tmp_path)
    assert following.look()
    change(file)
    following.look()
    (note,) = following.notes
    assert str(file) in note and "read from its beginning" in note
    while following.is_behind:
        following.look()
    following.finish()
    assert same(following.result(), tmp_path)


@pytest.mark.parametrize("ending", ["parquet", "pt", "jsonl.gz"])
def test_a_file_that_was_read_once_may_be_replaced_too(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"log.{ending}"
    following = follow(file)
    for step in (1, 2):
        file.write_bytes(WRITTEN_ONCE[ending]([response(step, seed) for seed in range(step)]))
        following.look()
        while following.is_behind:
            following.look()
        assert [figures.step for figures in following.result().steps] == [step]
    assert len(following.notes) == 1 and same(following.result(), file)


def test_a_log_that_is_replaced_in_the_last_moment(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    append(file, lines_of(response(1, 0)))
    following = follow(file)
    following.look()
    write_longer(file)
    following.finish()
    assert following.result().tokens == 15 and len(following.notes) == 1


def test_an_unfinished_last_line_is_told_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    append(file, lines_of(response(1, 0)) + lines_of(response(1, 1))[:-9])
    following = follow(file)
    following.look()
    assert not following.result().findings or "unfinished_line" not in {f.name for f in following.result().findings}
    following.finish()
    assert "unfinished_line" in {finding.name for finding in following.result().findings}
    assert same(following.result(), file)


def test_a_file_with_half_a_line_alone_is_no_error(tmp_path: Path) -> None:
    append(tmp_path / "1.jsonl", lines_of(response(1, 0)))
    append(tmp_path / "2.jsonl", b'{"logprobs": [-')
    following = follow(tmp_path)
    following.look()
    following.finish()
    assert following.result().tokens == 3


def test_a_look_ends_in_time_and_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo.inspection.readers.record_tokens.CHUNK_TOKENS", 6)
    for name in ("1.jsonl", "2.jsonl"):
        append(tmp_path / name, lines_of(*(response(1, seed) for seed in range(6))))
    following, counted = follow(tmp_path), []
    while following.look(seconds=0):
        counted.append(tokens(following))
    assert counted == [6, 12, 18, 24, 30, 36] and not following.is_behind
    following = follow(tmp_path)
    following.look(seconds=0)
    assert following.is_behind
    following.finish()  # stopped by the user: what was read so far
    assert following.result().tokens == 6


def test_only_some_steps(tmp_path: Path) -> None:
    file, following = tmp_path / "log.jsonl", follow(tmp_path, steps=Steps(2))
    append(file, lines_of(response(1, 0)))
    following.look()
    assert following.waits_for() == "a token of the steps 2:"
    with pytest.raises(DataError, match="no token in the steps 2:"):
        following.result()
    append(file, lines_of(response(2, 0)))
    following.look()
    assert following.result().tokens == 3 and same(following.result(), file, steps=Steps(2))


def test_lists_of_lists_and_the_step_of_the_name(tmp_path: Path) -> None:
    """As NeMo-RL writes them."""
    file, following = tmp_path / "train_data_step7.jsonl", follow(tmp_path)
    record = {
        "prev_logprobs": [[-1.0, -0.5]],
        "generation_logprobs": [[-1.0, -0.7]],
        "advantages": [[1.0, 1.0]],
        "token_loss_mask": [[0, 1]],
        "sample_loss_mask": [1],
    }
    for _ in range(3):
        append(file, lines_of(record))
        assert following.look()
    following.finish()
    (step,) = following.result().steps
    assert (step.step, step.tokens, following.result().masked_tokens) == (7, 3, 3)
    assert same(following.result(), tmp_path)


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="- is the standard input"):
        follow(Path("-"))
    with pytest.raises(ConfigError, match="unknown objective 'grop'"):
        Following([tmp_path], objectives=["grop"])
    with pytest.raises(ConfigError, match="--delta must be"):
        Following([tmp_path], delta=0)
    rewards = {**response(1, 0), "reward": 1.0, "group_id": 0}
    del rewards["advantage"]
    append(tmp_path / "log.jsonl", lines_of(rewards))
    with pytest.raises(ConfigError, match=r"log\.jsonl has no advantages.*leave --follow out"):
        follow(tmp_path).look()
    other = tmp_path / "log.csv"
    other.write_text("a")
    with pytest.raises(DataError, match="unknown ending"):
        follow(other).look()


def test_a_newer_version_is_refused_where_its_first_line_came_in_two_parts(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create({}, {"status": "running"})
    run.tokens.mkdir()
    file, line = run.tokens / "step-000001.jsonl", lines_of({"schema": 99, **response(1, 0)})
    append(file, line[:30])
    following = follow(run.path)
    assert not following.look()
    append(file, line[30:])
    with pytest.raises(SchemaError, match="newer version of drpo"):
        following.look()


def test_what_it_waits_for(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    following = follow(run.path)
    following.look()
    assert following.waits_for() == f"{run.path}, which does not exist yet"
    with pytest.raises(DataError, match="does not exist"):
        following.result()
    run.create({"objective": {"name": "ppo"}}, {"status": "running"})
    following.look()
    assert following.waits_for() == f"the first tokens of {run.path}"
    run.write_tokens(1, [response(1, 0)])
    following.look()
    assert not following.waits_for() and following.result().objective == "ppo"
    half = tmp_path / "half.parquet"
    half.write_bytes(b"PAR1" * 2)
    following = follow(half)
    following.look()
    assert following.waits_for() == f"{half} to be whole"


def test_a_run_that_logs_no_tokens_is_not_waited_for(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create({"log_tokens": False}, {"status": "running"})
    with pytest.raises(DataError, match=r"logged no tokens.*log_tokens=sample"):
        follow(run.path).look()


def test_a_run_that_goes_on_from_a_checkpoint_with_another_bound(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create({"objective": {"name": "drpo", "delta": 0.1}}, {"status": "running"})
    following = follow(run.path)
    for step in (1, 2, 3):
        run.write_tokens(step, [response(step, 0)])
        following.look()
    assert (following.result().delta, following.result().tokens) == (0.1, 9)
    run.rewind(1)
    run.create({"objective": {"name": "drpo", "delta": 0.2}}, {"status": "running"})
    run.write_tokens(2, [response(2, 1)])
    following.look()
    while following.is_behind:
        following.look()
    assert (following.result().delta, following.result().tokens) == (0.2, 6)
    following.finish()
    assert len(following.notes) == 1 and same(following.result(), run.path)


def test_the_end_of_a_run_and_what_it_came_to(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    following = follow(run.path)
    assert not following.is_over()
    run.create({}, {"status": "running"})
    assert not following.is_over()
    run.write_tokens(1, [response(1, 0)])
    outcome = {"kind": "worse", "sentence": "It got worse.", "reason": "", "try_next": "x"}
    run.write_manifest({"status": "finished", "outcome": outcome})
    assert following.is_over()
    following.look()
    following.finish()
    assert "got_worse" in {finding.name for finding in following.result().findings}
    assert same(following.result(), run.path)
    assert not follow(tmp_path).is_over()  # other runs may come
    assert not follow(run.path, tmp_path / "log.jsonl").is_over()


def test_small_chunks_are_weighed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file a step, and files without a step between them: the figures are those of each file by itself."""
    for step in range(1, 6):
        append(tmp_path / f"{step}.jsonl", lines_of(*(response(step, seed) for seed in range(3))))
    for name in ("3.jsonl", "5.jsonl"):
        records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        (tmp_path / name).write_bytes(lines_of(*({k: v for k, v in r.items() if k != "step"} for r in records)))
    together = inspect([tmp_path])
    monkeypatch.setattr("drpo.inspection.inspect.TOGETHER", 0)
    apart = inspect([tmp_path])
    assert len(together.verdicts) > 15 and close(comparable(together), comparable(apart))
    assert [token.source for token in together.affected] == [token.source for token in apart.affected]
    assert [figures.step for figures in together.steps] == [1, 2, 4]
    assert all(len(verdict.changed_by_step) == 3 for verdict in together.verdicts)
