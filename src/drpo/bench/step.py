"""Suite ``step``: one training step of ours against one of TRL's GRPOTrainer, on the same work.

Same model (the demo's), same 16 problems × 8 responses of at most 64 tokens, float32, one optimizer step, the same
reward function. A step is everything from sampling to the optimizer: generation, decoding, grading, advantages,
forward, backward, update, metrics. The rate is 1e-9, so that responses stay as long as they are. The two take turns in
blocks of steps, each begun anew with two steps of warm-up; a turn is the median step of a block. The floor is that of
:mod:`drpo.bench.floor`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from drpo.bench.floor import FLOOR, STEP, floor_turn, forward_flops
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, missing, synchronize, timed
from drpo.installation import install
from drpo.model.policy import load_policy
from drpo.rollouts import InProcessSampler
from drpo.run_directory import RunDirectory
from drpo.tasks import make_task
from drpo.tasks.grading.grader import Grader
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.determinism import deterministic_algorithms
from drpo.train.loop import Trainer
from drpo.train.rollout import Rollout
from drpo.train.setup import build, pick_device

OURS, TRL = "drpo Trainer", "TRL GRPOTrainer"


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """The one case."""
    small = ["prompts_per_step=2", "group_size=2", "max_new_tokens=4"] if settings.quick else []
    config = configure(settings.device, *small)
    warm_up, steps = (1, 1) if settings.quick else (2, 6)
    reasons = {OURS: missing("transformers", install("train")), TRL: missing("trl", install("trl"))}
    blocks = {OURS: our_block, TRL: trl_block}
    prompts, count, length = config.prompts_per_step, config.group_size, config.max_new_tokens
    made = [float(prompts * count * length)]
    variants: dict[str, Callable[[], Turn]] = {
        name: (lambda name=name: noted(in_folder(blocks[name], config, warm_up, steps), made, name))
        for name in blocks
        if not reasons[name]
    }
    if not reasons[OURS]:
        variants[FLOOR] = floor(config, made, settings)
    case = Case(
        title=f"a step of {prompts} × {count} responses of at most {length} tokens, median of {steps}",
        sizes={"prompts": prompts, "group": count, "length": length},
        baselines=(FLOOR, TRL),
        warm_up=0,
        rounds=settings.rounds or (1 if settings.quick else 4),
        skipped={name: reason for name, reason in reasons.items() if reason},
        variants=variants,
    )
    yield measure(case, watch)


def noted(turn: Turn, made: list[float], name: str) -> Turn:
    """``turn``; the tokens of one of ours are added to ``made``."""
    if name == OURS and turn.tokens is not None:
        made.append(turn.tokens)
    return turn


def floor(config: TrainConfig, made: list[float], settings: Settings) -> Callable[[], Turn]:
    """A turn of the floor of a step that makes as many tokens as ``made`` has last."""
    policy = load_policy(config.model, pick_device(config.device))
    task = make_task(config.task.name, **config.task.parameters)
    examples = [task.training_example(config.seed, index) for index in range(config.prompts_per_step)]
    lengths = [len(policy.encode(example.prompt)) for example in examples]
    shape, responses = policy.model.config.to_dict(), config.prompts_per_step * config.group_size
    return floor_turn(
        lambda: STEP * forward_flops(shape, lengths, config.group_size, made[-1] / responses),
        lambda: made[-1],
        settings.device,
        "float32",
        settings.quick,
    )


def configure(device: str, *changes: str) -> TrainConfig:
    """The demo's configuration, with one update a step and no learning."""
    settings = ["updates_per_step=1", "learning_rate=1e-9", f"device={device}", "task.max_digits=2", *changes]
    return load_config(None, settings)[0]


def in_folder(
    block: Callable[[TrainConfig, int, int, Path], list[Turn]], config: TrainConfig, warm_up: int, steps: int
) -> Turn:
    """The median step of a block that writes into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        turns = block(config, warm_up, steps, Path(folder))
    tokens = statistics.fmean(turn.tokens for turn in turns if turn.tokens is not None)
    figures = {key: statistics.median(turn.figures[key] for turn in turns) for key in turns[0].figures}
    return Turn(statistics.median(turn.seconds for turn in turns), tokens, figures)


def our_block(config: TrainConfig, warm_up: int, steps: int, folder: Path) -> list[Turn]:
    """Each of our steps after warm-up."""
    with our_steps(config, folder) as step:
        return [step() for _ in range(warm_up + steps)][warm_up:]


@contextmanager
def our_steps(
    config: TrainConfig,
    folder: Path,
    stop_ids: Collection[int] | None = None,
    between: Callable[[Rollout], Rollout] = lambda rollout: rollout,
) -> Iterator[Callable[[], Turn]]:
    """A call that makes one step, always on the same problems.

    Args:
        config: the run's.
        folder: where it writes.
        stop_ids: instead of the model's own.
        between: what is trained on, from what was sampled.
    """
    run = RunDirectory(folder / "run")
    run.create(config.as_dict(), {})
    with deterministic_algorithms():  # as `drpo train` does
        parts = build(config)
        if stop_ids is not None:
            parts = replace(parts, sampler=InProcessSampler(parts.policy.model, stop_ids))
        numbers = iter(range(1, 1 << 62))
        sampling: list[float] = []
        with Grader(parts.task, config.grading_time_limit) as grader:
            trainer = Trainer(config, run, parts, grader)

            def work() -> int:
                number = next(numbers)
                rollout = between(trainer.roll_out(number))
                trainer.update(rollout, number)
                sampling.append(rollout.sampling_seconds)
                return sum(len(sample.response.token_ids) for sample in rollout.samples)

            def step() -> Turn:
                turn = timed(work, str(parts.policy.device))
                return Turn(turn.seconds, turn.tokens, {"sampling_share": sampling[-1] / turn.seconds})

            yield step


def trl_block(config: TrainConfig, warm_up: int, steps: int, folder: Path) -> list[Turn]:
    """Each of TRL's steps after warm-up."""
    task = make_task(config.task.name, **config.task.parameters)
    examples = [task.training_example(config.seed, index) for index in range(config.prompts_per_step)]
    by_prompt = {example.prompt + "\n": example for example in examples}

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [task.reward(by_prompt[prompt], text) for prompt, text in zip(prompts, completions, strict=True)]

    return trl_turns(config, warm_up + steps, folder, list(by_prompt), reward)[warm_up:]


def trl_turns(
    config: TrainConfig,
    steps: int,
    folder: Path,
    prompts: Sequence[Any],
    reward: Callable[..., list[float]],
    changes: Mapping[str, Any] | None = None,
    figures: Callable[[], Mapping[str, float]] = dict,
) -> list[Turn]:
    """Each of TRL's steps.

    Args:
        config: the run's.
        steps: how many.
        folder: where it writes.
        prompts: of every step, as text or as messages.
        reward: TRL's reward function.
        changes: arguments of GRPOConfig, beside those of :func:`trl_settings`.
        figures: called before each step and after it, where it says what else was measured.
    """
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

    measured: list[Turn] = []
    device = pick_device(config.device)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            figures()
            synchronize(str(device))
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize(str(device))
            measured.append(Turn(time.perf_counter() - self.started, figures=figures()))

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "completions/mean_length" in logs:
                tokens = logs["completions/mean_length"] * args.per_device_train_batch_size
                measured[-1] = replace(measured[-1], tokens=tokens)

    policy = load_policy(config.model, device)
    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        callbacks=[Clock()],
        reward_funcs=reward,  # pyright: ignore[reportArgumentType]
        args=GRPOConfig(**trl_settings(config, steps, folder), **(changes or {})),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts] * steps),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return measured


def trl_settings(config: TrainConfig, steps: int, folder: Path) -> dict[str, Any]:
    """GRPOConfig's arguments for the same work."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": config.prompts_per_step * config.group_size,
        "num_generations": config.group_size,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "num_iterations": 1,
        "max_steps": steps,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "beta": 0.0,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "use_cpu": config.device == "cpu",
        "bf16": config.precision == "bf16",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "shuffle_dataset": False,
        "seed": config.seed,
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
    }
