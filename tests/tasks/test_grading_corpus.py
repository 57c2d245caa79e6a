"""Every verdict of the corpus, which were decided by hand: one test for each kind of answer."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from drpo.tasks.grading.math.grade import grade

pytest.importorskip("math_verify", reason="pip install -e '.[math]'")

pytestmark = pytest.mark.slow

FILE = Path(__file__).parent / "grading_corpus.jsonl"


def pairs() -> dict[str, list[dict[str, Any]]]:
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        by_kind[pair["kind"]].append(pair)
    return by_kind


PAIRS = pairs()


@pytest.mark.parametrize("kind", PAIRS)
def test_verdicts(kind: str) -> None:
    differing = []
    for pair in PAIRS[kind]:
        verdict = grade(pair["response"], pair["gold"], pair.get("require_box", True))
        if verdict != (pair["right"] != bool(pair.get("known"))):
            differing.append((pair["gold"], pair["response"], verdict))
    assert not differing


def test_the_corpus_is_large_and_holds_right_and_wrong_answers() -> None:
    every = [pair for kind in PAIRS.values() for pair in kind]
    assert len(every) >= 300
    assert sum(pair["right"] for pair in every) > 100 < sum(not pair["right"] for pair in every)
    assert len({(pair["gold"], pair["response"], pair.get("require_box", True)) for pair in every}) == len(every)
    assert sum("known" in pair for pair in every) <= len(every) // 50
