"""Sampling responses from the policy, with the log-probabilities that each token was sampled at."""

from drpo.rollouts.copied import CopySampler
from drpo.rollouts.in_process import InProcessSampler
from drpo.rollouts.precision import Precision, set_precision
from drpo.rollouts.sampler import Request, Response, Sampler, SamplingParameters

__all__ = [
    "CopySampler", "InProcessSampler", "Precision", "Request", "Response", "Sampler", "SamplingParameters",
    "set_precision",
]  # fmt: skip
