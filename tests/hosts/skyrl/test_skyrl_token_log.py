"""`drpo inspect` on a batch of SkyRL's own type, written as docs/inspect.md shows."""

from __future__ import annotations

from pathlib import Path

import torch
from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch

from drpo.integrations.parity import fixed_batch
from support.token_logs import same_figures


def test_a_training_batch_is_read(tmp_path: Path) -> None:
    padded = fixed_batch()
    mask = padded.mask.float()
    advantages = torch.broadcast_to(padded.advantages.reshape(len(mask), -1), mask.shape).contiguous()
    prompt = torch.ones(len(mask), 2)
    batch = TrainingInputBatch(
        {
            "sequences": torch.ones(len(mask), 2 + mask.shape[1], dtype=torch.long),
            "attention_mask": torch.cat([prompt, mask], 1).long(),
            "loss_mask": mask,
            "response_mask": mask.long(),
            "action_log_probs": padded.logprobs.detach().float(),
            "rollout_logprobs": padded.behavior_logprobs.float(),
            "advantages": advantages.float(),
            "rewards": torch.zeros_like(mask),
        }
    )
    batch.save(str(tmp_path / "step-1.pkl"))
    loaded = TrainingInputBatch().load(str(tmp_path / "step-1.pkl"))
    columns = {name: values for name, values in loaded.items() if isinstance(values, torch.Tensor)}
    torch.save(columns, tmp_path / "step-1.pt")
    assert same_figures(tmp_path / "step-1.pt", padded, tmp_path) == "SkyRL's training batch"
