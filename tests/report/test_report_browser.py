"""The pages in a real browser: nothing overflows on phone or desk, nothing is loaded, nothing complains."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.cli.lab import study_page
from drpo.comparison.compare import compare_runs
from drpo.lab.run import kept_results
from drpo.lab.study import check_study
from drpo.report import build_report
from drpo.report.comparison.page import build_comparison_page
from drpo.train.config_text import read_yaml
from support.browser import looks, needs_browser
from support.synthetic_run import config, make_run, manifest, sampled

pytestmark = [needs_browser, pytest.mark.slow]
COMMITTED = sorted((Path(__file__).resolve().parents[2] / "results").glob("*/study.yaml"))


def test_the_report_of_a_hostile_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=12)
    long = {"model": "m" * 300, "k" * 150: "v" * 300, "objective": {"name": "o" * 90, "delta": 0.1}}
    run.create(
        {**config(12, 2), **long},
        manifest(command=["x" * 900], failure="f" * 900, device="s" * 90, status="failed"),
    )
    hostile = "<script>console.error('ran')</script><img src='/stolen.png' onerror='console.error(1)'>"
    run.write_rollouts("evaluation", 12, [sampled("long " * 50 + "x" * 3000, hostile + "y" * 2000, reward=1.0)])
    for found in looks(build_report(run), tmp_path / "profile"):
        assert found["overflow"] <= 0 and found["outside"] == found["holes"] == [], found
        assert found["drawings"] >= 16, found


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_the_page_of_a_study_that_ran(file: Path, tmp_path: Path) -> None:
    study = check_study(read_yaml(file), str(file))
    for found in looks(study_page(kept_results(study, file.parent), file.parent), tmp_path / "profile"):
        assert found["overflow"] <= 0 and found["outside"] == found["holes"] == [], found
        assert found["drawings"] >= 3, found


def test_the_page_of_a_comparison(tmp_path: Path) -> None:
    hostile = "<script>console.error('ran')</script>"
    for number, name in enumerate(["drpo", "grpo", "o" * 90, hostile]):
        run = make_run(tmp_path / f"run-{number}", steps=12)
        run.create({**config(12, 2), "objective": {"name": name, "delta": 0.1}}, manifest())
        run.write_rollouts("evaluation", 12, [sampled("long " * 50 + "x" * 3000, hostile + "y" * 2000, reward=1.0)])
    for found in looks(build_comparison_page(compare_runs([tmp_path])), tmp_path / "profile"):
        assert found["overflow"] <= 0 and found["outside"] == found["holes"] == [], found
        assert found["drawings"] >= 9, found
