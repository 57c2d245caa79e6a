"""Checkpoints: exact, verified, atomic."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from drpo.errors import CheckpointError
from drpo.model.policy import Policy, load_policy
from drpo.train import checkpoint as module
from drpo.train.checkpoint import Progress, find_checkpoint, remove_old_checkpoints, restore, save_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def policy(copyist: Path) -> Policy:
    return load_policy(str(copyist), torch.device("cpu"))


def optimizer_of(policy: Policy) -> torch.optim.AdamW:
    return torch.optim.AdamW(policy.model.parameters(), lr=1e-2)


def take_step(policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.randint(0, 10, (4, 6))
    policy.model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def weights(policy: Policy) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in policy.model.parameters()]


def test_restored_training_goes_on_bit_for_bit(tmp_path: Path, policy: Policy) -> None:
    optimizer = optimizer_of(policy)
    torch.manual_seed(5)
    take_step(policy, optimizer)
    random.seed(1)
    np.random.seed(2)
    path = save_checkpoint(tmp_path, policy, optimizer, Progress(3, 12, 48))
    drawn = (torch.rand(3).tolist(), random.random(), np.random.rand())
    torch.set_rng_state(torch.Generator().manual_seed(9).get_state())
    take_step(policy, optimizer)

    again = load_policy(str(path), torch.device("cpu"))
    optimizer_again = optimizer_of(again)
    assert restore(path, optimizer_again) == Progress(3, 12, 48)
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == drawn
    torch.set_rng_state(torch.Generator().manual_seed(9).get_state())
    take_step(again, optimizer_again)
    assert all(torch.equal(a, b) for a, b in zip(weights(policy), weights(again), strict=True))


def test_a_checkpoint_is_a_hugging_face_directory(tmp_path: Path, policy: Policy) -> None:
    path = save_checkpoint(tmp_path, policy, optimizer_of(policy), Progress(6))
    files = {file.name for file in path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "optimizer.safetensors", "checksums.json"} <= files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)  # nothing that would be unpickled


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(2, None, [6, 8]), (2, 2, [2, 6, 8]), (1, 4, [4, 8]), (2, 6, [6, 8]), (3, 8, [4, 6, 8]), (9, 2, [2, 4, 6, 8])],
)
def test_the_newest_and_the_best_are_kept(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    """A later one belongs to a run that was resumed from before it: it stays, and is not among the newest."""
    for name in ("step-000002", "step-000004", "step-000006", "step-000008", "step-000010", "step-000001-mine"):
        (tmp_path / name).mkdir()
    remove_old_checkpoints(tmp_path, 8, keep, best)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(f"step-{step:06d}" for step in left), "step-000010", "step-000001-mine"]
    )


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no checksums"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, policy: Policy, damage: str) -> None:
    optimizer = optimizer_of(policy)
    first = save_checkpoint(tmp_path, policy, optimizer, Progress(1))
    newest = save_checkpoint(tmp_path, policy, optimizer, Progress(2))
    file = newest / "model.safetensors"
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "remove":
        file.unlink()
    else:
        (newest / "checksums.json").write_text("{")
    notes: list[str] = []
    assert find_checkpoint(tmp_path, notes.append) == first
    assert len(notes) == 1 and "step-000002 is damaged" in notes[0] and "falling back" in notes[0]


def test_all_damaged_is_an_error_and_none_is_none(tmp_path: Path, policy: Policy) -> None:
    assert find_checkpoint(tmp_path, print) is None
    path = save_checkpoint(tmp_path, policy, optimizer_of(policy), Progress(1))
    (path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"every checkpoint under .* is damaged .*Restore one"):
        find_checkpoint(tmp_path, lambda text: None)


def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = optimizer_of(policy)
    first = save_checkpoint(tmp_path, policy, optimizer, Progress(1))

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", no_space)
    with pytest.raises(CheckpointError, match=r"No space left on device. Free space .*earlier checkpoints are intact"):
        save_checkpoint(tmp_path, policy, optimizer, Progress(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert find_checkpoint(tmp_path, print) == first


def test_an_unfinished_write_is_ignored_and_cleaned_up(tmp_path: Path, policy: Policy) -> None:
    (tmp_path / ".writing-step-000001").mkdir()
    (tmp_path / ".writing-step-000001" / "model.safetensors").write_bytes(b"half")
    assert find_checkpoint(tmp_path, print) is None
    save_checkpoint(tmp_path, policy, optimizer_of(policy), Progress(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, policy: Policy) -> None:
    optimizer = optimizer_of(policy)
    take_step(policy, optimizer)
    path = save_checkpoint(tmp_path, policy, optimizer, Progress(1))
    other = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
    with pytest.raises(CheckpointError, match=r"does not fit this model"):
        restore(path, other)


def test_state_is_plain_json(tmp_path: Path, policy: Policy) -> None:
    path = save_checkpoint(tmp_path, policy, optimizer_of(policy), Progress(3, 12, 48))
    state = json.loads((path / "trainer_state.json").read_text())
    assert (state["step"], state["updates"], state["cursor"]) == (3, 12, 48)
