"""The objectives as prime-rl's custom loss: ``import_path = "drpo.integrations.prime_rl.drpo_loss"``."""

from drpo.integrations.prime_rl.loss import METRICS, drpo_loss

__all__ = ["METRICS", "drpo_loss"]
