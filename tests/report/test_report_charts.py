"""Line charts and histograms: what is drawn is what was recorded."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from drpo.report.run.histograms import thirds
from drpo.report.run.history import History
from drpo.report.svg.charts import LABEL_HEIGHT, MOST_POINTS, Chart, Line, draw, spread, thinned
from drpo.report.svg.points import Point
from drpo.run_directory import RunDirectory
from support.synthetic_run import make_run, update_record


def points(*values: float | None) -> list[Point]:
    return [Point(i, value, None, None) for i, value in enumerate(values)]


def test_a_missing_value_breaks_the_line_and_leaves_a_lone_point_as_a_dot() -> None:
    drawn = draw(Chart("Loss", "", [Line("", points(1, 2, None, 3, None, 4, 5))]), (0, 6))
    assert len(re.findall("class='line'", drawn)) == 3
    assert len(re.findall("<circle", drawn)) == 1


def test_nothing_but_missing_values_is_said_in_words() -> None:
    drawn = draw(Chart("Loss", "", [Line("", points(None, None))]), (0, 6))
    assert "<svg" not in drawn and "Nothing was recorded" in drawn


def test_zeros_on_a_log_axis_lie_on_the_floor() -> None:
    drawn = draw(Chart("Distance", "", [Line("", points(0.0, 0.01, 0.1))], log=True), (0, 2))
    path = re.search(r"class='line' d='M[\d.]+ ([\d.]+)", drawn)
    assert path is not None and float(path[1]) == 192.0
    assert ">0</text>" in drawn


def test_a_band_that_reaches_far_down_does_not_stretch_a_log_axis() -> None:
    band = [Point(0, 0.01, 1e-9, 0.02), Point(1, 0.02, 1e-9, 0.05)]
    drawn = draw(Chart("Distance", "", [Line("", band)], log=True), (0, 1))
    assert "e−" not in drawn and ">0.01</text>" in drawn
    assert "class='band'" in drawn


def test_thinning_keeps_the_mean_and_every_extreme() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    values[137] = 50.0
    thin = thinned([Point(i, float(value), None, None) for i, value in enumerate(values)])
    assert len(thin) <= MOST_POINTS
    assert max(point.high for point in thin if point.high is not None) == 50.0
    assert min(point.low for point in thin if point.low is not None) == values.min()
    weights = [min(7, 1000 - 7 * i) for i in range(len(thin))]
    assert np.average([point.value or 0.0 for point in thin], weights=weights) == pytest.approx(values.mean())


def test_labels_do_not_touch() -> None:
    placed = spread([50.0, 51.0, 52.0, 190.0], 12, 190)
    assert all(after - before >= LABEL_HEIGHT for before, after in itertools.pairwise(placed))
    assert placed[0] == 50.0 and placed[-1] == 190.0
    assert spread([188.0, 189.0], 12, 190) == [177, 190]


def test_several_updates_become_mean_and_range_of_their_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=0, every=0)
    for update, value in enumerate([0.1, 0.2, 0.6]):
        run.append_metrics({"kind": "update", "step": 1, "update": update, "shift": value, "timing": {"training": 2.0}})
    history = History.read(run)
    assert history.by_step("shift") == [pytest.approx(Point(1, 0.3, 0.1, 0.6))]
    assert [point.value for point in history.by_update("shift")] == [0.1, 0.2, 0.6]
    assert history.highest("shift")[0].value == 0.6 and history.lowest("shift")[0].value == 0.1
    assert history.summed_by_step("timing.training")[0].value == 6.0
    assert history.by_step("timing.sampling")[0].value is None


@pytest.mark.parametrize(
    ("steps", "names"), [(0, []), (1, ["step 1"]), (2, ["step 1", "step 2"]), (9, ["steps 1–3", "steps 7–9"])]
)
def test_thirds(tmp_path: Path, steps: int, names: list[str]) -> None:
    assert [name for name, _ in thirds(History.read(make_run(tmp_path / "run", steps=steps)))] == names


def test_histogram_heights_are_shares_of_the_tokens(tmp_path: Path) -> None:
    from drpo.report.run.curves import charts_by_section

    run = RunDirectory(tmp_path / "run")
    run.create({}, {})
    record = update_record(1, 0, 1, np.random.default_rng(0))
    weight = [0] * 40
    weight[20], weight[0] = 3, 1  # w in [1, 1.2) and at −3 or below
    run.append_metrics({**record, "histograms": {"weight": weight, "shift": [1, 2]}})
    figures = {heading: figures for heading, _, figures in charts_by_section(History.read(run))}["Trust region"]
    drawn = next(figure for figure in figures if "gradient weight w" in figure and "Distribution" in figure)
    assert "75 % of tokens between 1 and 1.2" in drawn
    other = next(figure for figure in figures if "Distribution of |π − μ|" in figure)
    assert "Nothing was recorded" in other, "bins of another schema are not drawn"
