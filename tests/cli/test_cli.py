"""The command line as a user meets it: real processes, exit codes, messages without tracebacks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drpo.cli import main
from drpo.cli.train import _finish_step_on_signal
from drpo.objectives import MODIFIERS, OBJECTIVES
from drpo.train.config import TrainConfig
from drpo.train.config_text import flat
from support import command

pytestmark = pytest.mark.slow

FAST = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=2",
    "eval_examples=2",
    "eval_samples=2",
    "device=cpu",
]


def drpo(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return command.run(arguments, cwd, {"COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment})


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The message of a refusal, after checking that it is one."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    code = (
        "import sys; sys.argv = ['drpo', '--help']\nfrom drpo.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'pyarrow', 'yaml', 'pydantic'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout and "objectives" in result.stdout


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--out", LONG, *FAST],
        ["train", "--resume", LONG],
        ["eval", LONG],
        ["export", LONG, "--out", "model"],
        ["report", LONG],
        ["lab", "plan", LONG],
        ["lab", "run", LONG, "--out", "study"],
        ["lab", "report", LONG],
        ["inspect", LONG],
    ],
)
def test_a_path_that_no_file_system_takes_is_no_defect(arguments: list[str], tmp_path: Path) -> None:
    message = refused(drpo(*arguments, cwd=tmp_path))
    assert "defect" not in message and "xxxx" in message and len(message.splitlines()) == 1, message


def test_the_help_of_train_shows_the_defaults_of_the_settings_that_people_change() -> None:
    shown = re.findall(
        r"^ +([a-z_.]+)=(\S+)", drpo("train", "--help").stdout.partition("\n\nArguments")[0], re.MULTILINE
    )
    defaults = flat(TrainConfig().resolved())
    settings = dict(shown[:12])
    assert len(settings) == 12
    for key, value in settings.items():
        assert str(defaults[f"{key}.name" if key in ("task", "objective") else key]) == value, key


@pytest.mark.parametrize("command", ["train", "eval", "filter", "report", "inspect", "objectives", "bench"])
def test_every_command_has_help(command: str) -> None:
    result = drpo(command, "--help")
    assert result.returncode == 0 and "Usage: drpo" in result.stdout


def test_train_evaluate_report_resume(copyist: Path, tmp_path: Path) -> None:
    """The whole story on a user's own model directory and JSONL file."""
    data = tmp_path / "problems.jsonl"
    pairs = [(a + b) for a in "abcd" for b in "abcd"]
    data.write_text("".join(json.dumps({"prompt": pair, "answer": pair}) + "\n" for pair in pairs))
    out = tmp_path / "run"
    settings = [f"model={copyist}", *FAST, "task=jsonl", f"task.path={data}"]
    settings.remove("task.length=2")
    result = drpo("train", *settings, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "step 2/2" in result.stdout and "|π−μ|" in result.stdout and "w<0" in result.stdout
    assert re.search(r"Held-out accuracy [a-z ]+: 0\.\d+ → [01]\.\d+ \(", result.stdout)
    assert str(out / "report.html") in result.stdout
    assert (out / "report.html").read_text().lower().startswith("<!doctype html>")

    result = drpo("eval", out, "--json")
    assert result.returncode == 0, result.stderr
    evaluation = json.loads(result.stdout)
    last = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][-1]
    assert evaluation["accuracy"] == last["accuracy"] and evaluation["samples"] == 4

    assert drpo("report", out).returncode == 0
    result = drpo("train", "--resume", out, "steps=3")
    assert result.returncode == 0, result.stderr
    assert "continuing after step 2" in result.stdout and "step 3/3" in result.stdout
    message = refused(drpo("train", *settings, "--out", out))
    assert "already holds a run" in message and f"--resume {out}" in message


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(copyist: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [f"model={copyist}", *FAST, "steps=100000", "eval_every=0", "checkpoint_every=100000"]
    process = command.Process(["-m", "drpo", "train", *settings, "--out", out], environment={"COLUMNS": "200"})
    while "\nstep 3/" not in process.written()[0]:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stopping after this step" in rest and f"drpo train --resume {out}" in rest
    assert "Traceback" not in errors
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    (checkpoint,) = (out / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    result = drpo("train", "--resume", out, f"steps={step + 1}")
    assert result.returncode == 0, result.stderr
    assert f"continuing after step {step}" in result.stdout


def test_ctrl_c_speaks_from_another_thread() -> None:
    """The signal may come while the main thread is within a write, and a stream cannot be entered twice."""
    said = []
    with _finish_step_on_signal(lambda text: said.append((text, threading.current_thread()))) as stop_requested:
        assert not stop_requested()
        signal.raise_signal(signal.SIGINT)
        assert stop_requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    ((text, thread),) = said
    assert "stopping after this step" in text and thread is not threading.main_thread()


def test_dry_run_shows_values_and_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 7\n")
    result = drpo("train", "c.yaml", "objective.delta=0.3", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["seed"] == ["seed", "7", "c.yaml"]
    assert rows["objective.delta"] == ["objective.delta", "0.3", "command", "line"]
    assert rows["group_size"] == ["group_size", "8", "default"]
    assert not (tmp_path / "runs").exists()


def test_objectives_are_listed_and_explained() -> None:
    listing = drpo("objectives")
    assert listing.returncode == 0, listing.stderr
    lines = listing.stdout.splitlines()
    for name in (*OBJECTIVES, *MODIFIERS):
        assert sum(line.split()[:1] == [name] for line in lines) == (name in OBJECTIVES) + (name in MODIFIERS), (
            "a line each"
        )
    assert max(map(len, lines)) <= 200 and len(lines) < len(OBJECTIVES) + len(MODIFIERS) + 12
    narrow = drpo("objectives", COLUMNS="80", FORCE_COLOR="1", TERM="xterm")
    assert narrow.returncode == 0 and "Bound the importance ratio of a token" in narrow.stdout
    two = drpo("objectives", "drpo", "tis")
    both = drpo("objectives", "icepop").stdout
    assert both.index("icepop(low=0.2, high=5.0)") < both.index("icepop(low=0.5, high=5.0)")
    assert "Status: verified against" in two.stdout and "Status: secondary, from" in two.stdout
    assert "delta=0.15" in two.stdout and "arXiv:2606.09821" in two.stdout and "min(π_old/μ, ratio_cap)" in two.stdout
    assert "Did you mean 'dppo_tv'?" in refused(drpo("objectives", "dppo_tvv"))
    assert "drpo.delta=0.2 is for --plot only" in refused(drpo("objectives", "drpo", "drpo.delta=0.2"))


def test_objectives_are_drawn(tmp_path: Path) -> None:
    out = tmp_path / "figures"
    done = drpo("objectives", "--plot", "drpo", "dppo_topk_tv", "minirl", "drpo.delta=0.2", "--out", out)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in out.iterdir()) == ["objectives-heatmap.png", "objectives-weights.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drpo", "spo.epsilon=1"], "'spo' is not among the objectives to draw (drpo)"),
        (["drpo", "drpo.delta=-1"], "drpo: delta must be a finite probability > 0"),
        (["m2po"], "m2po decides over all tokens of an update together"),
        (["tis"], "tis is a modifier: draw an objective with it"),
        (["drpo", "nosuch"], "unknown objective 'nosuch'"),
        ([*list(OBJECTIVES)[:9]], "at most 8 objectives, got 9"),
    ],
)
def test_pictures_that_cannot_be_drawn(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in refused(drpo("objectives", "--plot", *arguments, "--out", tmp_path / "figures"))
    assert not (tmp_path / "figures").exists()


def test_a_vacuous_delta_is_warned_of() -> None:
    result = drpo("train", "objective.delta=12.5", "--dry-run")
    assert result.returncode == 0
    assert result.stderr.count("delta ≥ 1") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "objective.name=drop"], "unknown objective 'drop'. Did you mean 'drpo'?"),
        (["train", "stepps=3"], "unknown key 'stepps'. Did you mean 'steps'?"),
        (["train", "objective.delta=0"], "delta must be a finite probability > 0, got 0"),
        (["train", "objective.delta=.nan"], "delta must be a finite probability > 0, got nan"),
        (["train", "task=reasoning_gym:chain_sun"], "chain_sum"),
        (["train", "task=jsonl", "task.path=absent.jsonl"], "absent.jsonl"),
        (["train", "task=copi"], "Did you mean 'copy'?"),
        (["train", "absent.yaml"], "cannot read the configuration absent.yaml"),
        (["train", "a.yaml", "b.yaml"], "only one configuration file"),
        (["train", "model=absent", "task=copy"], "absent is not a directory"),
        (["train", "device=abacus", "task=copy"], "not a torch device"),
        (["train", "top_p=1.5"], "top_p must be in (0, 1], got 1.5"),
        (["train", "--resume", "absent"], "absent holds no run"),
        (["train", "--resume", "absent", "seed=3"], "absent holds no run"),
        (["train", "--out", "/proc/nowhere/run", "task=copy"], "cannot write to /proc/nowhere/run"),
        (["eval", "absent"], "absent is not a directory"),
        (["report", "absent"], "absent holds no run"),
        (["trian"], "No such command 'trian'"),
        (["train", "--color"], "No such option: --color"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In this process, through the same entry point as `drpo`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["drpo", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in errors and "Traceback" not in errors
    assert not (tmp_path / "runs").exists()  # a refused run leaves nothing behind


def test_malformed_jsonl_names_file_and_line(copyist: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": \n')
    message = refused(drpo("train", f"model={copyist}", "task=jsonl", "task.path=bad.jsonl", cwd=tmp_path))
    assert "bad.jsonl" in message and "line 2" in message


def test_debug_shows_the_traceback() -> None:
    result = drpo("train", "stepps=3", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr and "unknown key 'stepps'" in result.stderr


def test_a_disk_that_takes_no_more_ends_in_one_message(copyist: Path, tmp_path: Path) -> None:
    """The operating system refuses to write more than 20 kB into any file: the next checkpoint cannot be written."""
    out = tmp_path / "run"
    assert drpo("train", f"model={copyist}", *FAST, "--out", out).returncode == 0
    before = (out / "checkpoints" / "step-000002" / "model.safetensors").read_bytes()
    assert len(before) > 20_000
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.argv = ['drpo', 'train', '--resume', {str(out)!r}, 'steps=3']\n"
        "from drpo.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = refused(result)
    assert "cannot write the checkpoint" in message and "too large" in message and f"--resume {out}" in message
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000002"]
    assert (out / "checkpoints" / "step-000002" / "model.safetensors").read_bytes() == before
    result = drpo("train", "--resume", out, "steps=3")  # once there is room again
    assert result.returncode == 0 and "step 3/3" in result.stdout, result.stderr


def test_objectives_are_compared(tmp_path: Path) -> None:
    table = drpo("objectives", "--compare", "drpo", "ipo", "drpo.delta=0.3")
    assert table.returncode == 0, table.stderr
    assert "drpo (delta = 0.3)" in table.stdout and "w as μ → 0 (r = 2), Â > 0" in table.stdout
    found = json.loads(drpo("objectives", "--compare", "drpo", "spo", "--json").stdout)
    assert found["spo"]["limits"]["r → ∞ (π = 0.5), Â > 0"] == "-inf" and found["drpo"]["decides"] == "token"
    row = {"logprobs": [-0.5, -1.0], "behavior_logprobs": [-0.6, -0.9], "advantages": [1.0, 1.0]}
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = json.loads(drpo("objectives", "--compare", "drpo", "surrogate", "--log", log, "--json").stdout)
    assert found["surrogate"]["changed"] == 0 and found["drpo"]["changed"] > 0.1
    assert "--log is for --compare only" in refused(drpo("objectives", "drpo", "--log", log))
    assert "--json is for --compare and --alias only" in refused(drpo("objectives", "drpo", "--json"))


def test_the_names_that_hosts_use_are_listed() -> None:
    lines = drpo("objectives", "--alias").stdout.splitlines()
    assert ["verl", "0.9.1", "gpg", "dro(beta=0)"] in [line.split() for line in lines]
    assert {"host", "setting", "name", "parameters"} == set(
        json.loads(drpo("objectives", "--alias", "--json").stdout)[0]
    )
