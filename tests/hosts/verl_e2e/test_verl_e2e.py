"""verl's own loop, on the CPU, with our plug-in as its policy loss: `make test-verl-e2e`, about five minutes.

Nothing of verl, Ray, FSDP or vLLM is mocked; docs/integrations/verl-cpu.md says what makes them run without a GPU.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import verl_cpu_run
from verl_cpu_run import LOSS_CALLS_PER_STEP, LOSS_CALLS_PER_UPDATE, SEQUENCES_PER_STEP, Run, train

#: The configuration that docs/integrations/verl.md tells users to add.
PLUG_IN = {"hydra.searchpath": "[pkg://drpo.integrations.verl_presets]", "+drpo": "rollout_anchored"}
OBJECTIVE = "actor_rollout_ref.actor.policy_loss.objective"
LEARNING_RATE = "actor_rollout_ref.actor.optim.lr"
STEPS, RESUMED_STEPS, SHORT_STEPS = 12, 2, 2
#: Mean reward of the shipped base, and how much more the last four steps must give. Six runs, three seeds, gave 0.36
#: to 0.49 more; a loss multiplied by 0 gave 0.02 more and one multiplied by -1 gave 0.36 less.
BASE_REWARD = 0.38
LEAST_RISE = 0.2
#: |log π − log μ| in nats: the most that two engines with the same weights differ by, and the least that the last
#: update of a step has to show. Measured: 2e-5, and 0.007 to 8.7; a step whose groups agree in their rewards moves the
#: policy by Adam's momentum alone.
SAME_POLICY, OTHER_POLICY = 1e-4, 1e-3
#: The same of the step that moves most.
MOST_MOVED = 1e-2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run under DRPO that saved its last step."""
    settings = {"trainer.total_training_steps": STEPS, "trainer.save_freq": STEPS}
    return train(tmp_path_factory.mktemp("drpo") / "run", PLUG_IN | settings)


def rewards(run: Run) -> list[float]:
    return [logged["critic/score/mean"] for _, logged in sorted(run.metrics.items())]


def last_reward(run: Run) -> float:
    return sum(rewards(run)[-4:]) / 4


def check_what_the_loss_was_given(run: Run, objective: str, steps: int) -> list[dict[str, Any]]:
    """The calls of the loss, once it is certain that they are all there and that each was given the rollout's μ."""
    calls, responses = run.loss_calls, run.responses
    assert len(calls) == steps * LOSS_CALLS_PER_STEP
    assert {(call["loss_mode"], call["objective"]) for call in calls} == {("drpo", objective)}
    assert len(responses) == steps * SEQUENCES_PER_STEP
    moved = []
    for step in range(steps):
        # verl may shuffle a step's responses over its updates, so they are compared as a set.
        given = [row for call in of_step(calls, step, LOSS_CALLS_PER_STEP) for row in call["old_logprobs"]]
        sampled = [response["logprobs"] for response in of_step(responses, step, SEQUENCES_PER_STEP)]
        assert sorted(given) == sorted(sampled)
        changes = [call["largest_log_ratio"] for call in of_step(calls, step, LOSS_CALLS_PER_STEP)]
        assert max(changes[:LOSS_CALLS_PER_UPDATE]) < SAME_POLICY
        moved.append(max(changes[-LOSS_CALLS_PER_UPDATE:]))
    assert min(moved) > OTHER_POLICY and max(moved) > MOST_MOVED, moved
    return calls


def of_step(entries: list[dict[str, Any]], step: int, count: int) -> list[dict[str, Any]]:
    return entries[step * count : (step + 1) * count]


def test_drpo_trains_in_verl(trained: Run):
    assert list(trained.metrics) == list(range(1, STEPS + 1))
    assert last_reward(trained) - BASE_REWARD > LEAST_RISE, rewards(trained)
    calls = check_what_the_loss_was_given(trained, "drpo", STEPS)
    assert not any(call["masked_share"] for call in calls)  # DRPO weighs every token


def test_a_run_resumes_where_it_was_saved(trained: Run, tmp_path: Path):
    settings = {
        "trainer.total_training_steps": STEPS + RESUMED_STEPS,
        "trainer.default_local_dir": trained.directory / "checkpoints",
        "trainer.resume_mode": "auto",
    }
    resumed = train(tmp_path / "run", PLUG_IN | settings)
    assert list(resumed.metrics) == [STEPS + 1 + step for step in range(RESUMED_STEPS)]
    check_what_the_loss_was_given(resumed, "drpo", RESUMED_STEPS)
    assert rewards(resumed)[0] > (BASE_REWARD + last_reward(trained)) / 2, (rewards(trained), rewards(resumed))


@pytest.mark.parametrize("objective", ["dppo_tv", "grpo"])
def test_other_objectives_train_in_verl(objective: str, tmp_path: Path):
    settings = {OBJECTIVE: objective, LEARNING_RATE: 5e-4, "trainer.total_training_steps": SHORT_STEPS}
    run = train(tmp_path / "run", PLUG_IN | settings)
    calls = check_what_the_loss_was_given(run, objective, SHORT_STEPS)
    # A mask drops tokens once the policy has moved, never before.
    first = [
        call["masked_share"]
        for step in range(SHORT_STEPS)
        for call in of_step(calls, step, LOSS_CALLS_PER_STEP)[:LOSS_CALLS_PER_UPDATE]
    ]
    assert not any(first)
    assert any(call["masked_share"] for call in calls)
    assert all(logged["actor/grad_norm"] > 0 for logged in run.metrics.values())


def test_a_refusal_of_ours_ends_the_run_with_its_message(tmp_path: Path):
    with pytest.raises(RuntimeError, match=r"rollout\.top_p=0\.9 cuts the distribution"):
        train(tmp_path / "run", PLUG_IN | {"actor_rollout_ref.rollout.top_p": 0.9})


def test_a_run_that_takes_too_long_leaves_no_process(tmp_path: Path):
    # It leaves a grandchild whose parent is gone, as Ray's daemons are.
    child = "import os, time; print(os.getsid(0), flush=True); os.fork() or os.fork() and os._exit(0); time.sleep(600)"
    started = time.monotonic()
    output = tmp_path / "output.txt"
    assert verl_cpu_run.run_and_clear([sys.executable, "-c", child], output, {}, limit=2) is None
    assert time.monotonic() - started < 30
    assert not list(verl_cpu_run.members_of_session(int(output.read_text())))
