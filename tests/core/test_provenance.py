"""What a run records of where its numbers come from: the processor and the code."""

from __future__ import annotations

from pathlib import Path

from drpo.code_version import DECIDING, PACKAGE, digest, training_code
from drpo.cpus import cpu_model, cpu_name


def test_processors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Some Processor\nstepping\t: 8\n\n"
        "processor\t: 1\nmodel\t\t: 999\nmodel name\t: Other\n"
    )
    assert cpu_name(tmp_path) == "Some Processor"
    assert cpu_model(tmp_path) == "Some Processor, cpu family 6, model 143, stepping 8"
    assert cpu_name(tmp_path / "absent") and cpu_model(tmp_path / "absent") == cpu_name(tmp_path / "absent")


def test_a_digest_changes_with_a_name_and_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1\n")
    first = digest([tmp_path / "part"])
    (tmp_path / "part" / "notes.txt").write_text("nothing that runs")
    assert digest([tmp_path / "part"]) == first and len(first) == 16
    (tmp_path / "part" / "a.py").write_text("x = 2\n")
    second = digest([tmp_path / "part"])
    (tmp_path / "part" / "a.py").rename(tmp_path / "part" / "b.py")
    assert len({first, second, digest([tmp_path / "part"])}) == 3
    assert all((PACKAGE / name).exists() for name in DECIDING) and training_code() == training_code()
