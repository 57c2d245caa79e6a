"""The three logs of docs/tutorial-inspect.md: small, whole, and each gives the answer that the tutorial explains."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from drpo.inspection.inspect import inspect
from drpo.inspection.result import Inspection
from drpo.run_directory import RunDirectory
from examples.token_logs import FOLDER, NAMES
from examples.token_logs.__main__ import pack
from examples.token_logs.wrong_temperature import SAMPLING, TRAINED_AT

pytestmark = pytest.mark.slow

#: Log → the state of the answer, the faults and warnings, and the notes that the tutorial explains.
SAID = {
    "healthy": ("acts", [], ["entropy_fell"]),
    "wrong-temperature": ("untrusted", ["temperature"], []),
    "collapsed": ("acts", ["outliers", "update_drift", "collapse"], []),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Inspection]:
    return {name: inspect([FOLDER / name]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_log_gives_the_answer_that_the_tutorial_explains(name: str, found: dict[str, Inspection]) -> None:
    state, serious, notes = SAID[name]
    assert found[name].answer.state == state
    named: dict[bool, list[str]] = {True: [], False: []}
    for finding in found[name].findings:
        named[finding.severity == "note"].append(finding.name)
    assert named == {False: serious, True: notes}


def test_the_temperatures_are_those_of_the_loop(found: dict[str, Inspection]) -> None:
    estimate = found["wrong-temperature"].temperature
    assert estimate is not None
    assert estimate.value == pytest.approx(TRAINED_AT / SAMPLING.temperature, abs=0.1)
    assert found["wrong-temperature"].suggested_delta.value is None


def test_what_the_tutorial_says_of_the_figures(found: dict[str, Inspection]) -> None:
    healthy, collapsed = found["healthy"], found["collapsed"]
    assert healthy.figures["rare_share"] > 0.05 and healthy.figures["beyond_delta"] < 0.01
    assert collapsed.figures["beyond_delta"] / healthy.figures["beyond_delta"] == pytest.approx(16, rel=0.05)
    assert collapsed.figures["shift_max"] > 0.99
    changed = {verdict.objective: verdict.changed for verdict in healthy.verdicts}
    assert min(changed["grpo"], changed["spo"]) > changed["dppo_tv"] and changed["spo"] > changed["drpo"]
    assert healthy.suggested_delta.value == pytest.approx(0.15, rel=0.3)


def test_a_sample_keeps_whole_responses_in_their_order(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    responses = [{"sequence_id": row, "logprobs": [-1.0] * 10, "behavior_logprobs": [-1.0] * 10} for row in range(20)]
    for step in (1, 2):
        run.write_tokens(step, [{"step": step, **response} for response in responses])
    pack(run, tmp_path / "log" / "tokens.jsonl.gz", most=45)
    packed = gzip.decompress((tmp_path / "log" / "tokens.jsonl.gz").read_bytes())
    kept = [json.loads(line) for line in packed.splitlines()]
    assert [record["step"] for record in kept] == [1] * 5 + [2] * 5
    rows = [record["sequence_id"] for record in kept]
    assert rows[:5] == sorted(set(rows[:5])) and all(len(record["logprobs"]) == 10 for record in kept)


@pytest.mark.parametrize("name", NAMES)
def test_a_log_is_small(name: str) -> None:
    assert [file.name for file in (FOLDER / name).iterdir() if file.suffix != ".html"] == ["tokens.jsonl.gz"]
    assert (FOLDER / name / "tokens.jsonl.gz").stat().st_size < 150_000
