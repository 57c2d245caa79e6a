"""How often graders of mathematics disagree with the verdicts of tests/tasks/grading_corpus.jsonl, as a Markdown table.

    python -m tools.measure.grading [--verl DIR] [--show GRADER]

TRL is measured where it is installed. ``--verl`` names a folder that holds ``verl/utils/reward_score`` (an unpacked
wheel is enough: ``pip download verl==0.9.1 --no-deps``, unzip); its graders are single files and need no verl.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drpo.tasks.grading.math import grade as math_grading
from tools import ROOT

CORPUS = ROOT / "tests" / "tasks" / "grading_corpus.jsonl"
#: A grader takes (response, gold, whether a box is needed) and gives its verdict, None for none.
Grader = Callable[[str, str, bool], bool | None]


def ours(response: str, gold: str, box: bool) -> bool:
    """drpo's math task."""
    return math_grading.grade(response, gold, box)


def in_dollars(gold: str) -> str:
    """The gold answer between dollar signs, where math-verify and TRL look for LaTeX; with delimiters, as it is."""
    return gold if re.search(r"(?<!\\)\$|\\boxed|\\\[|\\\(", gold) else f"${gold}$"


def bare(response: str, gold: str, box: bool) -> bool:
    """math-verify with its defaults."""
    import math_verify

    return math_verify.verify(math_verify.parse(in_dollars(gold)), math_verify.parse(response))


def trl(response: str, gold: str, box: bool) -> bool | None:
    """TRL's accuracy_reward."""
    from trl.rewards import accuracy_reward  # pyright: ignore

    (reward,) = accuracy_reward([[{"role": "assistant", "content": response}]], [in_dollars(gold)])
    return None if reward is None else reward == 1.0


def verl_graders(folder: Path) -> dict[str, Grader]:
    """The graders of verl for mathematics in boxes."""

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, folder / "verl" / "utils" / "reward_score" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    reward, dapo = load("math_reward"), load("math_dapo")
    return {
        "verl `math_reward`": lambda response, gold, box: reward.compute_score(response, gold) == 1.0,
        "verl `math_dapo`, strict box": lambda response, gold, box: bool(
            dapo.compute_score(response, gold, strict_box_verify=True)["acc"]
        ),
    }


def measure(grader: Grader, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of the disagreements, and the pairs behind them."""
    wrong: dict[str, list[str]] = {"accepted": [], "rejected": [], "none": [], "raised": []}
    for pair in pairs:
        try:
            verdict = grader(pair["response"], pair["gold"], pair.get("require_box", True))
        except Exception as error:  # of the grader under test; counted and shown
            wrong["raised"].append(f"{pair['gold']} | {pair['response']} | {type(error).__name__}: {error}")
            continue
        where = "none" if verdict is None else "accepted" if verdict else "rejected"
        if where == "none" or verdict != pair["right"]:
            wrong[where].append(f"{pair['kind']} | {pair['gold']} | {pair['response']}")
    return wrong


def main() -> None:
    """Measure every grader that is there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verl", type=Path, help="a folder that holds verl/utils/reward_score")
    parser.add_argument("--show", help="print the disagreements of this grader too, by a part of its name")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    graders: dict[str, Grader] = {"drpo": ours, "math-verify, as it is": bare}
    if importlib.util.find_spec("trl") is not None:
        graders["TRL `accuracy_reward`"] = trl
    if arguments.verl is not None:
        graders |= verl_graders(arguments.verl)
    every = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    right = sum(pair["right"] for pair in every)
    print(f"{len(every)} pairs: {right} right, {len(every) - right} wrong\n")
    print("| grader | wrong answers accepted | right answers rejected | no verdict or an error |\n|---|---|---|---|")
    for name, grader in graders.items():
        found = measure(grader, every)
        print(
            f"| {name} | {len(found['accepted'])} ({len(found['accepted']) / (len(every) - right):.1%}) | "
            f"{len(found['rejected'])} ({len(found['rejected']) / right:.1%}) | "
            f"{len(found['none']) + len(found['raised'])} |",
            flush=True,
        )
        if arguments.show and arguments.show in name:
            for kind, pairs in found.items():
                print("".join(f"  {kind}: {pair}\n" for pair in pairs), end="")


if __name__ == "__main__":
    main()
