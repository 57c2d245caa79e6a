"""The gradient of one update on fixed responses, from however many processes this is started in.

python -m torch.distributed.run --nproc-per-node 2 trl_two_processes.py OUT.pt PER_DEVICE_BATCH ACCUMULATION
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import TrainerCallback
from trl_runs import make_config, make_trainer

RESPONSES = 8
#: One that is not linear in the batch's shape each; the entropy bonus rides along where TRL's log-probabilities do.
CASES = [
    {"aggregation": "token_mean", "objective": "drpo"},
    {"aggregation": "token_mean", "objective": "drpo", "entropy_coef": 0.05},
    {"aggregation": "sequence_mean", "objective": "gspo"},
    {"aggregation": "sequence_sum", "objective": "cppo"},
]


def fixed_rollouts(prompts: list[str], trainer: Any) -> dict[str, list]:
    """The same eight ragged responses, μ made up, however the rows are spread over processes."""
    generator = torch.Generator().manual_seed(3)
    tokens = [torch.randint(3, 13, (n,), generator=generator).tolist() for n in (8, 1, 5, 3, 8, 2, 6, 4)]
    logprobs = [(-4 * torch.rand(len(ids), generator=generator)).tolist() for ids in tokens]
    first = trainer.accelerator.process_index * len(prompts)
    rows = slice(first, first + len(prompts))
    prompt_ids = trainer.processing_class(text=list(prompts))["input_ids"]
    return {"prompt_ids": prompt_ids, "completion_ids": tokens[rows], "logprobs": logprobs[rows]}


class KeepGradient(TrainerCallback):
    """Remembers the gradient of the first update, all parameters in one."""

    gradient: torch.Tensor | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.gradient is None:
            self.gradient = torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def update(case: dict[str, Any], per_device: int, accumulation: int) -> tuple[torch.Tensor, dict[str, float]]:
    """The update's gradient and what was logged of it."""
    keeper = KeepGradient()
    trainer = make_trainer(
        make_config(
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=accumulation,
            mismatch_limit=1e9,
            num_generations=RESPONSES,
            num_iterations=2,
            max_grad_norm=0.0,
            **case,
        ),
        rollout_func=fixed_rollouts,
        callbacks=[keeper],
    )
    trainer.train()
    assert keeper.gradient is not None
    assert (trainer.loss_path == "fused") == ("entropy_coef" not in case)
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return keeper.gradient, {k: v for k, v in logged.items() if k.startswith("drpo/") or k == "entropy"}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = [update(case, int(sys.argv[2]), int(sys.argv[3])) for case in CASES]
    if torch.distributed.get_rank() == 0:
        torch.save((found, torch.distributed.get_backend()), sys.argv[1])
    # A process that leaves while the other still talks to it, or with gloo's threads alive, may abort at its exit.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
