"""Sampling responses from the policy, with the log-probabilities that each token was sampled at."""

from drpo.model.precision import Precision, set_precision
from drpo.rollouts.copied import CopySampler
from drpo.rollouts.factory import SAMPLERS, make_sampler_options
from drpo.rollouts.in_process import InProcessSampler
from drpo.rollouts.options import InProcessOptions, SamplerOptions, VllmOptions
from drpo.rollouts.sampler import Request, Response, Sampler, SamplingParameters

__all__ = [
    "SAMPLERS",
    "CopySampler",
    "InProcessOptions",
    "InProcessSampler",
    "Precision",
    "Request",
    "Response",
    "Sampler",
    "SamplerOptions",
    "SamplingParameters",
    "VllmOptions",
    "make_sampler_options",
    "set_precision",
]
