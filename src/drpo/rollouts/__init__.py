"""Sampling responses from the policy, with the log-probabilities that each token was sampled at."""

from drpo.rollouts.in_process import InProcessSampler
from drpo.rollouts.options import SAMPLERS, InProcessOptions, SamplerOptions, VllmOptions, make_sampler_options
from drpo.rollouts.sampler import Request, Response, Sampler, SamplingParameters

__all__ = [
    "SAMPLERS", "InProcessOptions", "InProcessSampler", "Request", "Response", "Sampler", "SamplerOptions",
    "SamplingParameters", "VllmOptions", "make_sampler_options",
]
