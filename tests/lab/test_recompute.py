"""The kept verdicts, computed a second time without the package."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tools import RESULTS, recompute

KEPT = sorted(file.parent for file in RESULTS.glob("*/verdicts.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_every_kept_figure_comes_out_again(folder: Path) -> None:
    assert recompute.recompute(folder) == []


@pytest.mark.parametrize("key", ["value", "p", "low", "sign_flip", "adjusted_p", "answer"])
def test_a_figure_that_was_changed_is_named(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "delta"
    shutil.copytree(RESULTS / "delta", folder)
    kept = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    verdict = kept["verdicts"][0]
    place = verdict["found"] if key in verdict["found"] else verdict
    place[key] = "better" if key == "answer" else place[key] * 0.99 - 1e-3
    (folder / "verdicts.json").write_text(json.dumps(kept), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["recompute", str(folder)])
    with pytest.raises(SystemExit) as ended:
        recompute.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.strip().startswith(recompute.title(verdict)) and (key in line or "better there" in line)


def test_nothing_of_the_package_is_used() -> None:
    text = Path(recompute.__file__).read_text(encoding="utf-8")
    assert "drpo." not in text and "import drpo" not in text
