"""Suite ``sampler``: our sampler against transformers' ``generate``, on the demo's model and problems.

Sixteen prompts, eight responses each, at most 64 tokens, temperature 1; the floor is that of :mod:`drpo.bench.floor`.
Once with no stop token, so that every variant
makes exactly as many tokens; once as training samples, where responses end by themselves and only their own tokens
count. Ours also returns the log-probability of every token, which ``generate`` is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from drpo.bench.floor import FLOOR, SAMPLING, floor_turn, forward_flops
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, missing, timed
from drpo.installation import install
from drpo.model.policy import Policy, load_policy
from drpo.rollouts import InProcessSampler, Request, Sampler, SamplingParameters
from drpo.tasks import make_task
from drpo.train.config import TrainConfig

OURS, COMPILED = "InProcessSampler", "InProcessSampler compiled"
GENERATE, STATIC = "generate", "generate static cache"


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """All responses of full length, then as in training."""
    prompts, count, length = (2, 2, 4) if settings.quick else (16, 8, 64)
    reason = missing("transformers", install("train"))
    for title, stops in (("full length", False), ("as in training", True)):
        found: dict[str, Callable[[], Turn]] = {}
        if not reason:
            policy, ids = demo(settings.device, prompts)
            found = of_policy(policy, ids, count, length, stops, static=True, compiled=settings.compiled)
            found[FLOOR] = floor(policy, ids, count, length, settings)
        case = Case(
            title=f"{prompts} × {count} responses of {'at most ' if stops else ''}{length} tokens, {title}",
            sizes={"prompts": prompts, "group": count, "length": length},
            baselines=(FLOOR, GENERATE),
            per_token=True,
            rounds=settings.rounds or (2 if settings.quick else 7),
            skipped=dict.fromkeys((OURS, GENERATE, STATIC), reason) if reason else {},
            variants=found,
        )
        yield measure(case, watch)


def variants(
    device: str, prompts: int, count: int, length: int, stops: bool, static: bool = False, compiled: bool = False
) -> dict[str, Callable[[], Turn]]:
    """Turns that sample ``count`` responses of at most ``length`` tokens to each of ``prompts`` problems.

    Args:
        device: a torch device.
        prompts: how many problems.
        count: responses to each.
        length: tokens of a response at most.
        stops: responses end at the model's stop tokens.
        static: add ``generate`` with a static cache.
        compiled: add our compiled decoding.
    """
    policy, ids = demo(device, prompts)
    return of_policy(policy, ids, count, length, stops, static, compiled)


def demo(device: str, prompts: int) -> tuple[Policy, list[list[int]]]:
    """The demo's policy, and the token ids of the given number of its problems."""
    policy = load_policy("embedded:arithmetic", torch.device(device))
    return policy, [policy.encode(prompt) for prompt in problems(prompts)]


def floor(policy: Policy, ids: list[list[int]], count: int, length: int, settings: Settings) -> Callable[[], Turn]:
    """A turn of the floor, all responses of full length; a shorter one costs more a token."""
    flops = SAMPLING * forward_flops(policy.model.config.to_dict(), [len(one) for one in ids], count, length)
    tokens = len(ids) * count * length
    return floor_turn(lambda: flops, lambda: tokens, settings.device, dtype_name(policy.model.dtype), settings.quick)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of ``dtype`` in torch."""
    return str(dtype).removeprefix("torch.")


def of_policy(
    policy: Policy,
    ids: list[list[int]],
    count: int,
    length: int,
    stops: bool = True,
    static: bool = False,
    compiled: bool = False,
) -> dict[str, Callable[[], Turn]]:
    """The same for the prompts ``ids`` to ``policy``.

    Args:
        policy: what is sampled from.
        ids: token ids of each prompt.
        count: responses to each.
        length: tokens of a response at most.
        stops: responses end at the model's stop tokens.
        static: add ``generate`` with a static cache.
        compiled: add our compiled decoding.
    """
    # Where the settings name no stop token, `generate` takes those of the model.
    policy.model.generation_config.eos_token_id = sorted(policy.stop_ids) if stops else None
    stop_ids = policy.stop_ids if stops else ()
    sampler = InProcessSampler(policy.model, stop_ids)
    found = {
        OURS: of_sampler(sampler, policy, ids, count, length),
        GENERATE: generate(policy, ids, count, length, None),
    }
    if static:
        found[STATIC] = generate(policy, ids, count, length, "static")
    if compiled:
        graphs = InProcessSampler(policy.model, stop_ids, compiled=True)
        found[COMPILED] = of_sampler(graphs, policy, ids, count, length)
    return found


def problems(count: int) -> list[str]:
    """Prompts of the demo's task."""
    section = TrainConfig().task
    task = make_task(section.name, **section.parameters)
    return [task.training_example(0, index).prompt for index in range(count)]


def of_sampler(
    sampler: Sampler, policy: Policy, prompts: list[list[int]], count: int, length: int
) -> Callable[[], Turn]:
    """One call of a sampler of ours; other random numbers at every call."""
    parameters = SamplingParameters(max_new_tokens=length)
    calls = iter(range(1 << 62))

    def work() -> int:
        first = next(calls) * len(prompts)
        requests = [Request(ids, count, first + index) for index, ids in enumerate(prompts)]
        return sum(len(one.token_ids) for group in sampler.sample(requests, parameters) for one in group)

    return lambda: timed(work, str(policy.device))


def generate(
    policy: Policy, prompts: list[list[int]], count: int, length: int, cache: str | None
) -> Callable[[], Turn]:
    """One call of ``generate`` as TRL makes it: whole prompts in, padded on the left."""
    from transformers import GenerationConfig

    model: Any = policy.model
    width = max(len(ids) for ids in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, ids in enumerate(prompts):
        tokens[row, width - len(ids) :], mask[row, width - len(ids) :] = torch.tensor(ids), 1
    tokens, mask = tokens.to(policy.device), mask.to(policy.device)
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=length,
        num_return_sequences=count,
        pad_token_id=policy.tokenizer.pad_token_id,
        cache_implementation=cache,
    )
    ends = torch.tensor(model.generation_config.eos_token_id or [], dtype=torch.int64, device=policy.device)

    def work() -> int:
        made = model.generate(input_ids=tokens, attention_mask=mask, generation_config=settings)[:, width:]
        stopped = torch.isin(made, ends).cumsum(1)
        # A response's own tokens are those up to its first stop token, and that one.
        return int((stopped - torch.isin(made, ends).int() == 0).sum())

    return lambda: timed(work, str(policy.device))
