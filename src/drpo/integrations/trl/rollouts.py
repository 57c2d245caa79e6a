"""A rollout_func for TRL that samples from the trained model itself and hands over its log-probabilities."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from drpo.errors import ConfigError
from drpo.integrations.trl import host
from drpo.rollouts import InProcessSampler, Request, SamplingParameters


class InProcessRollouts:
    """``GRPOTrainer(rollout_func=InProcessRollouts())``: responses with the log-probabilities they were sampled at.

    For machines without vLLM: every process samples its own prompts from the weights it trains, once a prompt's
    responses are grouped, with the temperature and max_completion_length of the trainer. A response's randomness
    comes from the trainer's seed, the step, the process and the prompt's place, so that a run resumed from a checkpoint
    between two rollout batches samples what the uninterrupted one would have.

    Args:
        max_rows: the largest number of responses generated at once.
    """

    def __init__(self, max_rows: int = 256):
        self.max_rows = max_rows
        self._moment: tuple[bool, int] | None = None
        self._calls = 0

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, list[Any]]:
        """One response for each of ``prompts`` (TRL repeats a prompt for every response it wants).

        Returns:
            TRL's ``prompt_ids``, ``completion_ids`` and ``logprobs``, one list each per prompt.

        Raises:
            ConfigError: an option that only other samplers understand, images, or a sharded model.
        """
        refuse(trainer)
        prompt_ids, images, multimodal = trainer._tokenize_prompts(list(prompts))
        if images is not None or multimodal:
            raise ConfigError(
                "InProcessRollouts samples from text alone, and these prompts hold images. Use vLLM "
                "(use_vllm=True) for multimodal models."
            )
        parameters = SamplingParameters(temperature=trainer.temperature, max_new_tokens=trainer.max_completion_length)
        requests = self._requests(prompt_ids, trainer)
        with host.model_for_generation(trainer) as model:
            # Its forward is still in accelerate's autocast, as the trainer's own is.
            training = model.training
            model.eval()
            try:
                groups = InProcessSampler(model, host.eos_token_ids(trainer), self.max_rows).sample(
                    requests, parameters
                )
            finally:
                model.train(training)
        responses = [response for group in groups for response in group]
        return {
            "prompt_ids": [list(ids) for ids in prompt_ids],
            "completion_ids": [response.token_ids for response in responses],
            "logprobs": [response.behavior_logprobs for response in responses],
        }

    def _requests(self, prompt_ids: Sequence[Sequence[int]], trainer: Any) -> list[Request]:
        """Neighboring rows with one prompt share a request, and so its prefill."""
        moment = (trainer.model.training, trainer.state.global_step)
        self._calls = self._calls + 1 if moment == self._moment else 0
        self._moment = moment
        place = f"{trainer.args.seed}/{moment}/{self._calls}/{trainer.accelerator.process_index}"
        return [
            Request(ids, len(list(rows)), random.Random(f"{place}/{index}").getrandbits(63))
            for index, (ids, rows) in enumerate(itertools.groupby(prompt_ids))
        ]


def refuse(trainer: Any) -> None:
    """Refuse what sampling in the process cannot do.

    Raises:
        ConfigError: with the fix.
    """
    args = trainer.args
    for name in ("generation_kwargs", "cache_implementation"):
        if getattr(args, name):
            raise ConfigError(
                f"{name}={getattr(args, name)!r} is for TRL's own generation and vLLM; InProcessRollouts "
                f"would ignore it. Leave it out."
            )
    if trainer.max_completion_length is None:
        raise ConfigError("InProcessRollouts needs max_completion_length; set it in DRPOConfig")
    plugin = trainer.accelerator.state.deepspeed_plugin
    if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
        raise ConfigError(
            "InProcessRollouts needs the whole model in each process, and this one is sharded (FSDP or "
            "DeepSpeed ZeRO-3). Use vLLM: use_vllm=True."
        )
