"""One log, the same inspection: whatever the format, the layout, the column names, and where chunks end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from drpo.errors import ConfigError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers import parquet as parquet_reader
from drpo.inspection.readers import record_tokens as record_reader
from drpo.inspection.readers.sources import find_log, read_log
from support.inspections import close, comparable
from support.synthetic_log import Log, as_responses, make_log, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(tokens=3000, drift=0.4)


def write_responses(file: Path, log: Log) -> Path:
    columns = as_responses(log)
    rows = zip(*columns.values(), strict=True)
    file.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return file


def test_formats_layouts_and_chunks_do_not_matter(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        write_parquet(tmp_path / "tokens.parquet", log),
        write_parquet(tmp_path / "responses.parquet", as_responses(log), row_group_size=7),
        write_jsonl(tmp_path / "tokens.jsonl", log),
        write_responses(tmp_path / "responses.jsonl", log),
        write_parquet(
            tmp_path / "wide.parquet",
            {name: values.astype(np.float64) if values.dtype == np.float32 else values for name, values in log.items()},
        ),
        write_parquet(
            tmp_path / "named.parquet", {**log, "sequence_id": [f"response-{i}" for i in log["sequence_id"]]}
        ),
    ]
    expected = comparable(inspect(files[:1]))
    assert expected["tokens"] == 3000 and expected["sequences"] == 60
    for size in (1 << 18, 170):
        monkeypatch.setattr(record_reader, "CHUNK_TOKENS", size)
        monkeypatch.setattr(parquet_reader, "CHUNK_TOKENS", size)
        for file in files:
            found = comparable(inspect([file]))
            assert close(found, expected), (file.name, size)


def test_chunks_hold_whole_sequences_in_order(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_reader, "CHUNK_TOKENS", 120)
    monkeypatch.setattr(parquet_reader, "CHUNK_TOKENS", 120)
    for file in (write_parquet(tmp_path / "a.parquet", log), write_jsonl(tmp_path / "b.jsonl", log)):
        chunks = [tokens for tokens, _ in read_log(find_log([file]))]
        assert len(chunks) > 15
        assert np.concatenate([chunk.logprobs for chunk in chunks]).tolist() == log["logprob"].tolist()
        assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(1, 3001))
        for chunk in chunks:
            assert len(chunk) % 50 == 0 and np.bincount(chunk.sequences).tolist() == [50] * (len(chunk) // 50)


def test_progress_ends_at_one_over_several_files(tmp_path: Path, log: Log) -> None:
    files = [write_parquet(tmp_path / "a.parquet", log), write_jsonl(tmp_path / "b.jsonl", log)]
    seen: list[float] = []
    found = inspect(files, on_progress=seen.append)
    assert found.tokens == 6000 and found.sequences == 120
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path, log: Log) -> None:
    for number in (10, 9, 1):
        write_jsonl(tmp_path / f"{number}.jsonl", {name: values[:50] for name, values in log.items()})
    (tmp_path / "notes.txt").write_text("no tokens here")
    assert [file.name for file in find_log([tmp_path]).files] == ["1.jsonl", "9.jsonl", "10.jsonl"]


def test_of_a_folder_with_a_token_log_of_ours_nothing_else_is_read(tmp_path: Path, log: Log) -> None:
    """What TRL writes beside it has no log-probabilities: completions/, checkpoint-1/trainer_state.json."""
    (tmp_path / "out" / "tokens").mkdir(parents=True)
    file = write_responses(tmp_path / "out" / "tokens" / "step-000001.jsonl", log)
    (tmp_path / "out" / "completions").mkdir()
    (tmp_path / "out" / "completions" / "completions_00001.jsonl").write_text('{"prompt": "a", "advantage": 1.0}\n')
    assert inspect([tmp_path / "out"]).files == [str(file)] == inspect([tmp_path]).files


@pytest.mark.parametrize(
    "names",
    [
        {"logprobs": "old_log_probs", "behavior_logprobs": "rollout_log_probs", "advantage": "advantages"},
        {"logprobs": "per_token_logps", "behavior_logprobs": "sampling_per_token_logps"},
    ],
)
def test_a_dump_of_verl_or_trl_with_logprobs_is_read(tmp_path: Path, log: Log, names: dict[str, str]) -> None:
    columns = {names.get(name, name): values for name, values in as_responses(log).items()}
    count = len(columns["step"])
    extra = {"input": ["1 + 1 ="] * count, "output": ["2"] * count, "score": [1.0] * count, "gts": [None] * count}
    file = write_parquet(tmp_path / "1.parquet", {**columns, **extra})
    assert close(comparable(inspect([file])), comparable(inspect([write_parquet(tmp_path / "log.parquet", log)])))


def test_a_mask_leaves_out_padding_whatever_it_holds(tmp_path: Path, log: Log) -> None:
    columns = as_responses(log)
    padded = {
        **columns,
        **{name: [[*row, 9.0] for row in columns[name]] for name in ("logprobs", "behavior_logprobs")},
        "tokens": [[*row, 0] for row in columns["tokens"]],
        "advantages": [
            [advantage] * len(row) + [float("nan")]
            for advantage, row in zip(columns["advantage"], columns["logprobs"], strict=True)
        ],
        "response_mask": [[1] * len(row) + [0] for row in columns["logprobs"]],
    }
    del padded["advantage"]
    expected = comparable(inspect([write_parquet(tmp_path / "log.parquet", log)]))
    assert close(comparable(inspect([write_parquet(tmp_path / "padded.parquet", padded)])), expected)
    lines = [dict(zip(padded, row, strict=True)) for row in zip(*padded.values(), strict=True)]
    file = tmp_path / "padded.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert close(comparable(inspect([file])), expected)


def test_text_is_shown_with_its_neighbors(tmp_path: Path) -> None:
    log = make_log(tokens=3000, drift=0.1)
    log["logprob"][777] = -0.01
    log["behavior_logprob"][777] = -1.5
    log["advantage"] = np.full(3000, 1.0, dtype=np.float32)
    text = [f" w{i}" for i in range(3000)]
    found = inspect([write_parquet(tmp_path / "log.parquet", {**log, "text": text})])
    worst = found.affected[0]
    assert (worst.row, worst.text, worst.token) == (778, " w777", str(log["token"][777]))
    assert worst.before.endswith(" w775 w776") and worst.after.startswith(" w778 w779")
    assert worst.mu == pytest.approx(np.exp(-1.5)) and worst.weight < 0


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_parquet(tmp_path / "log.parquet", log)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[inspect\]'"):
        inspect([file])
