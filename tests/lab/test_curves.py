"""curves.csv: what was written comes back, damage has one line, and kept tables are not overwritten."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from drpo.cli.lab import study_page
from drpo.errors import DataError, SchemaError
from drpo.lab.curves import Curve, CurvePoint, curves_text, read_curves
from drpo.lab.results import read_csv
from drpo.lab.run import kept_results, write_results
from drpo.lab.study import check_study, load_study
from drpo.train.config_text import read_yaml

KEPT = Path(__file__).resolve().parents[2] / "results" / "mask"
HEAD = "schema,phase,setting,arm,attempt,seed,step,accuracy,beyond_delta,corrective_share\n"  # before rewards


def row(seed: int, accuracy: list[tuple[int, float]], phase: str = "shared", **courses: Any) -> dict[str, Any]:
    place = {"phase": phase, "setting": "one", "arm": "drpo", "attempt": "", "seed": seed}
    return place | {
        "curves": {"accuracy": accuracy, "beyond_delta": [], "corrective_share": [], "reward": [], **courses}
    }


def test_mean_and_range_over_seeds_by_hand(tmp_path: Path) -> None:
    third = 1 / 3
    rows = [
        row(0, [(0, 0.25), (2, third)], beyond_delta=[(1, 0.1), (2, 0.3)]),
        row(1, [(0, 0.75)], beyond_delta=[(1, 0.2)]),
        row(7, [(0, 0.9)], phase="tuning"),
    ]
    file = tmp_path / "curves.csv"
    file.write_text(curves_text(rows), encoding="utf-8")
    assert file.read_text(encoding="utf-8").splitlines()[:3] == [
        f"{HEAD.strip()},reward",
        "1,shared,one,drpo,,0,0,0.25,,,",
        "1,shared,one,drpo,,0,1,,0.1,,",
    ]
    assert read_curves(file) == {
        Curve("shared", "one", "drpo", "accuracy"): [
            CurvePoint(0, 0.5, 0.25, 0.75),
            CurvePoint(2, third, third, third),  # to the last bit, of the seed that got there
        ],
        Curve("shared", "one", "drpo", "beyond_delta"): [
            CurvePoint(1, math.fsum([0.1, 0.2]) / 2, 0.1, 0.2),
            CurvePoint(2, 0.3, 0.3, 0.3),
        ],
    }


def test_summaries_stand_for_seeds_that_are_not_known(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    lines = [f"1,shared,one,drpo,,{name},0,{value},,\n" for name, value in (("mean", 0.4), ("low", 0.1), ("high", 0.6))]
    file.write_text(HEAD + "".join(lines), encoding="utf-8")
    assert read_curves(file) == {Curve("shared", "one", "drpo", "accuracy"): [CurvePoint(0, 0.4, 0.1, 0.6)]}
    file.write_text(HEAD + "".join(lines[:2]), encoding="utf-8")
    with pytest.raises(DataError, match="step 0 needs mean, low, high"):
        read_curves(file)
    assert read_curves(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("99,shared,one,drpo,,0,0,0.5,,", SchemaError, "row 2 .*curves schema 99"),
        ("1,shared,one,drpo,,0,0,much,,", DataError, "row 2, accuracy: a number"),
        ("1,shared,one,drpo,,0,0,[1],,", DataError, "row 2: accuracy and step must be numbers"),
        ("1,shared,one,drpo,,0,,0.5,,", DataError, "row 2: accuracy and step must be numbers"),
        ("1,shared,one,drpo,,0,0,0.5", DataError, "row 2: .*cells"),
        ("1,shared,one,drpo,,0,0,0.5,,,,", DataError, "row 2: .*cells"),
    ],
)
def test_a_damaged_or_newer_line_is_named(tmp_path: Path, line: str, error: type[Exception], said: str) -> None:
    file = tmp_path / "curves.csv"
    file.write_text(f"{HEAD}{line}\n", encoding="utf-8")
    with pytest.raises(error, match=said):
        read_curves(file)


def test_a_report_of_kept_tables_leaves_them_as_they_are(tmp_path: Path) -> None:
    """The runs are elsewhere or gone: a report used to write them all down as missing."""
    folder = Path(shutil.copytree(KEPT, tmp_path / "mask", ignore=shutil.ignore_patterns("*.html")))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    study = load_study("recipe:studies/mask")[1]
    results = write_results(study, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert results.count("finished") == len(results.rows) == 40
    page = study_page(results, folder)
    assert page.count("Held-out accuracy") >= 2 and "Nothing was recorded" not in page


def test_a_page_without_curves_says_so(tmp_path: Path) -> None:
    study = check_study(read_yaml(KEPT / "study.yaml"), "mask")
    assert "Nothing was recorded" in study_page(kept_results(study, KEPT), tmp_path)


def test_rows_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    text = (KEPT / "results.csv").read_text(encoding="utf-8")
    (tmp_path / "results.csv").write_text(re.sub(r"\n\d+,", "\n99,", text, count=1), encoding="utf-8")
    with pytest.raises(SchemaError, match=r"row 2 .*results schema 99"):
        read_csv(tmp_path / "results.csv")
