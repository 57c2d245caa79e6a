"""Run verl's training loop on the CPU, as a subprocess that leaves nothing behind.

python tests/hosts/verl_e2e/verl_cpu_run.py OUT [key=value …]       # more overrides of verl's configuration
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import verl_cpu_assets

HERE = Path(__file__).resolve().parent
PROMPTS_PER_STEP, GROUP_SIZE = 16, 8
SEQUENCES_PER_STEP = PROMPTS_PER_STEP * GROUP_SIZE
PROMPTS_PER_UPDATE, SEQUENCES_PER_MICRO_BATCH = 4, 16
LOSS_CALLS_PER_UPDATE = PROMPTS_PER_UPDATE * GROUP_SIZE // SEQUENCES_PER_MICRO_BATCH
LOSS_CALLS_PER_STEP = SEQUENCES_PER_STEP // SEQUENCES_PER_MICRO_BATCH
#: Tokens of a response at most; the sums take about 20.
HORIZON = 48

#: What :mod:`verl_recorder` writes into the run's directory.
LOSS_CALLS, RESPONSES = "loss_calls.jsonl", "responses.jsonl"

ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "verl_cpu_platform",
    "VERL_PLATFORM": "cpu",
    "VERL_ENGINE_DEVICE": "cuda",  # engines are registered for accelerators only
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",  # compiling vLLM's sampler takes longer than sampling, and a C++ compiler
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HYDRA_FULL_ERROR": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for one machine: every address is the loopback's
}

OVERRIDES = {
    "trainer.device": "cpu",
    "trainer.n_gpus_per_node": 1,  # logical ones
    "trainer.nnodes": 1,
    "trainer.logger": "[console,file]",
    "trainer.val_before_train": False,
    "trainer.test_freq": -1,
    "trainer.save_freq": -1,
    "trainer.resume_mode": "disable",
    "trainer.v1.sampler.custom_sampler.path": HERE / "verl_cpu_sampler.py",
    "trainer.v1.sampler.custom_sampler.name": "EagerReplayBuffer",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "+ray_kwargs.ray_init.include_dashboard": False,
    "+ray_kwargs.ray_init.num_gpus": 1,
    "+ray_kwargs.ray_init.object_store_memory": 256 * 2**20,
    "ray_kwargs.ray_init.num_cpus": 16,  # logical: actors that wait
    "data.train_batch_size": PROMPTS_PER_STEP,
    "data.max_prompt_length": 32,
    "data.max_response_length": HORIZON,
    "data.dataloader_num_workers": 0,
    "data.seed": 1,
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": False,
    "reward.num_workers": 1,
    "reward.custom_reward_function.path": HERE / "verl_cpu_reward.py",
    "actor_rollout_ref.model.use_remove_padding": False,  # needs flash attention
    "actor_rollout_ref.model.enable_gradient_checkpointing": False,
    "actor_rollout_ref.model.external_lib": "verl_recorder",
    "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.actor.strategy": "fsdp2",  # the first FSDP asks for an accelerator
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision": "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "actor_rollout_ref.actor.fsdp_config.dtype": "float32",
    "actor_rollout_ref.actor.ppo_mini_batch_size": PROMPTS_PER_UPDATE,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": SEQUENCES_PER_MICRO_BATCH,
    "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",
    "actor_rollout_ref.actor.loss_scale_factor": HORIZON,
    "actor_rollout_ref.actor.optim.lr": 2e-4,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.n": GROUP_SIZE,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": SEQUENCES_PER_MICRO_BATCH,  # verl wants a number
    "actor_rollout_ref.rollout.dtype": "float32",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.enforce_eager": True,
    "actor_rollout_ref.rollout.free_cache_engine": False,
    "+actor_rollout_ref.rollout.enable_sleep_mode": False,  # like the line above, vLLM's for CUDA only
    "actor_rollout_ref.rollout.max_model_len": 128,  # this and what follows: small, to save memory and processes
    "actor_rollout_ref.rollout.max_num_seqs": 128,
    "actor_rollout_ref.rollout.max_num_batched_tokens": 2048,
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 64,
    "actor_rollout_ref.rollout.agent.num_workers": 1,
    "actor_rollout_ref.rollout.agent.default_agent_loop": "recorded",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path": HERE / "recorded_agent_loop.yaml",
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls": "verl_cpu_vllm.CpuWorkerExtension",
}


@dataclass(frozen=True)
class Run:
    """What a finished run left in its directory."""

    directory: Path
    seconds: float

    @property
    def loss_calls(self) -> list[dict[str, Any]]:
        """Every call of the policy loss, in order."""
        return self._lines(LOSS_CALLS)

    @property
    def responses(self) -> list[dict[str, Any]]:
        """Every response as the rollout engine returned it, in order."""
        return self._lines(RESPONSES)

    @property
    def metrics(self) -> dict[int, dict[str, float]]:
        """Step → what verl logged."""
        return {entry["step"]: entry["data"] for entry in self._lines("metrics.jsonl")}

    @property
    def output(self) -> str:
        """stdout and stderr."""
        return (self.directory / "output.txt").read_text(errors="replace")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        file = self.directory / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def train(
    directory: Path, overrides: dict[str, Any], *, environment: dict[str, str] | None = None, time_limit: float = 1200
) -> Run:
    """`python -m verl.trainer.main_ppo` with these overrides on top of :data:`OVERRIDES`.

    Raises:
        RuntimeError: it failed or took more than ``time_limit`` seconds; with the end of its output.
    """
    directory.mkdir(parents=True)
    given = (
        OVERRIDES
        | {
            "actor_rollout_ref.model.path": verl_cpu_assets.save_model(directory / "base"),
            "data.train_files": verl_cpu_assets.save_prompts(directory / "train.parquet", 4096, seed=0),
            "data.val_files": verl_cpu_assets.save_prompts(directory / "heldout.parquet", 16, seed=1),
            "trainer.default_local_dir": directory / "checkpoints",
            "hydra.run.dir": directory / "hydra",
        }
        | overrides
    )
    stub = verl_cpu_assets.save_distribution_of_vllm(directory / "distributions")
    variables = (
        os.environ
        | ENVIRONMENT
        | {
            "PYTHONPATH": os.pathsep.join([str(HERE), str(stub), os.environ.get("PYTHONPATH", "")]),
            "VERL_FILE_LOGGER_PATH": str(directory / "metrics.jsonl"),
            "VERL_RECORD_DIR": str(directory),
        }
        | (environment or {})
    )
    # Ray's sockets need a short path.
    with _alone(), tempfile.TemporaryDirectory(prefix="verl-", ignore_cleanup_errors=True) as scratch:
        started = time.monotonic()
        given["+ray_kwargs.ray_init._temp_dir"] = scratch
        command = [sys.executable, "-m", "verl.trainer.main_ppo", *(f"{k}={v}" for k, v in given.items())]
        status = run_and_clear(command, directory / "output.txt", variables | {"TMPDIR": scratch}, time_limit)
        run = Run(directory, time.monotonic() - started)
    if status != 0:
        why = f"took more than {time_limit:.0f} s" if status is None else f"ended with status {status}"
        raise RuntimeError(f"verl {why}. The end of {directory / 'output.txt'}:\n{run.output[-12000:]}")
    return run


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for another run on this machine: both would send their weights through the same socket.

    verl names it after the job's number, which is the same in every fresh Ray cluster.
    """
    with Path(f"/tmp/drpo-verl-cpu-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_and_clear(command: Sequence[str], output: Path, variables: dict[str, str], limit: float) -> int | None:
    """Exit status, None after ``limit`` seconds; all processes of the command are gone afterwards, and their memory."""
    started = time.time()
    with output.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=variables, cwd=output.parent, start_new_session=True
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill_session(process.pid)
            process.wait()
            _unlink_orphaned_memory(started)


def _kill_session(session: int) -> None:
    """Ray's daemons and vLLM's engine outlive a driver that died, but stay in its session."""
    for _ in range(100):
        left = list(members_of_session(session))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def members_of_session(session: int) -> Iterator[int]:
    """Its living processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name, in brackets, may hold blanks; after it come state, parent, group, session.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    yield int(entry.name)


def _unlink_orphaned_memory(since: float) -> None:
    """Drop Python's shared memory that is younger than ``since`` (seconds of the epoch) and that no process maps.

    Ray ends its actors with SIGKILL, so that vLLM's message queues, 400 MB, stay behind after every run.
    """
    mapped = ""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                mapped += (entry / "maps").read_text(errors="replace")
    for segment in Path("/dev/shm").glob("psm_*"):
        with contextlib.suppress(OSError):
            seen = segment.stat()
            if seen.st_uid == os.getuid() and seen.st_mtime >= since and str(segment) not in mapped:
                segment.unlink()


def main() -> None:
    """The command line."""
    directory, *pairs = sys.argv[1:]
    run = train(Path(directory).resolve(), dict(pair.split("=", 1) for pair in pairs), time_limit=3600)
    for step, logged in run.metrics.items():
        sys.stdout.write(f"step {step}: reward {logged['critic/score/mean']:.3f}\n")
    sys.stdout.write(f"{run.seconds:.0f} s\n")


if __name__ == "__main__":
    main()
