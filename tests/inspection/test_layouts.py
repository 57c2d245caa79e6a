"""The same tokens in every trainer's layout: the same figures to 6 digits as in our own, and the layout is named.

Our own log is written by the function that `drpo train` and the TRL plug-in write theirs with. The others are made by
the schema that the trainer documents or writes in its source. tests/hosts/skyrl and tests/hosts/tinker write logs from
the real types of SkyRL and Tinker.
"""

from __future__ import annotations

import html
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from drpo.batch import TokenBatch
from drpo.errors import DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.columns import GROUPS, NAMES, PAIRS, resolve
from drpo.inspection.result import Inspection
from drpo.report.inspection.page import build_inspection_page
from drpo.token_log import lists_by_response
from support.inspections import close, comparable
from support.synthetic_log import as_responses, make_log, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

OBJECTIVES = ["surrogate", "grpo", "drpo", "dppo_tv"]
#: Tokens of a prompt, and of the padding after a response.
PROMPT, PADDING = 3, 2
Response = dict[str, Any]
Log = dict[str, Any]


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(tokens=2000, drift=0.4, length=20)


@pytest.fixture(scope="module")
def expected(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return inspect([write_jsonl(tmp_path_factory.mktemp("own") / "log.jsonl", log)], objectives=OBJECTIVES)


def responses(log: Log) -> list[Response]:
    """Dicts with ``logprobs``, ``behavior_logprobs``, ``tokens``, ``advantage`` and ``step``."""
    columns = as_responses(log)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def lines(file: Path, records: list[Response]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def padded(values: list[Any], fill: Any, before: int = 0, after: int = PADDING) -> list[Any]:
    return [*[fill] * before, *values, *[fill] * after]


def own(folder: Path, log: Log) -> Path:
    rows = responses(log)
    lengths = [len(row["tokens"]) for row in rows]
    batch = TokenBatch(
        torch.tensor(log["logprob"]),
        torch.tensor(log["behavior_logprob"]),
        torch.tensor(log["advantage"]),
        sequence_ids=torch.arange(len(rows)).repeat_interleave(torch.tensor(lengths)),
    )
    written = lists_by_response(batch, lengths)
    return lines(
        folder / "tokens" / "step-000001.jsonl",
        [
            {"step": row["step"], "tokens": row["tokens"], **lists, "advantage": row["advantage"]}
            for row, lists in zip(rows, written, strict=True)
        ],
    ).parent


def prime_rl(folder: Path, log: Log) -> Path:
    """src/prime_rl/trainer/rl: a file a rank and step; the prompt has no advantage and is masked."""
    for row in responses(log):
        record = {
            "schema_version": 1,
            "step": row["step"],
            "rank": 0,
            "token_ids": padded(row["tokens"], 7, PROMPT, 0),
            "loss_mask": padded([True] * len(row["tokens"]), False, PROMPT, 0),
            "advantages": padded([row["advantage"]] * len(row["tokens"]), None, PROMPT, 0),
            "inference_logprobs": padded(row["behavior_logprobs"], 0.0, PROMPT, 0),
            "trainer_logprobs": padded(row["logprobs"], None, PROMPT, 0),
            "entropy": padded([0.5] * len(row["tokens"]), None, PROMPT, 0),
            "is_masked": padded([False] * len(row["tokens"]), None, PROMPT, 0),
            "rl_weights": [None] * (PROMPT + len(row["tokens"])),
        }
        file = folder / "token_exports" / f"step_{row['step']}" / "rank_0.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
    return folder / "token_exports"


def slime(folder: Path, log: Log) -> Path:
    """slime/utils/train_dump_utils.py: a file a rollout and rank; ``tokens`` begin with the prompt."""
    rows = responses(log)
    for step in sorted({row["step"] for row in rows}):
        mine = [row for row in rows if row["step"] == step]
        data = {
            "partition": list(range(len(mine))),
            "tokens": [torch.tensor(padded(row["tokens"], 7, PROMPT, 0)) for row in mine],
            "response_lengths": [len(row["tokens"]) for row in mine],
            "rewards": [row["advantage"] for row in mine],
            "truncated": [0] * len(mine),
            "loss_masks": [torch.ones(len(row["tokens"]), dtype=torch.int) for row in mine],
            "sample_indices": list(range(len(mine))),
            "log_probs": [torch.tensor(row["logprobs"]) for row in mine],
            "rollout_log_probs": [torch.tensor(row["behavior_logprobs"]) for row in mine],
            "advantages": [torch.full((len(row["tokens"]),), row["advantage"]) for row in mine],
            "raw_reward": [1.0] * (2 * len(mine)),
            "global_batch_sizes": [len(mine)],
            "micro_batch_indices": [[0, 1]],
        }
        torch.save({"rollout_id": step, "rank": 0, "rollout_data": data}, folder / f"train_{step}_0.pt")
    return folder


def nemo_rl(folder: Path, log: Log) -> Path:
    """nemo_rl/algorithms/grpo.py, utils/logger.py: a file a step, a line a sample, each value in a list of one."""
    rows = responses(log)
    for step in sorted({row["step"] for row in rows}):
        records = [
            {
                "content": ["2 + 2 = 4"],
                "rewards": [1.0],
                "input_lengths": [PROMPT + len(row["tokens"])],
                "token_ids": [padded(row["tokens"], 7, PROMPT)],
                "token_loss_mask": [padded([1] * len(row["tokens"]), 0, PROMPT)],
                "sample_loss_mask": [1.0],
                "advantages": [padded([row["advantage"]] * len(row["tokens"]), 0.0, PROMPT)],
                "generation_logprobs": [padded(row["behavior_logprobs"], 0.0, PROMPT)],
                "prev_logprobs": [padded(row["logprobs"], 0.0, PROMPT)],
                "idx": i,
            }
            for i, row in enumerate(row for row in rows if row["step"] == step)
        ]
        lines(folder / f"train_data_step{step}.jsonl", records)
    return folder


def by_names(pi: str, mu: str, mask: str, ending: str = "jsonl", **more: Any) -> Callable[[Path, Log], Path]:
    """Lists of a response with padding, one record a response; ``more`` values are in each."""

    def write(folder: Path, log: Log) -> Path:
        records = [
            {
                "step": row["step"],
                pi: padded(row["logprobs"], 0.0),
                mu: padded(row["behavior_logprobs"], 0.0),
                "advantages": padded([row["advantage"]] * len(row["tokens"]), 0.0),
                mask: padded([1] * len(row["tokens"]), 0),
                **more,
            }
            for row in responses(log)
        ]
        columns = {name: [record[name] for record in records] for name in records[0]}
        file = folder / f"log.{ending}"
        if ending == "parquet":
            return write_parquet(file, columns)
        if ending == "pt":
            torch.save({name: torch.tensor(values) for name, values in columns.items()}, file)
            return file
        return lines(file, records)

    return write


def array(folder: Path, log: Log) -> Path:
    (folder / "log.json").write_text(json.dumps(responses(log), indent=1))
    return folder


def columns(folder: Path, log: Log) -> Path:
    (folder / "log.json").write_text(json.dumps(as_responses(log)))
    return folder / "log.json"


def token_columns(folder: Path, log: Log) -> Path:
    (folder / "log.json").write_text(json.dumps({name: values.tolist() for name, values in log.items()}))
    return folder / "log.json"


def zstd(folder: Path, log: Log) -> Path:
    import pyarrow

    content = write_jsonl(folder / "plain", log).read_bytes()
    half = len(content) // 2
    frames = [pyarrow.compress(part, codec="zstd", asbytes=True) for part in (content[:half], content[half:])]
    (folder / "log.jsonl.zst").write_bytes(b"".join(frames))
    return folder / "log.jsonl.zst"


OURS = "drpo's token log"
LAYOUTS: dict[str, tuple[Callable[[Path, Log], Path], str]] = {
    "ours": (own, OURS),
    "prime-rl": (prime_rl, "prime-rl's token export"),
    "slime, vime, miles": (slime, "the training data of slime, vime or miles"),
    "NeMo-RL": (nemo_rl, "NeMo-RL's training data"),
    "SkyRL": (by_names("action_log_probs", "rollout_logprobs", "loss_mask"), "SkyRL's training batch"),
    "OpenRLHF": (by_names("action_log_probs", "rollout_log_probs", "action_mask"), "OpenRLHF's experience"),
    "AReaL": (by_names("prox_logp", "logprobs", "loss_mask", "pt", versions=3), "AReaL's training batch"),
    "ms-swift": (by_names("per_token_logps", "rollout_per_token_logps", "completion_mask"), "ms-swift's columns"),
    "tinker-cookbook": (by_names("training_logprobs", "logprobs", "mask"), "tinker-cookbook's data"),
    "verl": (
        by_names("old_log_probs", "rollout_log_probs", "response_mask", input="2 + 2 =", output="4", score=1.0),
        "verl's batch",
    ),
    "TRL": (by_names("per_token_logps", "sampling_per_token_logps", "completion_mask", "parquet"), "TRL's columns"),
    "JSON array": (array, OURS),
    "JSON columns": (columns, OURS),
    "JSON columns of tokens": (token_columns, OURS),
    "zstd": (zstd, OURS),
}


def figures(found: Inspection) -> dict[str, Any]:
    """What must be the same: all but ids and texts of tokens, which not every layout has, and the note on masks."""
    values = comparable(found)
    values["findings"] = [finding for finding in values["findings"] if finding["name"] != "masks"]
    for token in values["affected"]:
        del token["token"], token["text"], token["before"], token["after"]
    return values


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_the_figures_of_our_own(name: str, tmp_path: Path, log: Log, expected: Inspection) -> None:
    write, title = LAYOUTS[name]
    found = inspect([write(tmp_path, log)], objectives=OBJECTIVES)
    assert found.layouts == [title] and f", read as {title}." in html.unescape(build_inspection_page(found))
    assert close(figures(found), figures(expected))


def test_the_standard_input_gives_the_figures_of_a_file(
    tmp_path: Path, log: Log, expected: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_jsonl(tmp_path / "log.jsonl", log).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    found = inspect([Path("-")], objectives=OBJECTIVES)
    assert found.files == ["standard input"] and close(figures(found), figures(expected))


@pytest.mark.parametrize("write", [slime, prime_rl, nemo_rl])
def test_ids_are_those_of_the_response(
    write: Callable[[Path, Log], Path], tmp_path: Path, log: Log, expected: Inspection
) -> None:
    found = inspect([write(tmp_path, log)], objectives=OBJECTIVES)
    assert [token.token for token in found.affected] == [token.token for token in expected.affected]


def test_a_folder_is_read_at_any_depth_and_endings_in_one_order(tmp_path: Path, log: Log, expected: Inspection) -> None:
    rows = responses(log)
    quarter = len(rows) // 4
    parts = [rows[i * quarter : (i + 1) * quarter] for i in range(3)] + [rows[3 * quarter :]]
    lines(tmp_path / "part2" / "rank_0.jsonl", parts[0])
    deeper = tmp_path / "part2" / "rank_1"
    deeper.mkdir()
    write_parquet(deeper / "log.parquet", {name: [row[name] for row in parts[1]] for name in parts[1][0]})
    (tmp_path / "part10.json").write_text(json.dumps(parts[2]))
    torch.save([{**row, "logprobs": torch.tensor(row["logprobs"])} for row in parts[3]], tmp_path / "part11.pt")
    # What lies beside logs: configurations, states of optimizers, hidden files.
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    torch.save({"state": {0: torch.zeros(3)}}, tmp_path / "optimizer.pt")
    lines(tmp_path / ".cache" / "log.jsonl", [{"x": 1}])
    found = inspect([tmp_path], objectives=OBJECTIVES)
    names = [str(Path(file).relative_to(tmp_path)) for file in found.files]
    assert names == ["part2/rank_0.jsonl", "part2/rank_1/log.parquet", "part10.json", "part11.pt"]
    assert close(figures(found), figures(expected))


def test_of_runs_in_a_folder_the_token_logs_are_read(tmp_path: Path, log: Log) -> None:
    for name in ("b", "a"):
        run = tmp_path / "study" / name
        lines(run / "tokens" / "step-000002.jsonl", responses(log)[:3])
        lines(run / "tokens" / "step-000010.jsonl", responses(log)[3:6])
        lines(run / "metrics.jsonl", [{"step": 1}])
        (run / "config.yaml").write_text("objective: {name: drpo}\n")
    found = inspect([tmp_path], objectives=OBJECTIVES)
    names = [str(Path(file).relative_to(tmp_path / "study")) for file in found.files]
    assert names == [f"{run}/tokens/step-{step}.jsonl" for run in "ab" for step in ("000002", "000010")]
    assert found.sequences == 12


ALL = sorted({*NAMES["logprob"], *NAMES["behavior_logprob"], *(name for pair in PAIRS for name in pair)})
OF_PI = {*NAMES["logprob"], *(pi for pi, _ in PAIRS)}


@pytest.mark.parametrize("column", ["logprob", "behavior_logprob"])
def test_a_suggestion_never_crosses_the_policies(column: str) -> None:
    """For a log that lacks ``column``: with each name of the other policy, as it is and misspelled."""
    others = [name for name in ALL if (name in OF_PI) != (column == "logprob")]
    for name in others:
        for written in (name, f"{name}_", name.title(), f"my_{name}", name.replace("prob", "prb")):
            if written in NAMES["logprob"] or written in NAMES["behavior_logprob"]:
                present = [written, "advantages"]
            else:
                present = [
                    written,
                    "advantages",
                    GROUPS["logprob" if column != "logprob" else "behavior_logprob"][0][0],
                ]
            with pytest.raises(DataError) as error:
                resolve(present, "log")
            assert f"for {column}" not in str(error.value), (written, str(error.value))
