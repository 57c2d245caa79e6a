"""Kill training runs at random moments, resume them, and compare with the run that was left alone.

    python -m tools.kill_and_resume --runs 20
    python -m tools.kill_and_resume --runs 5 precision=fp8 rollout_lag=2
    python -m tools.kill_and_resume --runs 5 threads=1 steps=20

Every run is killed with SIGKILL, every third one inside a checkpoint write, resumed (and killed again, half of the
time), and must end with the same metrics (timings aside), the same weights and the same optimizer state, bit for
bit. Exit status 0 if all do.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import runpy
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from drpo.cpus import wait_briefly
from drpo.run_checkpoints import checkpoint_folders
from drpo.run_directory import RunDirectory
from drpo.train.checkpoint_schema import read_state

#: Batches of the default size on two threads, where the order of sums could differ; few of them, and few evaluations.
SETTINGS = [
    "steps=6",
    "threads=2",
    "checkpoint_every=2",
    "eval_every=3",
    "eval_examples=16",
    "eval_samples=1",
    "device=cpu",
]


FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["drpo.cli.train", "transformers.models.qwen3.modeling_qwen3", "reasoning_gym"])


def arguments_of(directory: Path) -> list[str]:
    """Start the run, or continue it if it exists."""
    begin = [*SETTINGS, "--out", str(directory)]
    again = ["--resume", str(directory)]
    return ["train", *(again if (directory / "config.yaml").exists() else begin)]


def drpo(arguments: list[str], said: str) -> None:
    """`drpo ARGUMENTS`; its errors go to the file ``said``."""
    with open(os.devnull, "w") as nothing, open(said, "w") as errors:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    sys.argv = ["drpo", *arguments]
    runpy.run_module("drpo", run_name="__main__", alter_sys=True)


def start(directory: Path) -> ForkServerProcess:
    """The run as a process of its own, forked from one that has loaded what it loads."""
    process = FORKED.Process(target=drpo, args=(arguments_of(directory), f"{directory}.err"))
    process.start()
    return process


def finish(directory: Path) -> None:
    """Run to the end; a failure shows what the process said."""
    process = start(directory)
    process.join()
    if process.exitcode:
        sys.exit(f"{directory}: exit status {process.exitcode}\n{Path(f'{directory}.err').read_text()}")


def kill_after(directory: Path, seconds: float) -> None:
    """SIGKILL after some time, wherever that is."""
    process = start(directory)
    process.join(seconds)
    process.kill()
    process.join()


def half_written(directory: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    try:
        return any((directory / "checkpoints").glob(".writing-*/*"))
    except FileNotFoundError:  # the folder got its final name between the two looks of the glob
        return False


def kill_in_checkpoint_write(directory: Path, skip: int) -> bool:
    """SIGKILL once the ``skip``-th checkpoint from now is half written; whether that succeeded."""
    process = start(directory)
    writing = False
    while process.is_alive():
        now = half_written(directory)
        if now and not writing:
            skip -= 1
            if skip < 0:
                process.kill()
                break
        writing = now
        time.sleep(0.0005)
    process.join()
    return any((directory / "checkpoints").glob(".writing-*"))


def outcome(directory: Path) -> dict[str, object]:
    """What must be equal: metrics without timings, and of every checkpoint that is kept (the newest ones and the best)
    the trainer's state and the bytes of the tensors.

    Metrics have the names of this version, and no schema number, so that versions can be compared.
    """
    metrics = [{k: v for k, v in record.items() if k != "timing"} for record in RunDirectory(directory).read_metrics()]
    found: dict[str, object] = {"metrics": metrics}
    for folder in checkpoint_folders(directory / "checkpoints").values():
        found[folder.name] = read_state(folder / "trainer_state.json").model_dump(exclude={"schema"})
        for file in folder.glob("*.safetensors"):
            found[f"{folder.name}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def main() -> None:
    """Do it and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of the runs, besides their own")
    arguments = parser.parse_args()
    SETTINGS.extend(arguments.settings)
    wait_briefly()  # as the command does before it loads torch
    draw = random.Random(arguments.seed)
    inside = different = kills = 0
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "uninterrupted"
        began = time.monotonic()
        finish(reference)
        whole = time.monotonic() - began
        expected = outcome(reference)
        for run in range(arguments.runs):
            directory = Path(folder) / f"run-{run}"
            for _ in range(draw.choice([1, 2])):
                kills += 1
                if run % 3 == 0:
                    inside += kill_in_checkpoint_write(directory, draw.randrange(3))
                else:
                    kill_after(directory, draw.uniform(0.3, 1.0) * whole)
            finish(directory)
            same = outcome(directory) == expected
            different += not same
            print(f"run {run}: {'identical' if same else 'DIFFERENT'}", flush=True)
    print(
        f"{arguments.runs} runs, {kills} kills, {inside} inside a checkpoint write, {different} differ "
        f"(one uninterrupted run: {whole:.1f} s)"
    )
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
