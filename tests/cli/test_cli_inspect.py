"""`drpo inspect` as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drpo.run_directory import RunDirectory
from support import command

pytestmark = pytest.mark.slow

ROWS = [
    {
        "logprob": -0.2 - 0.1 * (i % 7),
        "behavior_logprob": -0.21 - 0.1 * (i % 7) + 0.05 * (i % 3),
        "advantage": 1.0 if i % 40 < 20 else -1.0,
        "sequence_id": i // 20,
        "step": i // 200,
        "text": "\x1b[31m<b>",
    }
    for i in range(600)
]


def drpo(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command.run(["inspect", *arguments], cwd, {"COLUMNS": "100", "OMP_NUM_THREADS": "1"})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    code = (
        "import sys; sys.argv = ['drpo', 'inspect', '--help']\nfrom drpo.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--delta" in result.stdout and "docs/inspect.md" in result.stdout


def test_a_log_can_be_piped_in(log: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    with log.open("rb") as stream:
        result = subprocess.run(
            [sys.executable, "-m", "drpo", "inspect", "-", "--objectives", "drpo"],
            stdin=stream,
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert "600 tokens of 30 responses in standard input" in result.stdout
    assert "read as drpo's token log" in result.stdout and (here / "inspection.html").is_file()


def test_it_prints_what_it_found_and_writes_the_page_beside_the_log(log: Path) -> None:
    result = drpo(log, "--objectives", "ppo,dppo_tv,drpo", "--all")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("The numbers cannot be trusted") or result.stdout.startswith("The trust region")
    for heading in (
        "600 tokens of 30 responses",
        "Suggested δ",
        "By μ",
        "By objective",
        "Agreement",
        "By step",
        "Most affected tokens",
        f"page  {log.parent / 'inspection.html'}",
    ):
        assert heading in result.stdout
    assert "\x1b" not in result.stdout  # the text of a token cannot drive the terminal
    page = (log.parent / "inspection.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<b>" in page and "\x1b" not in page


def test_a_mask_that_is_named_is_applied_and_said(log: Path) -> None:
    rows = [{**row, "kl_mask": i % 2, "lp": row["logprob"]} for i, row in enumerate(ROWS)]
    for row in rows:
        del row["logprob"]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = drpo(log, "--objectives", "drpo", "--map", "mask=kl_mask,logprob=lp", "--map", "text=none")
    assert result.returncode == 0, result.stderr
    assert "300 tokens of 30 responses" in result.stdout and re.search(r"300 more.*kl_mask", result.stdout)
    assert "300 tokens by kl_mask" in (log.parent / "inspection.html").read_text()


def test_json_for_machines(log: Path, tmp_path: Path) -> None:
    result = drpo(log, "--json", "--delta", "0.02", "--objectives", "drpo, ppo")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["tokens"] == 600 and found["delta"] == 0.02
    assert [verdict["objective"] for verdict in found["verdicts"]] == ["drpo", "ppo"]
    assert {"name", "severity", "title", "evidence", "fix"} == set(found["findings"][0])
    assert not (tmp_path / "inspection.html").exists()
    assert drpo(log, "--json", "--html", tmp_path / "page.html").returncode == 0
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl does not exist"),
        (["bad.jsonl"], "bad.jsonl, line 2: not JSON"),
        (["log.jsonl", "--objectives", "grop"], "unknown objective 'grop'. Did you mean 'grpo'?"),
        (["log.jsonl", "--objectives", ""], "no objective to evaluate"),
        (["log.jsonl", "--map", "logprob"], "--map: 'logprob' is not COLUMN=NAME"),
        (["masked.jsonl"], "the column 'kl_mask' looks like a mask"),
        (["log.jsonl", "--delta", "0"], "--delta must be a finite probability > 0"),
        (["log.jsonl", "--html", "no/such/place.html"], "cannot write to no/such/place.html"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(log: Path, arguments: list[str], message: str) -> None:
    (log.parent / "bad.jsonl").write_text(json.dumps(ROWS[0]) + "\n{\n")
    (log.parent / "masked.jsonl").write_text(json.dumps({**ROWS[0], "kl_mask": 1}) + "\n")
    result = drpo(*arguments, cwd=log.parent)
    assert result.returncode == 2 and message in result.stderr
    assert "Traceback" not in result.stderr and not result.stdout.startswith("{")


def test_a_run_keeps_its_page_and_its_own_delta(copyist: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = command.run(
        [
            "train",
            f"model={copyist}",
            "task=copy",
            "task.length=2",
            "steps=2",
            "prompts_per_step=4",
            "group_size=4",
            "updates_per_step=2",
            "max_new_tokens=4",
            "eval_examples=2",
            "eval_samples=2",
            "device=cpu",
            "log_tokens=true",
            "objective.delta=0.07",
            "--out",
            out,
        ]
    )
    assert trained.returncode == 0, trained.stderr
    result = drpo(out)
    assert result.returncode == 0, result.stderr
    assert "δ = 0.07" in result.stdout and (out / "inspection.html").is_file()


def test_the_short_form_and_all_of_it(log: Path) -> None:
    short, everything = drpo(log), drpo(log, "--all")
    assert "more objectives, tables by μ" in short.stdout and "Agreement" not in short.stdout
    assert "By μ" in everything.stdout and "vaco" in everything.stdout and "vaco" not in short.stdout
    assert len(short.stdout.splitlines()) <= 45


def test_the_gate_ends_with_1_and_says_why(log: Path, tmp_path: Path) -> None:
    xml = tmp_path / "inspection.xml"
    failed = drpo(log, "--max", "shift_max=0.001", "--max", "rare_share=1", "--junit", xml)
    assert failed.returncode == 1 and re.search(r"failed  shift_max is 0\.\d+, above the limit 0\.001", failed.stderr)
    assert 'failures="1"' in xml.read_text() and (log.parent / "inspection.html").exists()
    passed = drpo(log, "--max", "shift_max=1", "--json")
    assert passed.returncode == 0 and json.loads(passed.stdout)["answer"]["state"]
    unknown = drpo(log, "--max", "beyond=1")
    assert unknown.returncode == 2 and "no figure 'beyond'" in unknown.stderr
    both = drpo(log, "--json", "--markdown")
    assert both.returncode == 2 and "give one of them" in both.stderr
    summary = drpo(log, "--markdown")
    assert summary.returncode == 0 and summary.stdout.startswith("**The ") and "| `drpo` |" in summary.stdout


@pytest.mark.parametrize(
    ("steps", "tokens"), [("1:1", "200 tokens of 10"), (":1", "400 tokens of 20"), ("2:", "200 tokens of 10")]
)
def test_only_these_steps_are_read(log: Path, steps: str, tokens: str) -> None:
    assert tokens in drpo(log, "--steps", steps, "--objectives", "drpo").stdout


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("3", "not FIRST:LAST"),
        (":", "not FIRST:LAST"),
        ("a:b", "not FIRST:LAST"),
        ("5:2", "swap them"),
        ("7:", "no token"),
    ],
)
def test_steps_that_are_none(log: Path, steps: str, words: str) -> None:
    refused = drpo(log, "--steps", steps)
    assert refused.returncode == 2 and words in refused.stderr


def test_steps_of_a_log_without_steps(log: Path) -> None:
    log.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "step"}) + "\n" for row in ROWS))
    refused = drpo(log, "--steps", "1:")
    assert refused.returncode == 2 and "no column step" in refused.stderr


def test_another_log_is_put_beside_it(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({**row, "behavior_logprob": row["logprob"]}) + "\n" for row in ROWS))
    shown = drpo(log, "--against", other, "--objectives", "drpo,ppo")
    assert shown.returncode == 0, shown.stderr
    assert re.search(rf"Against +{re.escape(str(other))}", shown.stdout) and "trust region is inert" in shown.stdout
    assert re.search(r"shift_max +0\.\d+ +0 +0\.\d+", shown.stdout) and "only in the other: " in shown.stdout
    page = (log.parent / "inspection.html").read_text()
    assert f"Against {other}" in page and "<code>shift_max</code>" in page
    found = json.loads(drpo(log, "--against", other, "--json").stdout)["comparison"]
    (figure,) = (row for row in found["figures"] if row["name"] == "shift_max")
    assert figure["there"] == 0 and figure["here"] > 0 and found["against"] == str(other)
    assert "| shift_max | 0." in drpo(log, "--against", other, "--markdown").stdout
    missing = drpo(log, "--against", tmp_path / "none.jsonl")
    assert missing.returncode == 2 and "none.jsonl does not exist" in missing.stderr


def test_the_other_log_may_be_of_another_objective_and_bound(tmp_path: Path) -> None:
    for name, delta in (("grpo", None), ("dppo_kl", None), ("drpo", 0.07)):
        run = RunDirectory(tmp_path / name)
        objective = {"name": name} | ({} if delta is None else {"delta": delta})
        run.create({"objective": objective}, {"status": "finished"})
        records = [{key: value for key, value in row.items() if key != "sequence_id"} for row in ROWS[:400]]
        for record in records:
            for key in ("logprob", "behavior_logprob"):
                record[f"{key}s"] = [record.pop(key)]
            record["texts"] = [record.pop("text")]
        run.write_tokens(1, records)
    shown = drpo(tmp_path / "drpo", "--against", tmp_path / "dppo_kl")
    assert shown.returncode == 0, shown.stderr
    said = " ".join(shown.stdout.split())
    assert "The answers are about two objectives: drpo here, dppo_kl there." in said
    assert "The bounds differ: δ = 0.07 here, 0.15 there." in said
    table = shown.stdout.split("Gradient changed")[-1]
    listed = re.findall(r"^  (\w+) +[\d–]", table, re.MULTILINE)
    (left,) = re.findall(r"--all: (\d+) more", table)
    assert listed == ["drpo", "dppo_tv", "grpo", "spo", "gspo", "dppo_kl"]
    everything = drpo(tmp_path / "drpo", "--against", tmp_path / "dppo_kl", "--all").stdout.split("Gradient changed")[
        -1
    ]
    assert len(re.findall(r"^  (\w+) +[\d–]", everything, re.MULTILINE)) == len(listed) + int(left)
    found = json.loads(drpo(tmp_path / "drpo", "--against", tmp_path / "dppo_kl", "--json").stdout)["comparison"]
    assert (found["delta_here"], found["objective_there"], found["only_here"]) == (0.07, "dppo_kl", [])
    same = drpo(tmp_path / "grpo", "--against", tmp_path / "grpo").stdout
    assert "two objectives" not in same and "bounds differ" not in same


def test_objectives_that_one_log_alone_could_evaluate_are_named(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({**row, "proximal_logprob": row["logprob"]}) + "\n" for row in ROWS))
    shown = drpo(log, "--against", other)
    assert "Evaluated on the other log alone: " in shown.stdout and "this log alone" not in shown.stdout
    assert "Evaluated on this log alone: " in drpo(other, "--against", log, "--markdown").stdout


@pytest.mark.parametrize(
    ("last", "tokens"), [(1, "200 tokens of 10"), (2, "400 tokens of 20"), (9, "600 tokens of 30")]
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_last_steps_in_any_order(log: Path, last: int, tokens: str, order: int) -> None:
    log.write_text("".join(json.dumps(row) + "\n" for row in ROWS[::order]))
    shown = drpo(log, "--last", last, "--objectives", "drpo", "--all")
    assert tokens in shown.stdout, shown.stderr
    steps = re.findall(r"^  (\d) +200 ", shown.stdout, re.MULTILINE)
    assert steps == ["0", "1", "2"][-last:]


def test_last_steps_that_are_none(log: Path) -> None:
    both, none = drpo(log, "--last", 1, "--steps", "1:"), drpo(log, "--last", 0)
    assert both.returncode == none.returncode == 2
    assert "give one of them" in both.stderr and "--last must be a number of steps above 0, got 0" in none.stderr
    piped = drpo("-", "--last", 1)
    assert piped.returncode == 2 and "--last asks for. Save it as a file" in piped.stderr
    log.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "step"}) + "\n" for row in ROWS))
    without = drpo(log, "--last", 1)
    assert without.returncode == 2 and "no column step" in without.stderr and "leave --last out" in without.stderr


def test_files_that_name_their_step_are_read_once(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "tokens"
    folder.mkdir(parents=True)
    for step in range(1, 13):
        lines = [json.dumps({**row, "step": step}) + "\n" for row in ROWS[: 20 * step]]
        (folder / f"step-{step:06d}.jsonl").write_text("".join(lines) if step > 9 else "this is not read\n")
    shown = drpo(tmp_path / "run", "--last", 3, "--objectives", "drpo")
    assert "660 tokens of 33 responses in 3 files" in shown.stdout, shown.stderr
    broken = drpo(tmp_path / "run", "--last", 4)
    assert broken.returncode == 2 and "step-000009.jsonl, line 1: not JSON" in broken.stderr


def test_last_steps_of_a_log_with_rewards(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    rows = [
        {"logprobs": [-0.5, -1.0], "behavior_logprobs": [-0.6, -0.9], "step": step, "reward": i % 2, "group_id": i // 4}
        for step in (3, 1, 2)
        for i in range(8)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = drpo(file, "--last", 2, "--objectives", "drpo")
    assert "32 tokens of 16 responses" in shown.stdout, shown.stderr
