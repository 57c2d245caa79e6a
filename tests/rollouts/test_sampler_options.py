"""The section `sampler`."""

from __future__ import annotations

from typing import Any

import pytest

from drpo.errors import ConfigError
from drpo.rollouts import InProcessOptions, VllmOptions, make_sampler_options


def test_options_by_name():
    assert make_sampler_options("in_process") == InProcessOptions(compiled=False)
    made = make_sampler_options("vllm", sleep=True, eager=True, cache_gib=2)
    assert made == VllmOptions(sleep=True, eager=True, cache_gib=2.0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("vlm", {}, "unknown sampler 'vlm'. Did you mean 'vllm'?"),
        ("vllm", {"slep": True}, "sampler 'vllm' has no parameter 'slep'. Did you mean 'sleep'?"),
        ("in_process", {"sleep": True}, "sampler 'in_process' has no parameter 'sleep'. Known: compiled, max_rows."),
        ("vllm", {"attempts": 0}, "sampler.attempts: input should be greater than or equal to 1, got 0"),
        ("vllm", {"attempts": "x"}, "sampler.attempts: input should be a valid integer, got 'x'"),
        ("vllm", {"sleep": "yes"}, "sampler.sleep: input should be a valid boolean, got 'yes'"),
        ("vllm", {"cache_gib": 1.0, "gpu_memory_utilization": 0.5}, "gpu_memory_utilization would be ignored beside"),
    ],
)
def test_mistakes(name: str, parameters: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        make_sampler_options(name, **parameters)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sleep": True}, "vLLM cannot sleep on a CPU"),
        ({"gpu_memory_utilization": 0.5}, "gpu_memory_utilization would be ignored on a CPU"),
        ({"eager": False}, "eager=false would be ignored on a CPU"),
    ],
)
def test_what_a_cpu_would_ignore_is_an_error_there_alone(options: dict[str, Any], message: str):
    VllmOptions(**options).check_device("cuda")
    with pytest.raises(ConfigError, match=message):
        VllmOptions(**options).check_device("cpu")
    VllmOptions(eager=True, cache_gib=1.0).check_device("cpu")
