"""The worked examples of CONTRIBUTING.md, made in a copy of the repository as the page says, work there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: Headings of the worked examples.
EXAMPLES = ("An objective", "A task", "A sampler", "A log layout", "A page", "A study", "A host", "A file format")


@dataclass(frozen=True)
class Block:
    """A block of code of an example, and the file that the text before it names last."""

    heading: str
    file: str
    language: str
    text: str


def blocks() -> list[Block]:
    found = []
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        file = ""
        for before, language, code in re.findall(r"(.*?)```(\w+)\n(.*?)```", text, re.DOTALL):
            # Where no file is named, the block is a program of its own.
            named = re.findall(r"`((?:src|tests|docs|tools)/[\w/.]+\.\w+)`", before)
            file = named[-1] if named else ""
            found.append(Block(heading, file, language, code))
    return found


def add_lines(file: Path, lines: list[str]) -> None:
    """Put each run of added lines below the line above it, which occurs once."""
    text = file.read_text(encoding="utf-8")
    anchor = ""
    for line in lines:
        if line.startswith("+"):
            text = text.replace(anchor, f"{anchor}{line[1:]}\n", 1)
            anchor += f"{line[1:]}\n"
        else:
            anchor = (anchor if anchor and f"{anchor}{line[1:]}\n" in text else "") + f"{line[1:]}\n"
    file.write_text(text, encoding="utf-8")
    for line in lines:
        assert text.count(f"{line[1:]}\n"), (file, line)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the files and lines of every example."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("src/drpo", "tests/core", "tests/support"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", clone)
    shutil.copy(ROOT / "tests" / "conftest.py", clone / "tests")
    for block in blocks():
        if not block.file:
            continue
        target = clone / block.file
        if block.language == "diff":
            add_lines(target, block.text.splitlines())
        else:
            assert not target.exists(), target
            target.parent.mkdir(exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
    return clone


def run(clone: Path, *arguments: str) -> str:
    paths = os.pathsep.join([str(clone / "src"), str(clone / "tests")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_every_kind_of_extension_has_an_example():
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert set(EXAMPLES) <= set(headings)
    assert {block.heading for block in blocks()} == set(EXAMPLES)


def test_the_objective_keeps_the_contract(clone: Path):
    done = run(
        clone, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_objective_contract.py", "-k", "taper"
    )
    assert re.search(r"\.{50}", done), done
    assert "exp(−|π − μ| / scale)" in run(clone, "-m", "drpo", "objectives", "taper")


def test_the_task_and_the_sampler_train(clone: Path):
    pytest.importorskip("transformers")
    sizes = ["steps=1", "prompts_per_step=2", "group_size=2", "max_new_tokens=6", "eval_examples=2", "eval_samples=1"]
    run(clone, "-m", "drpo", "train", "task=reverse", "sampler=generate", "objective=taper", *sizes, "--out", "trained")
    config = (clone / "trained" / "config.yaml").read_text(encoding="utf-8")
    assert "generate" in config and "reverse" in config and "taper" in config
    assert '"update"' in (clone / "trained" / "metrics.jsonl").read_text(encoding="utf-8")


def test_the_log_is_read(clone: Path):
    (program,) = (block.text for block in blocks() if block.heading == "A log layout" and block.language == "python")
    run(clone, "-c", program)
    assert '"tokens": 2' in run(clone, "-m", "drpo", "inspect", "log.jsonl", "--json")


PAGE_PROGRAM = """
from pathlib import Path
from drpo.report.run.page import build_report
from support.synthetic_run import make_run
print(build_report(make_run(Path("made"))))
"""
STUDY_PROGRAM = """
from drpo.lab.plan import make_plan
from drpo.lab.study import load_study
name, study = load_study("recipe:studies/taper")
print(name, len(make_plan(study).shared), study.hypotheses[0].claim)
"""
HOST_PROGRAM = """
import torch, drpo
from drpo.integrations.myhost import Loss
pi, mu, advantages = torch.full((2, 3), -1.0, requires_grad=True), torch.full((2, 3), -1.2), torch.tensor([1.0, -1.0])
mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
loss, metrics = Loss("drpo", delta=0.2)(pi, mu, advantages, mask)
batch = drpo.TokenBatch.from_padded(pi, mu, advantages, mask)
ours = drpo.make_objective("drpo", delta=0.2)(batch).loss
torch.testing.assert_close(loss, drpo.aggregate(ours, batch, mode="token_mean"))
print(sorted(metrics))
"""
CHECKPOINT_PROGRAM = """
from drpo.train.checkpoint_schema import TrainerState
print(TrainerState.model_fields["seconds"].default)
"""


def test_the_section_is_in_the_report(clone: Path):
    page = run(clone, "-c", PAGE_PROGRAM)
    assert "<a href='#best-step'>Best step</a>" in page and "</h2><p>Step " in page


def test_the_study_is_a_study(clone: Path):
    pytest.importorskip("scipy")
    assert run(clone, "-c", STUDY_PROGRAM) == "taper 12 The fading weight ends higher than DRPO.\n"


def test_the_loss_of_the_host_is_the_token_mean(clone: Path):
    assert "drpo/corrective_share" in run(clone, "-c", HOST_PROGRAM)


def test_the_field_of_the_checkpoint_has_a_default_for_older_files(clone: Path):
    assert run(clone, "-c", CHECKPOINT_PROGRAM) == "None\n"
