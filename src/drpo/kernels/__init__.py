"""From hidden states to the log-probability of each token."""

from drpo.kernels.logprobs import BACKENDS, token_logprobs

__all__ = ["BACKENDS", "token_logprobs"]
