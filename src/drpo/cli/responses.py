"""The responses of an evaluation: shown on the terminal, and written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from drpo.cli.printing import PlainConsole
from drpo.errors import ConfigError
from drpo.files import growing_text, json_line
from drpo.schema import numbered
from drpo.train.rollout import Sample

#: Problems that `--wrong` alone shows.
SHOWN = 10


def check_output(show: int | None, wrong: bool, out: Path | None, as_json: bool) -> int:
    """How many problems to show.

    Raises:
        ConfigError: the options contradict each other, or the file exists.
    """
    if as_json and (show or wrong):
        raise ConfigError("--json prints one object. Leave out --show and --wrong, or write the responses with --out.")
    if out is not None and out.exists():
        raise ConfigError(f"--out {out} exists. Choose another file, or remove it")
    return (SHOWN if wrong else 0) if show is None else show


def write_responses(samples: Sequence[Sample], samples_each: int, out: Path) -> None:
    """Every response as a line of JSON, with the place of its problem and its own within it."""
    with growing_text(out) as stream:
        for row, sample in enumerate(samples):
            place = {"problem": row // samples_each, "sample": row % samples_each}
            stream.write(json_line(numbered("rollouts", place | sample.record())))


def show_responses(
    console: PlainConsole, samples: Sequence[Sample], samples_each: int, problems: int, wrong: bool
) -> None:
    """The first problems with their responses.

    Args:
        console: where.
        samples: of an evaluation, problem by problem.
        samples_each: responses to each problem.
        problems: how many to show.
        wrong: only wrong responses, and problems that have any.
    """
    shown = 0
    for start in range(0, len(samples), samples_each):
        group = [sample for sample in samples[start : start + samples_each] if not wrong or _is_wrong(sample)]
        if not group or shown == problems:
            continue
        shown += 1
        example = group[0].example
        console.print(Text.assemble(("\nproblem ", "bold"), example.prompt.strip()), soft_wrap=True)
        console.print(Text.assemble(("answer  ", "bold"), example.answer), soft_wrap=True)
        for sample in group:
            style = "red" if _is_wrong(sample) else "green"
            graded = sample.grade.failure if sample.grade.reward is None else f"{sample.grade.reward:g}"
            cut = " (cut off)" if sample.response.stop_reason == "length" else ""
            console.print(Text.assemble((f"reward {graded}{cut}  ", style), sample.text.strip()), soft_wrap=True)
    if problems and not shown:
        console.say("\nno response is wrong")


def _is_wrong(sample: Sample) -> bool:
    return sample.grade.reward is None or sample.grade.reward < 1
