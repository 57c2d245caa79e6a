"""`drpo sample`, and the responses of `drpo eval`."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from drpo.cli import main
from drpo.model.policy import load_policy
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.try_prompts import token_texts

pytestmark = pytest.mark.slow

SETTINGS = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=1",
    "eval_every=0",
    "eval_examples=6",
    "eval_samples=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def run(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    config, _ = load_config(None, [f"model={copyist}", *SETTINGS])
    found = RunDirectory(tmp_path_factory.mktemp("sampled") / "run")
    train(config, found)
    return found


def drpo(arguments: list[object], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["drpo", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


Captured = pytest.CaptureFixture[str]


def test_probabilities_are_the_policys_own_and_the_prompt_is_as_in_training(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    options = ["--n", 5, "--temperature", 0.5, "--seed", 3, "--answer", "ab", "--json"]
    assert drpo(["sample", run.path, "ab", *options], monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["temperature"], found["seed"]) == (1, 0.5, 3)
    (prompt,) = found["prompts"]
    policy = load_policy(str(run.checkpoints / "step-000001"), torch.device("cpu"))
    start = policy.encode("ab")
    assert policy.tokenizer.decode(start) == "ab\n"
    assert len(prompt["responses"]) == 5
    for response in prompt["responses"]:
        ids = [token["id"] for token in response["tokens"]]
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([start + ids])).logits[0, len(start) - 1 : -1] / 0.5
        expected = logits.softmax(-1).gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1).tolist()
        assert [token["probability"] for token in response["tokens"]] == pytest.approx(expected, rel=1e-4)
        assert "".join(token["text"] for token in response["tokens"] if not token["ends"]) == response["text"]
        assert (response["reward"] == 1) == (response["text"] == "ab") and response["failure"] is None
    assert drpo(["sample", run.path, "ab", *options], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == found, "the same seed gives the same answers"


def test_the_terminal_names_unlikely_tokens(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert drpo(["sample", run.path, "dc", "--n", 8, "--step", "best", "--answer", "dc"], monkeypatch) == 0
    printed = capsys.readouterr()
    assert "step-000001, temperature 1, seed 0" in printed.out and printed.out.count("reward ") == 8
    assert "lowest probabilities: '" in printed.out and "prompts of this run look like '" in printed.err


def test_prompts_from_standard_input(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    text = 'ab\n{"prompt": "cd", "answer": "cd"}\n\n{"a}\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert drpo(["sample", run.path, "-", "--n", 1, "--json"], monkeypatch) == 0
    prompts = json.loads(capsys.readouterr().out)["prompts"]
    assert [(one["prompt"], one["answer"]) for one in prompts] == [("ab", None), ("cd", "cd"), ('{"a}', None)]
    assert [one["responses"][0]["reward"] is None for one in prompts] == [True, False, True]
    for text, says in (("\n \n", "holds no prompt"), ('{"prompt": 3}\n', "line 1")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert drpo(["sample", run.path, "--n", 1], monkeypatch) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ab", "--temperature", "0"], "temperature"),
        (["ab", "--n", "0"], "--n"),
        (["ab", "--set", "lr=3"], "learning_rate"),
        (["ab", "--step", "7"], "no checkpoint of step 7"),
    ],
)
def test_what_is_refused(
    run: RunDirectory, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert drpo(["sample", run.path, *arguments], monkeypatch) == 2
    assert says in capsys.readouterr().err


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    pieces = {0: b"a", 1: "π".encode()[:1], 2: "π".encode()[1:], 3: b"\xff"}

    def decode(ids: list[int]) -> str:
        return b"".join(pieces[token] for token in ids).decode("utf-8", "replace")

    assert token_texts([0, 1, 2, 0], decode) == ["a", "", "π", "a"]
    assert token_texts([0, 3], decode) == ["a", "\ufffd"]
    assert token_texts([], decode) == []


def test_eval_shows_wrong_responses_and_writes_all(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out = tmp_path / "responses.jsonl"
    assert drpo(["eval", run.path, "--json", "--out", out], monkeypatch) == 0
    record = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["problem"], line["sample"]) for line in lines] == [(p, s) for p in range(4) for s in range(2)]
    assert sum(line["reward"] == 1 for line in lines) == record["correct"] and {line["schema"] for line in lines} == {1}
    wrong = [line for line in lines if line["reward"] < 1]
    assert 0 < len(wrong) < 8, "the test needs both"
    assert drpo(["eval", run.path, "--wrong"], monkeypatch) == 0
    shown = capsys.readouterr().out
    assert len(re.findall("^reward ", shown, re.MULTILINE)) == len(wrong) and not re.search(
        "^reward 1 ", shown, re.MULTILINE
    )
    assert shown.count("problem ") == len({line["problem"] for line in wrong})
    assert drpo(["eval", run.path, "--show", 2], monkeypatch) == 0
    assert capsys.readouterr().out.count("\nproblem ") == 2
    assert drpo(["eval", run.path, "--out", out], monkeypatch) == 2
    assert drpo(["eval", run.path, "--json", "--wrong"], monkeypatch) == 2
    assert "--out" in capsys.readouterr().err
