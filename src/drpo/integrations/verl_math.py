"""The name of the math reward in ``reward.custom_reward_function.path=pkg://drpo.integrations.verl_math``."""

from drpo.integrations.verl_plugin.math_reward import compute_score

__all__ = ["compute_score"]
