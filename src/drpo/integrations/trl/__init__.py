"""Every objective inside TRL's GRPOTrainer: `DRPOTrainer` and `DRPOConfig` instead of GRPOTrainer and GRPOConfig.

`InProcessRollouts` is a rollout_func for machines without vLLM. `record` writes the token log of TRL's own losses.
"""

try:
    import trl as _trl  # noqa: F401
except ImportError as error:
    raise ImportError("drpo.integrations.trl needs TRL: pip install 'trl>=1.14.1,<1.17'") from error

from drpo.integrations.trl.config import DRPOConfig
from drpo.integrations.trl.host import TESTED_VERSIONS
from drpo.integrations.trl.recorder import record
from drpo.integrations.trl.rollouts import InProcessRollouts
from drpo.integrations.trl.trainer import DRPOTrainer

__all__ = ["TESTED_VERSIONS", "DRPOConfig", "DRPOTrainer", "InProcessRollouts", "record"]
