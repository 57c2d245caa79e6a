"""Figures are written whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from drpo.errors import WriteError
from drpo.report.figures.files import save_figure


def test_a_figure_appears_alone_in_a_folder_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "new" / "figure.png"
    save_figure(Figure(), file)
    assert file.read_bytes().startswith(b"\x89PNG") and [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_a_refused_figure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "figure.png"
    file.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(WriteError, match="No space left"):
        save_figure(Figure(), file)
    assert file.read_bytes() == b"old" and [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]
