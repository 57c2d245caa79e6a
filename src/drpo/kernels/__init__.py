"""From hidden states to the log-probability of each token, or straight to the loss."""

from drpo.kernels.fused import FusedLoss, fused_loss
from drpo.kernels.head import plain_head
from drpo.kernels.logprobs import BACKENDS, choose_backend, token_logprobs

__all__ = ["BACKENDS", "FusedLoss", "choose_backend", "fused_loss", "plain_head", "token_logprobs"]
