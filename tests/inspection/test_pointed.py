"""The tokens that a finding is about, among those of the sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drpo.inspection.inspect import inspect
from drpo.inspection.pointed import POINTED
from drpo.inspection.result import SampledResponse
from support.planted import filled, of_top_token, retokenized, with_edge, with_tool_output
from support.synthetic_log import Log, make_log, make_run, write_parquet

pytest.importorskip("pyarrow")
DELTA = 0.1
Array = np.ndarray


def figures(response: SampledResponse) -> tuple[Array, Array, Array]:
    """log π, log μ and |π − μ|."""
    pi, mu = np.array(response.logprobs), np.array(response.behavior_logprobs)
    return pi, mu, np.abs(np.exp(pi) - np.exp(mu))


def outliers() -> Log:
    log = make_log(4000, 1, 0.02)
    log["logprob"][::400] -= 9
    return log


#: Finding → a log that has it, and which tokens of a response with log π and log μ it is about; None: see below.
CASES: dict[str, tuple[Callable[[], Log], Callable[[Array, Array], Array] | None]] = {
    "unsampled": (
        lambda: with_tool_output(make_log(4000, 1, 0.05), is_copy=True),
        lambda pi, mu: (pi == mu) & (pi < np.log(0.99)),
    ),
    "mask_edge": (
        lambda: with_edge(make_log(4000, 1, 0.05), "first", is_zero=True),
        lambda pi, mu: (np.arange(len(pi)) == 0) & (mu == 0) & (pi < np.log(0.99)),
    ),
    "placeholder": (
        lambda: filled(make_log(4000, 1, 0.05), "behavior_logprob", -3.0, 0.05),
        lambda pi, mu: mu == -3.0,
    ),
    "top_token": (lambda: of_top_token(4000, 1, 0.05), lambda pi, mu: pi - mu < -1),
    "truncated": (
        lambda: make_log(4000, 1, 0.0, top_p=0.8),
        lambda pi, mu: (mu >= -1e-6) & (pi < -1e-3),
    ),
    "retokenized": (
        lambda: retokenized(make_log(4000, 1, 0.02), 0.3),
        lambda pi, mu: pi - mu < -5,
    ),
    "outliers": (outliers, lambda pi, mu: np.abs(pi - mu) > 5),
    "moved_far": (lambda: make_log(4000, 1, 0.8), None),
    "update_drift": (lambda: make_run(3, 4, 1, drift=0.8), None),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[SampledResponse]]:
    """The sample of the log of a finding, which is read once."""
    folder, known = tmp_path_factory.mktemp("logs"), {}

    def read(name: str) -> list[SampledResponse]:
        if name not in known:
            result = inspect([write_parquet(folder / f"{name}.parquet", CASES[name][0]())], DELTA, ["drpo"])
            assert name in {finding.name for finding in result.findings}
            known[name] = result
        return known[name].sampled

    return read


def test_every_finding_with_tokens_is_tried() -> None:
    assert set(CASES) == set(POINTED)


@pytest.mark.parametrize("name", [name for name, (_, wanted) in CASES.items() if wanted])
def test_a_finding_points_at_its_tokens_and_at_no_others(
    name: str, found: Callable[[str], list[SampledResponse]]
) -> None:
    count, test = 0, CASES[name][1]
    assert test is not None
    for response in found(name):
        pi, mu, _ = figures(response)
        wanted = np.flatnonzero(test(pi, mu)).tolist()
        assert response.pointed.get(name, []) == wanted
        count += len(wanted)
    assert count > 5


def test_the_policy_that_moved_is_shown_where_it_moved(found: Callable[[str], list[SampledResponse]]) -> None:
    shown = [
        shift[response.pointed["moved_far"]]
        for response in found("moved_far")
        if response.pointed
        for _, _, shift in [figures(response)]
    ]
    least = min(shift.min() for shift in shown)
    assert least > 2 * DELTA
    for response in found("moved_far"):
        *_, shift = figures(response)
        assert response.pointed.get("moved_far", []) == np.flatnonzero(shift >= least).tolist()


def test_drift_is_shown_in_the_later_updates_alone(found: Callable[[str], list[SampledResponse]]) -> None:
    updates = set()
    for response in found("update_drift"):
        *_, shift = figures(response)
        late = response.update in (2, 3)
        wanted = np.flatnonzero(shift > DELTA).tolist() if late else []
        assert response.pointed.get("update_drift", []) == wanted
        updates.add(response.update)
    assert updates == {0, 1, 2, 3}


def test_the_ends_of_a_part_are_no_edges_of_the_response(
    found: Callable[[str], list[SampledResponse]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("drpo.inspection.sampled.WINDOW", 20)
    log = CASES["mask_edge"][0]()
    cut = inspect([write_parquet(tmp_path / "log.parquet", log)], DELTA, ["drpo"]).sampled
    assert {len(response.logprobs) for response in cut} == {20} and any(response.first for response in cut)
    assert all(response.first == 0 for response in cut if response.pointed)
    assert any(response.pointed for response in cut)
