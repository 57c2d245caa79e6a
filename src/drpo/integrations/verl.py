"""The name that configurations and the entry point ``verl.plugins`` hold: importing it registers the loss in verl."""

from drpo.integrations.verl_plugin.loss import LOSS_MODE, DRPOPolicyLossConfig, policy_loss, running_name

__all__ = ["LOSS_MODE", "DRPOPolicyLossConfig", "policy_loss", "running_name"]
