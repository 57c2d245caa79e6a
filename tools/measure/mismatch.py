"""Measure |π − μ| of each source of mismatch, and write results/mismatch/<source>.json.

    python -m tools.measure.mismatch              # every source but vLLM
    python -m tools.measure.mismatch vllm         # where vLLM is installed (make test-vllm makes such a place)

Each source is one `drpo train` with a token log. Nothing else is read.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drpo.bench.support import CUTS
from drpo.diagnostics import quantile
from drpo.divergence import binary_tv
from tools import RESULTS

FOLDER = RESULTS / "mismatch"
#: Bins of μ.
EDGES = (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
#: What every run has, so that sources differ in nothing else. One update, but where staleness is the source.
COMMON = {
    "task": "word_problems",
    "task.min_steps": 2,
    "task.max_steps": 2,
    "prompts_per_step": 64,
    "group_size": 8,
    "max_new_tokens": 64,
    "seed": 0,
    "eval_every": 0,
    "eval_examples": 8,
    "eval_samples": 1,
    "updates_per_step": 1,
    "learning_rate": 1e-4,
    "log_tokens": "true",
}


@dataclass(frozen=True)
class Source:
    """What a run does, and which of its tokens are looked at."""

    settings: dict[str, Any]
    model: str = "embedded:dense"
    steps: int = 1
    update: int = 0

    def overrides(self) -> list[str]:
        """Of `drpo train`."""
        values = {"model": self.model, **COMMON, "steps": self.steps, **self.settings}
        return [f"{key}={value}" for key, value in values.items()]


#: End of the label of a source that leaves π over the whole vocabulary.
WITHOUT = ", without replay"
STALE = {"updates_per_step": 16}
#: Group → label → source.
SOURCES: dict[str, dict[str, Source]] = {
    "precision": {
        "fp32": Source({}),
        "bf16 rollouts": Source({"rollout_precision": "bf16"}),
        "fp8 rollouts": Source({"rollout_precision": "fp8"}),
        "bf16 in both": Source({"precision": "bf16", "rollout_precision": "bf16"}),
        "fp8 in both": Source({"precision": "fp8", "rollout_precision": "fp8"}),
    },
    "precision_moe": {
        "fp32": Source({}, "embedded:moe"),
        "bf16 rollouts": Source({"rollout_precision": "bf16"}, "embedded:moe"),
        "fp8 rollouts": Source({"rollout_precision": "fp8"}, "embedded:moe"),
        "fp8 in both": Source({"precision": "fp8", "rollout_precision": "fp8"}, "embedded:moe"),
    },
    "staleness": {
        "after 1 update": Source(STALE, update=1),
        "after 4 updates": Source(STALE, update=4),
        "after 15 updates": Source(STALE, update=15),
    },
    "lag": {
        "1 step behind": Source({"updates_per_step": 4, "rollout_lag": 1}, steps=6),
        "4 steps behind": Source({"updates_per_step": 4, "rollout_lag": 4}, steps=6),
    },
    "truncation": {
        f"{label}{ending}": Source({**settings, **replay})
        for label, settings in CUTS.items()
        for ending, replay in (("", {}), (WITHOUT, {"support_replay": "false"}))
        if settings or not replay
    },
    "vllm": {
        "vLLM, fp32": Source({"sampler": "vllm"}),
        "vLLM, bf16": Source({"sampler": "vllm", "rollout_precision": "bf16"}),
    },
}


def measure(source: Source) -> dict[str, Any]:
    """Run it, and compare π and μ over the tokens of its last step."""
    command = ["train", *source.overrides()]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        program = [sys.executable, "-m", "drpo", *command, "--out", str(run)]
        done = subprocess.run(program, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        log, behavior = tokens(run / "tokens" / f"step-{source.steps:06d}.jsonl", source.update)
    return {"command": "drpo " + " ".join(command), "update": source.update, **compare(log, behavior)}


def tokens(file: Path, update: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log π and log μ, ``[N]`` each, of the tokens that ``update`` trained on."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = [record for record in records if record["update"] == update]
    return (
        torch.cat([torch.tensor(record["logprobs"]) for record in chosen]),
        torch.cat([torch.tensor(record["behavior_logprobs"]) for record in chosen]),
    )


def compare(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> dict[str, Any]:
    """|π − μ| and |log π − log μ| of ``[N]`` tokens, over all and by bin of μ."""
    which = torch.bucketize(behavior_logprobs.double().exp(), torch.tensor(EDGES[1:-1], dtype=torch.float64))
    bins = []
    for index, (above, up_to) in enumerate(itertools.pairwise(EDGES)):
        here = which == index
        bins.append({"above": above, "up_to": up_to, **distances(logprobs[here], behavior_logprobs[here])})
    return {**distances(logprobs, behavior_logprobs), "bins": bins}


def distances(logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> dict[str, Any]:
    """Of ``[N]`` tokens; None where there are none. ``ratio`` and ``signed_shift`` are the means of π/μ and π − μ."""
    found: dict[str, Any] = {"tokens": len(logprobs)}
    policy, behavior = logprobs.double().exp(), behavior_logprobs.double().exp()
    for name, values in (
        ("shift", binary_tv(logprobs, behavior_logprobs)),
        ("mismatch", (logprobs - behavior_logprobs).abs()),
    ):
        some = len(values) > 0
        found |= {name: float(values.mean()) if some else None, f"{name}_p99": quantile(values, 0.99) if some else None}
        found[f"{name}_max"] = float(values.max()) if some else None
    found["ratio"] = float((logprobs - behavior_logprobs).double().exp().mean()) if len(logprobs) else None
    found["signed_shift"] = float((policy - behavior).mean()) if len(logprobs) else None
    return found


def main() -> None:
    """Write a file for each group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in SOURCES if name != "vllm"]
    parser.add_argument("groups", nargs="*", default=known, help=f"of {', '.join(SOURCES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for group in parser.parse_args().groups:
        rows = {}
        for label, source in SOURCES[group].items():
            rows[label] = measure(source)
            print(f"{group}: {label}: mean |π − μ| {rows[label]['shift']:.1e}, p99 {rows[label]['shift_p99']:.1e}")
        machine = {"date": datetime.date.today().isoformat(), "torch": torch.__version__}
        text = json.dumps({"machine": machine, "sources": rows}, indent=1)
        (FOLDER / f"{group}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
