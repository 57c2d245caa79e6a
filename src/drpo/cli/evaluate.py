"""`drpo eval`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from drpo.cli.printing import PlainConsole, write_json
from drpo.cli.responses import check_output, show_responses, write_responses
from drpo.cli.settings import refuse_options
from drpo.errors import CheckpointError, ConfigError
from drpo.model.policy import Policy, load_policy
from drpo.run_directory import RunDirectory
from drpo.schema import numbered
from drpo.tasks import Example, make_task
from drpo.tasks.grading.grader import Grader
from drpo.train.checkpoint import CHECKSUMS, damage_of
from drpo.train.checkpoint_choice import LAST, choose_checkpoint, run_of_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.config_text import parse_overrides
from drpo.train.evaluate import evaluate
from drpo.train.prompt_room import PromptRoom, fitting
from drpo.train.resume import resumed_config
from drpo.train.samplers import make_sampler
from drpo.train.setup import pick_device
from drpo.train.threads import computing_threads


def run_evaluate(
    source: str,
    settings: list[str],
    step: str | None,
    as_json: bool,
    show: int | None = None,
    wrong: bool = False,
    out: Path | None = None,
) -> None:
    """Evaluate a run's checkpoint or a model, and print the result.

    Args:
        source: a run, one of its checkpoints, or a model.
        settings: ``key=value`` changes.
        step: which checkpoint of a run.
        as_json: print one JSON object.
        show: print the responses to so many problems.
        wrong: only those that are wrong.
        out: a file for all responses.
    """
    refuse_options([source, *settings], ("--step", "--json", "--show", "--wrong", "--out", "--debug"))
    shown = check_output(show, wrong, out, as_json)
    console = PlainConsole()
    config, model = resolve_source(source, settings, PlainConsole(stderr=True), step)
    note_default_task(source, config, settings, PlainConsole(stderr=True))
    task = make_task(config.task.name, **config.task.parameters)
    examples = task.heldout_examples(config.eval_examples)
    policy = load_source(config, model, settings, PlainConsole(stderr=True))
    examples = fitting_examples(policy, config, examples, "held-out")
    with (
        computing_threads(config.threads),
        closing(make_sampler(config, policy)) as sampler,
        Grader(task, config.grading_time_limit, config.grading_workers) as grader,
    ):
        record, samples = evaluate(
            policy, sampler, grader, examples, config.eval_samples, config.sampling(), config.seed
        )
    if out is not None:
        write_responses(samples, config.eval_samples, out)
    if as_json:
        write_json(numbered("evaluation", {"model": model, "task": config.task.name, **record}), indent=2)
        return
    console.say(
        f"{model} on {config.task.name}: sampled held-out accuracy {record['accuracy']:.3f} "
        f"({record['correct']} of {record['samples']} responses to {record['examples']} problems, "
        f"{config.sampling().described}), mean reward {record['reward']:.3f}, "
        f"{record['response_length']:.1f} tokens a response, {record['truncated_share']:.1%} cut off, "
        f"{record['failed_rewards']} rewards failed, "
        f"{record['timed_out_rewards']} took too long to grade and count as wrong"
    )
    for name, rate in _rates(record):
        console.say(
            f"{name} {rate['mean']:.3f}  95 % confidence interval {rate['low']:.3f} to {rate['high']:.3f}, over "
            f"{rate['problems']} problems"
        )
    show_responses(console, samples, config.eval_samples, shown, wrong)


def load_source(config: TrainConfig, model: str, settings: list[str], notes: PlainConsole) -> Policy:
    """The policy of :func:`resolve_source`. Of an adapter, ``model=`` among ``settings`` names the base."""
    policy = load_policy(
        model,
        pick_device(config.device),
        config.precision,
        base=parse_overrides(settings).get("model"),
        trust_remote_code=config.trust_remote_code,
    )
    for note in policy.notes:
        notes.say(f"note: {note}")
    return policy


def _rates(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """avg@k, then pass@k for every k above 1 (pass@1 is avg@k)."""
    average = record["avg_at_k"]
    first = [] if average is None else [(f"avg@{average['k']}", average)]
    return first + [(f"pass@{k}", rate) for k, rate in record["pass_at_k"].items() if k != "1"]


def fitting_examples(policy: Policy, config: TrainConfig, examples: list[Example], side: str) -> list[Example]:
    """The examples whose prompts fit the model; says on the terminal how many do not.

    Args:
        policy: from now on with the run's settings of the chat template.
        config: of the run.
        examples: of one side.
        side: "training" or "held-out".

    Raises:
        ConfigError: none fits. DataError: a prompt cannot be encoded.
    """
    policy.prompt_settings = config.prompt_settings
    room = PromptRoom.of(policy.model.config, config)
    found = fitting(policy.prompt_encoder, examples, side, room)
    if note := found.note(side, room):
        PlainConsole(stderr=True).say(f"note: {note}")
    return found.examples


def resolve_source(
    source: str, settings: list[str], notes: PlainConsole, step: str | None = None
) -> tuple[TrainConfig, str]:
    """The configuration and the model directory that ``source`` means: a run's directory, one of its checkpoints (with
    the run's own configuration), or a model.

    Args:
        source: as typed.
        settings: ``key=value`` changes.
        notes: where remarks go.
        step: which checkpoint of a run; None: the newest.

    Raises:
        CheckpointError: the run has no such checkpoint, or the one that is named is damaged. ConfigError: ``step`` is
            given, and ``source`` is no run.
    """
    path = Path(source)
    run = RunDirectory(path)
    if run.exists():
        config = resumed_config(run, settings)
        return config, str(choose_checkpoint(run, step or LAST, lambda text: notes.say(f"note: {text}")))
    owner = run_of_checkpoint(path)
    if step is not None:
        found = f"one. Give {owner.path} instead" if owner else "no run. Leave it out, or give the directory of a run"
        raise ConfigError(f"--step {step} chooses one of a run's checkpoints, and {source} is {found}.")
    if owner is not None:
        if (path / CHECKSUMS).exists() and (damage := damage_of(path)) is not None:
            raise CheckpointError(
                f"checkpoint {path} is damaged ({damage}). Name another one, or the run for its newest whole one."
            )
        return resumed_config(owner, settings), source
    config, _ = load_config(None, [*settings, f"model={source}"])
    return config, source


def note_default_task(source: str, config: TrainConfig, settings: list[str], notes: PlainConsole) -> None:
    """Say that a model of no run, for which no task is named, is asked the default one."""
    path = Path(source)
    if RunDirectory(path).exists() or run_of_checkpoint(path) is not None or "task" in parse_overrides(settings):
        return
    notes.say(
        f"note: no task was named: {source} is asked {config.task.name}, the default task. Name another with "
        "task=…, or give a run's directory for its own."
    )
