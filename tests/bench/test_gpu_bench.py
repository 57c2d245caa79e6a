"""`python -m drpo.bench.gpu` without a card: its parts are processes with limits, resumable, and every line runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

from drpo.bench.frame import Case, Row, Settings, Turn, measure
from drpo.bench.gpu import PARTS, Part, part, runner
from drpo.bench.gpu.tests import rows_of
from drpo.files import read_json
from support import command
from support.bench_records import check_record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(quick=True)


def python(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), **environment},
    )


# ---- a part, in this process


def fake_part(monkeypatch: pytest.MonkeyPatch, *cases: tuple[str, Callable[..., list[Row]]]) -> None:
    module = SimpleNamespace(cases=lambda settings: iter(cases))
    monkeypatch.setitem(sys.modules, "drpo.bench.gpu.fake", module)  # pyright: ignore[reportArgumentType]


def one(title: str, calls: list[str] | None = None) -> tuple[str, Callable[..., list[Row]]]:
    def work(watch: object) -> list[Row]:
        if calls is not None:
            calls.append(title)
        return [Row(case=title, variant="v", sizes={}, seconds=[1.0])]

    return title, work


def test_a_part_goes_on_after_the_cases_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []

    def interrupted(watch: object) -> list[Row]:
        raise KeyboardInterrupt

    fake_part(monkeypatch, one("a", calls), ("b", interrupted))
    with pytest.raises(KeyboardInterrupt):
        part.measure_part("fake", SETTINGS, tmp_path)
    assert [row["case"] for row in read_json(tmp_path / "fake.partial.json")["rows"]] == ["a"]
    fake_part(monkeypatch, one("a", calls), one("b", calls))
    assert part.measure_part("fake", SETTINGS, tmp_path) == 0
    assert calls == ["a", "b"] and not (tmp_path / "fake.partial.json").exists()
    record = read_json(tmp_path / "fake.json")
    check_record(record, "gpu fake")
    assert record["machine"]["others"] >= 0


def test_what_failed_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(watch: object) -> list[Row]:
        raise RuntimeError("a defect\nmore")

    fake_part(monkeypatch, ("a", broken), one("b"))
    assert part.measure_part("fake", SETTINGS, tmp_path) == 1
    failed, fine = read_json(tmp_path / "fake.partial.json")["rows"]
    assert failed["skipped"] == "failed: RuntimeError: a defect" and fine["case"] == "b"
    calls: list[str] = []
    fake_part(monkeypatch, one("a", calls), one("b", calls))
    assert part.measure_part("fake", SETTINGS, tmp_path) == 0 and calls == ["a"]


def test_a_device_without_memory_for_a_case_or_a_variant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The allocator gives 1,000 numbers at most."""
    empty = torch.empty

    def limited(*size: int, **settings: object) -> torch.Tensor:
        if size[0] > 1000:
            raise torch.OutOfMemoryError(f"tried to allocate {4 * size[0]} bytes")
        return empty(*size, **settings)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(torch, "empty", limited)

    def inputs(watch: object) -> list[Row]:
        torch.empty(5000)
        raise AssertionError("not reached")

    def turn(size: int) -> Callable[[], Turn]:
        return lambda: Turn(float(len(torch.empty(size))))

    def variants(watch: Callable[[str], None]) -> list[Row]:
        both = {"small": turn(10), "large": turn(5000)}
        return measure(Case(title="b", sizes={}, variants=both, rounds=2), watch)

    fake_part(monkeypatch, ("a", inputs), ("b", variants))
    assert part.measure_part("fake", SETTINGS, tmp_path) == 0
    record = read_json(tmp_path / "fake.json")
    check_record(record, "gpu fake")
    assert {row["variant"]: row.get("skipped") for row in record["rows"]} == {
        "inputs": "out of memory",
        "small": None,
        "large": "out of memory",
    }


def test_a_variant_that_fails_leaves_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Turn:
        raise ValueError("an illegal access")

    case = Case(title="c", sizes={}, variants={"broken": broken, "fine": lambda: Turn(1.0)}, rounds=2)
    fine, row = measure(case, lambda _: None, survive=(Exception,))
    assert len(fine.seconds) == 2 and row.skipped == "failed: ValueError: an illegal access"
    assert "Traceback" in capsys.readouterr().err


REPORT = """
<testsuites><testsuite>
<testcase classname="tests.a" name="one" time="1.5"/>
<testcase classname="tests.a" name="two" time="0.5"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.a" name="three" time="0"><skipped message="needs a CUDA device"/></testcase>
</testsuite></testsuites>
"""


def test_a_report_of_pytest() -> None:
    run, failure = rows_of(ElementTree.fromstring(REPORT))
    assert run.figures == {"passed": 1, "failed": 1, "skipped": 1} and run.median == 2.0
    assert failure.variant == "tests.a::two" and failure.skipped == "failed: assert 1 == 2"


# ---- all parts


@pytest.fixture
def fake_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Parts ``fake`` and ``other`` whose process runs a program."""
    monkeypatch.setattr(runner, "PARTS", {name: Part(what=name, seconds=60) for name in ("fake", "other")})

    def set_program(program: str) -> None:
        monkeypatch.setattr(
            runner, "command", lambda name, settings, folder: [sys.executable, "-c", program, name, str(folder)]
        )

    return set_program


DONE = """
import json, pathlib, sys
record = {"schema": 1, "machine": {"date": "2026-11-30"}, "rows": [{"variant": "Liger", "skipped": "not installed"}]}
pathlib.Path(sys.argv[2], sys.argv[1] + ".json").write_text(json.dumps(record))
print("measured", sys.argv[1])
"""


def run(
    folder: Path, again: tuple[str, ...] = (), limit: float | None = None
) -> tuple[list[runner.Outcome], list[str]]:
    said: list[str] = []
    outcomes = runner.run_parts(["fake", "other"], SETTINGS, folder, again, limit, said.append)
    return outcomes, said


def test_a_part_that_is_there_is_kept(fake_parts: Callable[[str], None], tmp_path: Path) -> None:
    fake_parts(DONE)
    outcomes, said = run(tmp_path)
    assert [outcome.status for outcome in outcomes] == ["ran", "ran"] and "  measured fake" in said
    assert outcomes[0].details == ("Liger skipped: not installed",)
    outcomes, said = run(tmp_path, again=("other",))
    assert [outcome.status for outcome in outcomes] == ["kept", "ran"]
    assert "--again fake" in outcomes[0].text and "2026-11-30" in outcomes[0].text
    assert "  measured other" in said and "  measured fake" not in said


def test_a_part_that_fails_is_told_with_its_last_lines(fake_parts: Callable[[str], None], tmp_path: Path) -> None:
    fake_parts("import sys\nfor i in range(40): print('line', i)\nsys.exit(5)")
    outcomes, _ = run(tmp_path)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert "exited with status 5" in outcomes[0].text and outcomes[0].details[-1] == "line 39"
    lines = runner.summary(outcomes)
    assert "    | line 39" in lines and (tmp_path / "fake.log").read_text().count("line") == 40


CHILD = "import subprocess, sys, time; print('begun', flush=True); subprocess.run(['sleep', '600'])"


def test_a_part_is_stopped_with_its_children(
    fake_parts: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_parts(CHILD)
    monkeypatch.setattr(runner, "LEAST", 1.0)
    started = time.monotonic()
    outcomes, said = run(tmp_path, limit=4)
    assert time.monotonic() - started < 60
    assert outcomes[0].status == "failed" and "stopped after" in outcomes[0].text and "  begun" in said
    assert outcomes[1].status == "skipped" and "--limit" in outcomes[1].text


def test_what_a_part_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lacking = Part(what="fake", seconds=1, needs={"no_such_module": "pip install no-such"})
    monkeypatch.setattr(runner, "PARTS", {"fake": lacking})
    (outcome,) = runner.run_parts(["fake"], SETTINGS, tmp_path, (), None, lambda _: None)
    assert outcome.status == "skipped" and outcome.text == "no_such_module is not installed: pip install no-such"


# ---- the command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "sees no CUDA device"),
        (["--device", "cpu"], "for --quick alone"),
        (["--device", "tpu"], "is no device"),
        (["kernel"], "unknown part 'kernel'"),
        (["--limit", "0"], "at least 1"),
    ],
)
def test_the_command_refuses(tmp_path: Path, arguments: list[str], expected: str) -> None:
    done = command.python(["-m", "drpo.bench.gpu", *arguments], tmp_path, {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


#: torch and numpy with what they import, and nothing else.
BARE = (
    *("torch", "torchgen", "functorch", "numpy", "numpy.libs", "filelock", "typing_extensions.py", "sympy", "mpmath"),
    *("networkx", "jinja2", "markupsafe", "fsspec", "triton", "nvidia"),
)


def bare_site(folder: Path) -> Path:
    """A folder of links to :data:`BARE`."""
    assert torch.__file__ is not None
    source = Path(torch.__file__).parents[1]
    folder.mkdir()
    for name in [*BARE, *(entry.name for entry in source.glob("torch-*.dist-info"))]:
        if (source / name).exists():
            (folder / name).symlink_to(source / name)
    return folder


def test_the_kernels_are_measured_on_a_bare_machine(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(bare_site(tmp_path / "site"))])
    arguments = ["kernels", "support", "steps", "--device", "cpu", "--quick", "--out", tmp_path]
    done = python("-S", "-m", "drpo.bench.gpu", *arguments, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "steps skipped: transformers is not installed" in done.stdout
    record = json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8"))
    check_record(record, "gpu kernels")
    rows = {row["variant"]: row for row in record["rows"]}
    assert "is not installed" in rows["Liger GRPO"]["skipped"] and "Liger GRPO skipped: liger_kernel" in done.stdout
    card = max(rows["three products"]["figures"]["tflops"], rows["floor"]["figures"]["tflops"])
    for variant in ("fused_loss", "fused_loss two-pass", "token_logprobs chunked", "naive"):
        row = rows[variant]
        flops = 6 * row["sizes"]["tokens"] * row["sizes"]["hidden"] * row["sizes"]["vocabulary"]
        assert row["figures"]["tflops"] == pytest.approx(flops / row["seconds"] / 1e12)
        assert row["figures"]["gemm_share"] == pytest.approx(row["figures"]["tflops"] / card)


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    done = python("-m", "drpo.bench.gpu", "--device", "cpu", "--quick", "--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.partition("\nsummary\n")[2]
    for name, what in PARTS.items():
        if what.obstacle():
            assert f"  {name:12s} skipped" in summary
        else:
            assert f"  {name:12s} ran" in summary
            check_record(json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")), f"gpu {name}")
    steps = {row["variant"]: row for row in read_json(tmp_path / "steps.json")["rows"] if "Llama" in row["case"]}
    ours = steps["drpo Trainer"]
    parts = ("sampling_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds")
    assert all(ours["figures"][part] > 0 for part in parts)
    assert sum(ours["figures"][part] for part in parts) <= ours["seconds"]
    assert ours["ratios"]["floor"] > 1 and ours["tokens"] == [16.0]
    assert ("skipped" in steps["TRL GRPOTrainer"]) == (find_spec("trl") is None)
    again = python("-m", "drpo.bench.gpu", "--device", "cpu", "--quick", "--out", tmp_path, cwd=tmp_path)
    assert again.returncode == 0 and " ran " not in again.stdout.partition("\nsummary\n")[2]
