"""The parts of scipy that the statistics use; where it is missing, one line says how to install it."""

from __future__ import annotations

from drpo.errors import ConfigError
from drpo.installation import install

try:
    from scipy import optimize, special, stats
except ImportError as error:
    raise ConfigError(
        f"the lab's statistics need scipy, which cannot be loaded ({error}): " + install("train", "lab")
    ) from error

__all__ = ["optimize", "special", "stats"]
