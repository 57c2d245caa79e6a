"""The training loop: sample, grade, compare, update; evaluate and save now and then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from drpo.batch import TokenBatch
from drpo.collapse import collapsed_run
from drpo.errors import CheckpointError, DrpoError, WriteError
from drpo.learning_signal import LearningSignal
from drpo.model.lora import describe_adapter, is_adapted
from drpo.run_checkpoints import best_evaluation, checkpoint_folders
from drpo.run_directory import RunDirectory
from drpo.tasks.grading.grader import Grader
from drpo.trackers import make_trackers
from drpo.train.branch import Branch
from drpo.train.checkpoint import Progress, remove_old_checkpoints, save_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.determinism import deterministic_algorithms
from drpo.train.evaluate import evaluate
from drpo.train.gradient import loss_path, with_proximal_logprobs
from drpo.train.learning_signal import facts_of, hints_for
from drpo.train.manifest import continued_manifest, ended_manifest, new_manifest
from drpo.train.mismatch import check_mismatch
from drpo.train.observer import Observer, Summary
from drpo.train.outcome import Outcome
from drpo.train.records import summarize, update_record
from drpo.train.resume import Resumption, find_resumption, is_finished, nothing_left, rewind
from drpo.train.rollout import Rollout, roll_out, timed_out
from drpo.train.rollout_weights import Snapshot
from drpo.train.router_replay import routing_mismatch
from drpo.train.seeds import derive_seed
from drpo.train.setup import Parts, build, seeded_task
from drpo.train.threads import LoadWatch, Threads, computing_threads
from drpo.train.token_log import TokenLog
from drpo.train.tracking import start_tracking
from drpo.train.update import update_policy


def train(
    config: TrainConfig,
    run: RunDirectory,
    observer: Observer | None = None,
    resume: bool = False,
    stop_requested: Callable[[], bool] = lambda: False,
    branch: Branch | None = None,
) -> Summary:
    """Run ``config`` in the directory ``run``: from the start, from its newest checkpoint, or from another run's.

    Args:
        config: every setting.
        run: the directory.
        observer: told of everything.
        resume: go on with the run that is there.
        stop_requested: asked after every step; once it says yes, a checkpoint is written and training ends.
        branch: which other run to go on from; ``config`` is its configuration.

    Raises:
        DrpoError: whatever went wrong, with its fix; checkpoints written so far are intact. A run that cannot start
            leaves nothing behind.
    """
    observer = observer or Observer()
    with run.locked(observer.on_note):
        if run.exists() and not resume:
            raise CheckpointError(
                f"{run.path} already holds a run. Continue it with `drpo train --resume {run.path}`, "
                "or choose another --out."
            )
        resumption = find_resumption(config, run, observer.on_note) if resume else None
        if resumption is not None and resumption.step == config.steps and is_finished(run):
            observer.on_note(nothing_left(run, config.steps, resumption.changes))
            return summarize(run, "finished", config.steps)
        before = run if resume else branch and branch.parent
        recorded = before.read_manifest().get("threads") if before else None
        with deterministic_algorithms(), computing_threads(config.threads, recorded) as threads:
            grader = Grader(seeded_task(config), config.grading_time_limit, config.grading_workers)
            with grader.loading():  # beside the model, which takes as long
                return _train(config, run, observer, resumption, branch, stop_requested, threads, grader)


def _train(
    config: TrainConfig,
    run: RunDirectory,
    observer: Observer,
    resumption: Resumption | None,
    branch: Branch | None,
    stop_requested: Callable[[], bool],
    threads: Threads,
    grader: Grader,
) -> Summary:
    """As :func:`train`, with the directory held and the task's processes starting."""
    checkpoint = resumption.checkpoint if resumption else branch and branch.checkpoint
    for note in branch.notes() if branch else ():
        observer.on_note(note)
    trackers = make_trackers(config.trackers)  # a missing package is told before a model is loaded
    parts = build(config, checkpoint, run.engine_log, observer.on_note, grader.task)
    step = parts.progress.step
    if resumption is not None:
        rewind(run, step if checkpoint else -1, observer.on_note)
        manifest = continued_manifest(run.read_manifest(), config, threads.count, run.read_config(), resumption.changes)
    else:
        loss = loss_path(parts.policy, parts.objective, parts.settings.forward)
        manifest = new_manifest(config, parts.policy, loss, parts.memory.as_dict(), branch)
    observer = start_tracking(trackers, config, run, manifest["run_id"], observer, step, resumption is not None)
    if branch is not None:
        branch.copy_checkpoint(run.checkpoints)  # before the run exists: it never does without it
    run.create(config.resolved(), manifest)
    manifest.pop("config_before", None)  # config.yaml is replaced: one copy holds
    run.write_manifest(manifest)

    def end(status: str, failure: str | None = None, found: Outcome | None = None) -> None:
        run.write_manifest(ended_manifest(manifest, status, failure, found))
        observer.on_end(status)

    try:
        with closing(parts.sampler), grader:
            summary = Trainer(config, run, parts, grader, observer, threads).run_steps(stop_requested)
    except KeyboardInterrupt:
        end("interrupted")
        raise
    except WriteError as error:  # the same command goes on once there is room
        end("interrupted", str(error))
        raise
    except Exception as error:
        message = str(error) if isinstance(error, DrpoError) else f"{type(error).__name__}: {error}"
        end("failed", message)
        raise
    end(summary.status, found=summary.outcome)
    return summary


class Trainer:
    """A run in progress: its parts, its records, and how far it is.

    Args:
        config: every setting.
        run: where records and checkpoints go.
        parts: what :func:`drpo.train.setup.build` made of ``config``.
        grader: of the parts' task.
        observer: told of everything.
        threads: what the run computes with.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        parts: Parts,
        grader: Grader,
        observer: Observer | None = None,
        threads: Threads | None = None,
    ):
        self.config, self.run, self.parts, self.grader = config, run, parts, grader
        self.observer = observer or Observer()
        self.threads = threads or Threads(torch.get_num_threads())
        self.progress = parts.progress
        self.signal = LearningSignal(hints_for(run, config.max_new_tokens))
        self.first = run.first_step()
        self.evaluations = run.read_metrics("evaluation")

    def run_steps(self, stop_requested: Callable[[], bool]) -> Summary:
        """The algorithm."""
        config = self.config
        self.observer.on_start(config, self.run, self.progress.step)
        self.say_what_to_expect()
        self.remove_old_checkpoints()  # a killed run may have left some
        if self.progress.step == self.first and not self.evaluations:
            self.evaluate()
        if self.stops_on_collapse():  # killed once it had, or resumed without a change
            return self.summary("interrupted")
        watch = LoadWatch(self.threads.count)
        while self.progress.step < config.steps:
            step = self.progress.step + 1
            rollout = self.roll_out(step)
            records = self.update(rollout, step)
            self.progress = Progress(step, self.progress.updates, self.progress.cursor + rollout.taken)
            self.observer.on_step(records)
            if crowded := watch.after_step(sum(record["tokens"] for record in records)):
                self.observer.on_note(
                    crowded
                    + f"`drpo train --resume {self.run.path} threads={watch.free}`. Later numbers then differ in "
                    "their last bits."
                )
            stopping = stop_requested() and step < config.steps
            if step == config.steps or (config.eval_every and step % config.eval_every == 0):
                self.evaluate()
            stopping = self.stops_on_collapse() or stopping
            if stopping or step == config.steps or step % config.checkpoint_every == 0 or self.is_best(step):
                self.save()
            if stopping:
                return self.summary("interrupted")
        return self.summary("finished")

    def roll_out(self, step: int) -> Rollout:
        """The rollout batch of ``step``, kept on disk as well."""
        config, parts = self.config, self.parts
        examples, taken, left_out = parts.stream.take(self.progress.cursor, config.prompts_per_step)
        if left_out and parts.prompts.training is None:  # else told at the start
            self.observer.on_note(f"step {step}: {len(left_out)} training prompts left out, for example: {left_out[0]}")
        source = parts.rollout_weights.next(Snapshot(step - 1, self.progress.updates, parts.policy.weights()))
        parts.sampler.load_weights(source.weights)
        rollout = replace(
            roll_out(parts.policy, parts.sampler, self.grader, examples, parts.rollout, step),
            lag=step - 1 - source.step,
            updates=source.updates,
            taken=taken,
        )
        self.run.write_rollouts("step", step, [sample.record() for sample in rollout.samples])
        if rollout.failures:
            self.observer.on_note(
                f"step {step}: {len(rollout.failures)} rewards failed and were left out, for "
                f"example: {rollout.failures[0]}"
            )
        if slow := timed_out(rollout.samples):
            self.observer.on_note(
                f"step {step}: {len(slow)} responses took too long to grade and count as wrong, for example: {slow[-1]}"
            )
        for text in self.signal.add(facts_of(rollout)):
            self.observer.on_warning(f"step {step}: {text}")
        return rollout

    def update(self, rollout: Rollout, step: int) -> list[dict[str, Any]]:
        """``updates_per_step`` optimizer steps, each on its own share of the responses; their metrics."""
        config, parts, forward = self.config, self.parts, self.parts.settings.forward
        order = list(range(len(rollout.samples)))
        random.Random(derive_seed(config.seed, "minibatches", step)).shuffle(order)
        log = TokenLog(parts.policy, rollout, step, config, parts.objective) if config.log_tokens else None
        shares = [part.tolist() for part in np.array_split(order, config.updates_per_step) if len(part)]
        started, samples = time.perf_counter(), rollout.samples
        if "proximal_logprobs" in parts.objective.needs:
            samples = with_proximal_logprobs(parts.policy, samples, forward)
        preparing = time.perf_counter() - started
        records: list[dict[str, Any]] = []
        for index, part in enumerate(shares):
            self.set_learning_rate()
            seen: list[TokenBatch] = []

            def on_tokens(
                order: Sequence[int],
                batch: TokenBatch,
                index: int = index,
                part: list[int] = part,
                seen: list[TokenBatch] = seen,
            ) -> None:
                seen.append(batch)
                if log is not None:
                    log.add(index, part, order, batch)

            staleness = self.progress.updates - rollout.updates
            routing = routing_mismatch(parts.policy, [samples[row] for row in part], forward) if index == 0 else {}
            record = routing | update_policy(
                parts.policy,
                parts.optimizer,
                parts.objective,
                [samples[row] for row in part],
                [rollout.advantages[row] for row in part],
                parts.settings,
                on_tokens,
            )
            if step == self.first + 1 and index == 0 and rollout.lag == 0:
                self.observer.on_note(check_mismatch(seen[0], record, config))
            self.progress = Progress(self.progress.step, self.progress.updates + 1, self.progress.cursor)
            training = record.pop("seconds") + preparing / len(shares)
            record = update_record(rollout, step, index, len(shares), {"staleness": staleness, **record}, training)
            self.run.append_metrics(record)
            records.append(record)
        if log is not None:
            self.run.write_tokens(step, log.records)
        return records

    def set_learning_rate(self) -> None:
        """Linear warm-up over ``warmup_updates``, then constant."""
        done, warmup = self.progress.updates, self.config.warmup_updates
        for group in self.parts.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, (done + 1) / (warmup + 1))

    def evaluate(self) -> None:
        """Held-out accuracy at the current weights, recorded under the current step."""
        config, parts, step = self.config, self.parts, self.progress.step
        size = config.evaluation_size(step)
        parts.sampler.load_weights(parts.policy.weights())
        record, samples = evaluate(
            parts.policy,
            parts.sampler,
            self.grader,
            parts.prompts.heldout.examples[: size.examples],
            size.samples,
            config.sampling(),
            config.seed,
        )
        record = {"kind": "evaluation", "step": step, **record}
        self.evaluations.append(record)
        self.run.append_metrics(record)
        self.run.write_rollouts("evaluation", step, [sample.record() for sample in samples])
        self.observer.on_evaluation(record)

    def save(self) -> None:
        """A checkpoint of the current step, beside the newest and the best of those before."""
        parts = self.parts
        path = save_checkpoint(
            self.run.checkpoints, parts.policy, parts.optimizer, self.progress, parts.rollout_weights.kept()
        )
        self.remove_old_checkpoints()
        self.observer.on_checkpoint(path)

    def remove_old_checkpoints(self) -> None:
        """Keep the newest, and the best by held-out accuracy."""
        step = self.progress.step
        best = best_evaluation(self.evaluations, self.checkpoints_before(step + 1))
        kept = None if best is None else best["step"]
        remove_old_checkpoints(self.run.checkpoints, step, self.config.checkpoint_keep, kept)

    def is_best(self, step: int) -> bool:
        """Whether ``step`` was evaluated, as better than every earlier one that has a checkpoint.

        The best of all always has one, as it is saved when it is measured and never removed. So this depends on what
        was measured alone, wherever the run was killed or interrupted.
        """
        best = best_evaluation(self.evaluations, self.checkpoints_before(step) | {step})
        return best is not None and best["step"] == step

    def stops_on_collapse(self) -> bool:
        """Whether the run ends here, as it has collapsed; the user is told. The recorded evaluations alone decide."""
        step = self.progress.step
        due = self.config.stop_on_collapse and step < self.config.steps and bool(self.evaluations)
        if not (due and self.evaluations[-1]["step"] == step and collapsed_run(self.evaluations)):
            return False
        self.observer.on_note(
            f"step {step}: held-out accuracy has collapsed, and stop_on_collapse=true ends the run here. From its best "
            f"step, type `drpo train --from {self.run.path}:best` with what should be different; to go on all the "
            f"same, `drpo train --resume {self.run.path} stop_on_collapse=false`"
        )
        return True

    def checkpoints_before(self, step: int) -> set[int]:
        """The steps before ``step`` that have a checkpoint; later ones are left of a run that went on from before."""
        return {at for at in checkpoint_folders(self.run.checkpoints) if at < step}

    def say_what_to_expect(self) -> None:
        """Tell the user what was left out, what memory the run needs, how exact its forward passes are, of a trust
        region that cannot act, and of what LoRA leaves alone."""
        config, parts = self.config, self.parts
        told = self.threads.note, parts.memory.summary(), parts.policy.passes.summary()
        for note in (*parts.policy.notes, *parts.prompts.notes(), *told):
            if note:
                self.observer.on_note(note)
        if not config.support_replay:
            self.observer.on_warning(
                f"support_replay=false: {config.sampling().truncation} renormalizes μ over the tokens that are kept, "
                "and π is not, so that every ratio π/μ is biased below 1. This is for studies of that bias: leave it "
                "out to train."
            )
        if warning := parts.memory.warning():
            self.observer.on_note(warning)
        if is_adapted(parts.policy.model):
            self.observer.on_note(describe_adapter(parts.policy.model))
        if config.updates_per_step == 1 and config.shares_model:
            self.observer.on_note(
                "updates_per_step=1: every token is trained once, at the weights that sampled it, so r ≡ 1 up to "
                "rounding and no trust region (of any objective) acts. Raise updates_per_step to see a difference."
            )

    def summary(self, status: str) -> Summary:
        """How the run stands."""
        return summarize(self.run, status, self.progress.step)
