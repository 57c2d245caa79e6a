"""A training loop with a common fault: it samples at one temperature and computes log π at another.

The sampler divides the logits by 0.7 and returns log μ of that distribution, as it should. The trainer forgets the
temperature, so that its log π belongs to 1.0: π and μ differ before any update, and every ratio is wrong. `drpo train`
does not do this, and ``drpo.start_check`` stops such a loop at its first batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

import drpo
from drpo.model.forward import Sequences
from drpo.model.policy import Policy, load_policy
from drpo.rollouts import Request, SamplingParameters
from drpo.rollouts.in_process import InProcessSampler
from drpo.tasks import make_task

STEPS, PROMPTS, GROUP, UPDATES, MICRO_BATCH = 6, 8, 8, 2, 8
SAMPLING = SamplingParameters(temperature=0.7, max_new_tokens=24)
TRAINED_AT = 1.0


def run(model: Path, tokens: Path) -> None:
    """Train the chat model in the directory ``model`` on sums, on one thread, and write the token log ``tokens``."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy, task = load_policy(str(model), torch.device("cpu")), make_task("sums")
    sampler = InProcessSampler(policy.model, policy.stop_ids)
    optimizer = torch.optim.AdamW(policy.trained_parameters(), lr=1e-5)
    with drpo.TokenLog(tokens, tokenizer=policy.tokenizer, limit=None) as log:
        for step in range(1, STEPS + 1):
            examples = [task.training_example(0, PROMPTS * step + row) for row in range(PROMPTS)]
            prompts = [policy.encode(example.prompt) for example in examples]
            requests = [Request(prompt, GROUP, 1000 * step + row) for row, prompt in enumerate(prompts)]
            groups = sampler.sample(requests, SAMPLING)
            responses = [response for group in groups for response in group]
            rewards = [
                task.reward(example, policy.decode(response.token_ids))
                for example, group in zip(examples, groups, strict=True)
                for response in group
            ]
            advantages = drpo.group_advantages(torch.tensor(rewards), GROUP)
            for update, rows in enumerate(torch.randperm(len(responses)).chunk(UPDATES)):
                count = sum(len(responses[row].token_ids) for row in rows)
                for part in rows.split(MICRO_BATCH):
                    sequences = [Sequences(prompts[row // GROUP], responses[row].token_ids) for row in part]
                    behavior = [responses[row].behavior_logprobs for row in part]
                    batch = token_batch(policy, sequences, behavior, advantages[part])
                    ids = [token for sequence in sequences for token in sequence.token_ids]
                    log.add(batch, step=step, update=update, tokens=ids)
                    loss = drpo.make_objective("drpo", delta=0.15)(batch).loss
                    drpo.aggregate(loss, batch, mode="token_mean", denominator=count).backward()
                torch.nn.utils.clip_grad_norm_(policy.trained_parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()


def token_batch(
    policy: Policy, sequences: Sequence[Sequences], behavior: Sequence[Sequence[float]], advantages: torch.Tensor
) -> drpo.TokenBatch:
    """A micro-batch of whole responses, with log π at the wrong temperature.

    Args:
        policy: computes log π.
        sequences: ``B`` responses with their prompts.
        behavior: their log μ, as the sampler returned them.
        advantages: ``[B]``.
    """
    lengths = torch.tensor([len(sequence.token_ids) for sequence in sequences])
    logprobs, _ = policy.response_logprobs(sequences, TRAINED_AT)
    return drpo.TokenBatch(
        logprobs,
        torch.tensor([value for values in behavior for value in values]),
        advantages.repeat_interleave(lengths),
        torch.arange(len(sequences)).repeat_interleave(lengths),
    )
