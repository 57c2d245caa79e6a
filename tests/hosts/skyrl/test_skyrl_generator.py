"""SkyRL's own generator between an engine and the loss: whether every token that is trained on has the engine's log μ.

The engine is recorded answers; the environment, the chat template's handling and the bookkeeping are SkyRL's.
"""

import asyncio

import pytest
from skyrl.train.config import make_config
from skyrl.train.generators.skyrl_gym_generator import SkyRLGymGenerator

from drpo.errors import ConfigError
from drpo.integrations.skyrl import DRPOAlgorithmConfig, check
from support import tiny

TEMPLATE = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
#: What the engine sampled, its end token included, and the log μ of each.
SAMPLED = [2, 3, 4, 0]
LOGPROBS = [-0.5, -1.5, -2.5, -0.25]


class Engine:
    """Answers each request with :data:`SAMPLED`."""

    model_name = "recorded"

    async def generate(self, engine_input, **_):
        count = len(engine_input["prompt_token_ids"])
        return {
            "responses": ["abc"] * count,
            "response_ids": [list(SAMPLED) for _ in range(count)],
            "stop_reasons": ["stop"] * count,
            "response_logprobs": [list(LOGPROBS) for _ in range(count)],
            "rollout_expert_indices": None,
        }

    async def finish_session(self, session_id):
        return None


def generated(cfg):
    """The tokens, the loss mask and log μ of one response, as they go to the trainer."""
    letters = tiny.tokenizer()
    letters.chat_template = TEMPLATE
    generator = SkyRLGymGenerator(cfg.generator, cfg.environment.skyrl_gym, Engine(), letters)
    found = asyncio.run(
        generator.generate(
            {
                "prompts": [[{"role": "user", "content": "ab"}]],
                "env_classes": ["gsm8k"],
                "env_extras": [{"reward_spec": {"method": "rule", "ground_truth": "1"}}],
                "trajectory_ids": None,
                "sampling_params": None,
            },
            disable_tqdm=True,
        )
    )
    return found["response_ids"][0], found["loss_masks"][0], found["rollout_logprobs"][0]


@pytest.mark.parametrize(
    ("arguments", "sound"),
    [
        ([], True),
        (["generator.batched=true"], True),
        (["generator.use_conversation_multi_turn=false", "generator.batched=true"], True),
        (["generator.use_conversation_multi_turn=false"], False),
    ],
)
def test_accepted_configurations_train_on_the_engines_log_probabilities(arguments, sound):
    cfg = make_config(algorithm_cls=DRPOAlgorithmConfig).from_cli_overrides(arguments)
    tokens, mask, logprobs = generated(cfg)
    trained = [(token, mu) for token, keep, mu in zip(tokens, mask, logprobs, strict=True) if keep]
    assert (trained == list(zip(SAMPLED, LOGPROBS, strict=True))) is sound
    if sound:
        check(cfg)
    else:
        assert trained[-1] == (0, 0.0)  # the sampled end token, its log μ lost
        with pytest.raises(ConfigError, match="use_conversation_multi_turn=false"):
            check(cfg)
