"""Every Python block of the documentation runs as it stands, and what trains has rewards that vary and a gradient."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Page:
    """How to run the blocks of a page, one after another in one interpreter.

    ``before`` and ``after`` are code around them; ``shorter`` is text → text that makes them quick.
    """

    before: str = ""
    after: str = ""
    shorter: dict[str, str] = field(default_factory=dict)


#: Page → how its blocks run here.
PAGES = {
    "README.md": Page(after="assert bool(logprobs.grad.any()) and bool(logprobs.grad.isfinite().all())"),
    "docs/own-loop.md": Page(shorter={"STEPS, PROMPTS, GROUP = 16, 16, 8": "STEPS, PROMPTS, GROUP = 2, 4, 8"}),
    "docs/objectives.md": Page(before="import drpo"),
    "docs/inspect.md": Page(),
    "docs/reference.md": Page(),
}
#: Page → the tests that run its blocks where the host is installed, or against stand-ins for it.
ELSEWHERE = {
    "docs/integrations/trl.md": "tests/hosts/trl/test_trl_page.py",
    "docs/integrations/nemo-rl.md": "tests/integrations/test_documented_adapters.py",
    "docs/integrations/ms-swift.md": "tests/hosts/ms-swift/test_ms_swift.py",
    "docs/integrations/slime.md": "tests/integrations/test_documented_adapters.py",
    "docs/integrations/open-instruct.md": "tests/integrations/test_documented_adapters.py",
}
#: Pages whose blocks are pieces of a program that needs a service or GPUs: they are compiled alone.
PIECES = ("docs/integrations/skyrl.md", "docs/integrations/tinker.md")


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def output_of(page: str, folder: Path) -> str:
    how = PAGES[page]
    done = run("\n".join([how.before, *blocks(page), how.after]), how.shorter, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(code: str, changes: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    for text, replacement in changes.items():
        assert code.count(text) == 1, text
        code = code.replace(text, replacement)
    return command.python(["-c", code], folder, timeout=300)


def test_every_page_with_python_is_run_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = {str(page.relative_to(ROOT)) for page in pages if blocks(str(page.relative_to(ROOT)))}
    assert found == {*PAGES, *ELSEWHERE, *PIECES}
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), (page, test)
    for page in PIECES:
        for block in blocks(page):
            compile(block, page, "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/own-loop.md"])
def test_the_blocks_run(page: str, tmp_path: Path):
    output_of(page, tmp_path)


def test_the_loop_of_ones_own_has_rewards_that_vary_and_a_gradient(tmp_path: Path):
    pytest.importorskip("transformers")
    lines = output_of("docs/own-loop.md", tmp_path).splitlines()
    steps = [line for line in lines if line.startswith("step")]
    assert len(steps) == 2
    for line in steps:
        found = re.search(r"reward (\S+)  gradient norm (\S+)  \|log π − log μ\| (\S+)", line)
        assert found is not None, line
        reward, norm, mismatch = map(float, found.groups())
        assert 0 < reward < 1 and norm > 0 and 0 < mismatch < 1
    assert '"beyond_delta"' in lines[-1]


def test_the_loop_of_ones_own_finds_another_temperature_before_it_trains(tmp_path: Path):
    pytest.importorskip("transformers")
    wrong = {
        "TEMPERATURE, LENGTH, DELTA = 0.9": "TEMPERATURE, LENGTH, DELTA = 0.7",
        "do_sample=True, temperature=TEMPERATURE": "do_sample=True, temperature=1.0",
        "torch.stack(out.logits, 1).float() / TEMPERATURE": "torch.stack(out.logits, 1).float()",
    }
    done = run(blocks("docs/own-loop.md")[0], wrong, tmp_path)
    assert done.returncode == 1 and "The two sides are at different temperatures" in done.stderr, done.stdout
