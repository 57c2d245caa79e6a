"""`drpo filter`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from drpo.cli.evaluate import fitting_examples, load_source, resolve_source
from drpo.cli.printing import PlainConsole
from drpo.cli.settings import refuse_options
from drpo.errors import ConfigError
from drpo.files import growing_text
from drpo.tasks import make_task
from drpo.tasks.grading.grader import Grader
from drpo.train.samplers import make_sampler
from drpo.train.solve_rates import filtered_record, solve_rates, training_problems
from drpo.train.threads import computing_threads

_OPTIONS = ("--out", "--step", "--samples", "--above", "--below", "--problems", "--debug")


def run_filter(
    source: str,
    settings: list[str],
    step: str | None,
    out: Path,
    samples: int,
    bounds: tuple[float, float],
    problems: int | None,
) -> None:
    """Write the training problems whose pass rate is strictly between the bounds.

    They stand in ``OUT.partial`` until all problems were tried.

    Args:
        source: a run, one of its checkpoints, or a model.
        settings: ``key=value`` changes.
        step: which checkpoint of a run.
        out: the file to write.
        samples: responses to each problem.
        bounds: of the pass rate.
        problems: how many to try, from the first on; None: all.
    """
    refuse_options([source, *settings], _OPTIONS)
    above, below = bounds
    if above >= below:
        raise ConfigError(f"--above {above:g} must be less than --below {below:g}: no pass rate is between them")
    if not any(above < right / samples < below for right in range(samples + 1)):
        raise ConfigError(
            f"with --samples {samples} no pass rate is strictly between {above:g} and {below:g}. "
            "Raise --samples, or widen the bounds"
        )
    if out.exists():
        raise ConfigError(f"--out {out} exists. Choose another file, or remove it")
    console = PlainConsole()
    config, model = resolve_source(source, settings, PlainConsole(stderr=True), step)
    task = make_task(config.task.name, **config.task.parameters)
    examples = training_problems(task, config.task.name)[:problems]
    policy = load_source(config, model, settings, PlainConsole(stderr=True))
    examples = fitting_examples(policy, config, examples, "training")
    seen = kept = never = always = unknown = 0
    with (
        computing_threads(config.threads),
        growing_text(out) as stream,
        closing(make_sampler(config, policy)) as sampler,
        Grader(task, config.grading_time_limit, config.grading_workers) as grader,
    ):
        for batch in solve_rates(
            policy, sampler, grader, examples, samples, config.sampling(), config.seed, config.prompts_per_step
        ):
            for example, graded, correct in batch:
                never += graded > 0 and correct == 0
                always += 0 < graded == correct
                unknown += graded == 0
                if graded and above < correct / graded < below:
                    kept += 1
                    stream.write(json.dumps(filtered_record(example, graded, correct), ensure_ascii=False) + "\n")
            stream.flush()
            seen += len(batch)
            console.print(f"{seen} of {len(examples)} problems, {kept} kept")
    console.say(
        f"{out}: {kept} of {seen} problems with a pass rate between {above:.0%} and {below:.0%} "
        f"({samples} responses each, {config.sampling().described}); never solved {never}, always {always}, "
        f"without any graded response {unknown}"
    )
