"""Sampling responses from the policy, with the log-probabilities that each token was sampled at."""

from drpo.rollouts.in_process import InProcessSampler
from drpo.rollouts.sampler import Request, Response, Sampler, SamplingParameters

__all__ = ["InProcessSampler", "Request", "Response", "Sampler", "SamplingParameters"]
