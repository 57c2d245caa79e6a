"""The trainer's token records, and what `drpo inspect` makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_loop import configuration, last_weights, run, without_timing

from drpo.errors import ConfigError
from drpo.files import read_jsonl
from drpo.inspection.inspect import inspect
from drpo.inspection.result import Finding
from drpo.run_directory import RunDirectory
from drpo.train import token_log
from drpo.train.loop import train

pytestmark = pytest.mark.slow


def contents(directory: RunDirectory) -> dict[str, str]:
    return {file.name: file.read_text() for file in directory.token_files()}


def test_every_token_is_logged_once_at_the_weights_of_its_update(copyist: Path, tmp_path: Path) -> None:
    _, directory = run(configuration(copyist, "log_tokens=true"), tmp_path / "run")
    updates = directory.read_metrics("update")
    for step, file in enumerate(directory.token_files(), start=1):
        records = list(read_jsonl(file))
        assert sorted(record["sequence_id"] for record in records) == list(range(32))
        assert all(record["step"] == step for record in records)
        for update in (0, 1):
            metrics = next(u for u in updates if (u["step"], u["update"]) == (step, update))
            mine = [record for record in records if record["update"] == update]
            pairs = [p for r in mine for p in zip(r["logprobs"], r["behavior_logprobs"], strict=True)]
            assert len(pairs) == metrics["tokens"]
            mismatch = sum(abs(pi - mu) for pi, mu in pairs) / len(pairs)
            assert mismatch == pytest.approx(metrics["mismatch"], rel=1e-3, abs=1e-6)
            weights = [w for r in mine for w in r["gradient_weights"] if w is not None]
            assert sum(w < 0 for w in weights) / len(weights) == pytest.approx(metrics["corrective_share"], abs=1e-6)
            assert all((w is None) == (r["advantage"] == 0) for r in mine for w in r["gradient_weights"])
            entropy = [value for r in mine for value in r["entropy"]]
            assert sum(entropy) / len(entropy) == pytest.approx(metrics["entropy"], rel=1e-5)
        for record in records:
            assert len(record["tokens"]) == len(record["texts"]) == len(record["logprobs"])
    found = inspect([directory.path])
    assert found.tokens == sum(update["tokens"] for update in updates)
    assert found.figures["shift_max"] == pytest.approx(max(update["shift_max"] for update in updates), abs=1e-6)
    assert found.delta == 0.15 and not {f.name for f in found.findings} - {"vacuous"}
    assert {token.text for token in found.affected} <= {*"abcd\n :0123456789", "<|endoftext|>", "<unk>"}


def test_logging_changes_nothing_and_a_share_is_a_part(copyist: Path, tmp_path: Path) -> None:
    _, plain = run(configuration(copyist, "log_tokens=false"), tmp_path / "plain")
    _, all_of_it = run(configuration(copyist, "log_tokens=true"), tmp_path / "all")
    _, part = run(configuration(copyist, "log_tokens=true", "log_tokens_share=0.3"), tmp_path / "part")
    assert last_weights(plain) == last_weights(all_of_it) == last_weights(part)
    assert without_timing(plain.read_metrics()) == without_timing(part.read_metrics())
    assert not plain.token_files()
    whole, kept = contents(all_of_it), contents(part)
    assert kept.keys() == whole.keys()
    for name, text in kept.items():
        assert set(text.splitlines()) < set(whole[name].splitlines())
    assert 0.15 < sum(map(len, kept.values())) / sum(map(len, whole.values())) < 0.45


def test_a_sample_is_the_default_bounded_and_changes_nothing(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_log, "SAMPLED_TOKENS", 40)
    _, plain = run(configuration(copyist, "log_tokens=false"), tmp_path / "plain")
    _, all_of_it = run(configuration(copyist, "log_tokens=true"), tmp_path / "all")
    _, sampled = run(configuration(copyist), tmp_path / "sampled")
    assert last_weights(plain) == last_weights(sampled)
    assert without_timing(plain.read_metrics()) == without_timing(sampled.read_metrics())
    whole, kept = contents(all_of_it), contents(sampled)
    assert kept.keys() == whole.keys()
    updates = set()
    for name, text in kept.items():
        assert set(text.splitlines()) < set(whole[name].splitlines())
        lengths = [len(json.loads(line)["tokens"]) for line in text.splitlines()]
        assert 40 <= sum(lengths) < 40 + max(lengths)
        updates |= {json.loads(line)["update"] for line in text.splitlines()}
    assert updates == {0, 1}
    assert inspect([sampled.path]).tokens == sum(
        len(json.loads(line)["tokens"]) for text in kept.values() for line in text.splitlines()
    )


@pytest.mark.parametrize("how", [["log_tokens=true", "log_tokens_share=0.5"], []], ids=["share", "sample"])
def test_a_resumed_run_logs_the_same_tokens(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    monkeypatch.setattr(token_log, "SAMPLED_TOKENS", 40)
    config = configuration(copyist, *how)
    _, straight = run(config, tmp_path / "straight")
    directory = RunDirectory(tmp_path / "resumed")
    stop = iter([False, True])
    train(config, directory, stop_requested=lambda: next(stop))
    directory.write_tokens(3, [{"step": 3, "stale": True}])  # written by a step that a crash undid
    torch.manual_seed(9)
    train(config, directory, resume=True)
    assert contents(directory) == contents(straight)


def test_a_run_without_tokens_says_how_to_get_them(copyist: Path, tmp_path: Path) -> None:
    _, directory = run(configuration(copyist, "steps=1", "log_tokens=false"), tmp_path / "run")
    with pytest.raises(ValueError, match=r"logged no tokens\. Start the run again with log_tokens=sample, or true"):
        inspect([directory.path])


def test_a_share_without_the_log_is_refused(copyist: Path) -> None:
    with pytest.raises(ConfigError, match=r"log_tokens_share=0\.5 would be ignored: set log_tokens=true"):
        configuration(copyist, "log_tokens_share=0.5")


@pytest.mark.parametrize("value", ["some", "1", "none", "[true]"])
def test_another_way_to_log_is_refused(copyist: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="log_tokens: must be sample, true or false"):
        configuration(copyist, f"log_tokens={value}")


def test_faults_planted_in_a_trainers_own_log_are_found(copyist: Path, tmp_path: Path) -> None:
    """A stale but sound log of real updates, then each fault in its μ."""
    config = configuration(
        copyist,
        "log_tokens=true",
        "steps=8",
        "prompts_per_step=16",
        "group_size=8",
        "eval_every=0",
        "updates_per_step=4",
        "learning_rate=3e-3",
    )
    _, directory = run(config, tmp_path / "run")
    records = [record for file in directory.token_files() for record in read_jsonl(file)]

    def found(change: str) -> dict[str, Finding]:
        file = tmp_path / f"{change}.jsonl"
        file.write_text("".join(json.dumps(planted(record, change)) + "\n" for record in records))
        findings = inspect([file], delta=0.1).findings
        return {finding.name: finding for finding in findings if finding.severity != "note"}

    sound = found("nothing")  # at this learning rate the policy does move far
    assert not [finding for finding in sound.values() if finding.severity == "fault"]
    for change, names in (
        ("inert", {"inert"}),
        ("bfloat16", {"rounded"}),
        ("shifted", {"shifted", "outliers"}),
        ("positive", {"unusable_logprobs"}),
    ):
        assert found(change).keys() - sound.keys() == names, change


def planted(record: dict[str, list[float]], change: str) -> dict[str, list[float]]:
    mu = record["behavior_logprobs"]
    changed = {
        "nothing": mu,
        "inert": record["logprobs"],
        "bfloat16": torch.tensor(mu).bfloat16().tolist(),
        "shifted": [*mu[1:], mu[0]],
        "positive": [-value if value < -1 else value for value in mu],
    }
    return {**record, "behavior_logprobs": changed[change]}
