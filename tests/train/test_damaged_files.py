"""Random byte flips and cuts in every file of a run end in one line or in a right continuation."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from drpo.errors import DrpoError
from drpo.report import build_report
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.resume import find_resumption, resumed_config, rewind

pytestmark = pytest.mark.slow

SETTINGS = [
    "task=copy",
    "task.length=2",
    "steps=2",
    "prompts_per_step=2",
    "group_size=2",
    "updates_per_step=1",
    "max_new_tokens=3",
    "eval_every=0",
    "eval_examples=2",
    "checkpoint_every=1",
    "device=cpu",
    "log_tokens=true",
]
MUTATIONS = 4


@pytest.fixture(scope="module")
def run(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("whole") / "run")
    train(load_config(None, [f"model={copyist}", *SETTINGS])[0], run)
    return run


def go_on(run: RunDirectory) -> None:
    """All that a resume reads before it loads the verified checkpoint."""
    found = find_resumption(resumed_config(run, ["steps=3"]), run, lambda text: None)
    assert found.step in (1, 2)
    rewind(run, found.step, lambda text: None)


def mutated(content: bytes, draw: random.Random, cut: bool) -> bytes:
    if cut:
        return content[: draw.randrange(len(content) + 1)]
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 3])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def test_every_mutation_ends_in_one_line_or_goes_on(run: RunDirectory, tmp_path: Path) -> None:
    draw = random.Random(0)
    names = [
        file.relative_to(run.path) for file in sorted(run.path.rglob("*")) if file.is_file() and file != run.lock_file
    ]
    assert len(names) > 20
    for name in names:
        for number in range(MUTATIONS):
            work = RunDirectory(shutil.copytree(run.path, tmp_path / "work"))
            content = (work.path / name).read_bytes()
            (work.path / name).write_bytes(mutated(content, draw, cut=number % 2 == 1) if content else b"\0")
            for look in (build_report, go_on):
                try:
                    look(work)
                except DrpoError as error:
                    assert "\n" not in str(error) and len(str(error)) < 1000, (name, number, str(error))
            shutil.rmtree(work.path)
