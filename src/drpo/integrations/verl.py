"""The name that configurations and the entry point ``verl.plugins`` hold: importing it registers our losses."""

from drpo.integrations.verl_plugin.loss import LOSS_MODE, DRPOPolicyLossConfig, policy_loss, running_name
from drpo.integrations.verl_plugin.record import RECORD_MODE, DRPORecordConfig, recorded_loss

__all__ = [
    "LOSS_MODE",
    "RECORD_MODE",
    "DRPOPolicyLossConfig",
    "DRPORecordConfig",
    "policy_loss",
    "recorded_loss",
    "running_name",
]
