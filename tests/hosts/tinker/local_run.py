"""A whole run of the cookbook against the stand-in for the service: its loop, rollouts, data, checkpoints and metrics.

Here are the service client, a sampler with weights of its own, an environment, and a tokenizer that joins numbers.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chz
import pytest
import torch
from local_service import LocalTrainingClient, Service
from tinker.lib.public_interfaces import AwaitableConcurrentFuture
from tinker.types import ModelInput, SampledSequence, SampleResponse, SamplingParams
from tinker_cookbook import tokenizer_utils
from tinker_cookbook.rl import train
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, RLDataset, RLDatasetBuilder, StepResult

#: The token that is rewarded.
GOOD = 7
MODEL = "local/gru"


def done(value: Any) -> AwaitableConcurrentFuture[Any]:
    """A future of the SDK that is ready."""
    future: Future[Any] = Future()
    future.set_result(value)
    return AwaitableConcurrentFuture(future)


class LocalSamplingClient:
    """Samples from the weights that the service had when it was made."""

    def __init__(self, service: Service) -> None:
        self.service = copy.deepcopy(service)
        self.sampled = 0

    def sample(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> AwaitableConcurrentFuture[SampleResponse]:
        assert sampling_params.temperature == 1.0 and sampling_params.max_tokens
        sequences = []
        for _ in range(num_samples):
            self.sampled += 1
            tokens, logprobs = self.service.sample(prompt.to_ints(), sampling_params.max_tokens)
            name = f"{id(self)}-{self.sampled}"
            sequences.append(SampledSequence("length", name, _tokens_list=tokens, _logprobs_list=logprobs))
        return done(SampleResponse(sequences))

    async def sample_async(self, *args: Any, **kwargs: Any) -> SampleResponse:
        return await self.sample(*args, **kwargs)


class LocalRunClient(LocalTrainingClient):
    """The training client with what a run asks of it beside the training step."""

    #: What each sampling client was asked to record for the service's own losses.
    recorded: list[bool]

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.recorded = []

    def save_state(self, name: str, **_: Any) -> Any:
        return done(SimpleNamespace(path=f"tinker://local/weights/{name}"))

    def save_weights_for_sampler(self, name: str, **_: Any) -> Any:
        return done(SimpleNamespace(path=f"tinker://local/sampler_weights/{name}"))

    def create_sampling_client(self, model_path: str, *_: Any, record_stability_info: bool = False) -> Any:
        self.recorded.append(record_stability_info)
        made = LocalSamplingClient(self.service)
        # Until 0.5 the cookbook uses what it gets as the client itself.
        return made if train_is_before("0.6") else done(made)

    def save_weights_and_get_sampling_client(self, *_: Any, record_stability_info: bool = False, **__: Any) -> Any:
        self.recorded.append(record_stability_info)
        return done(LocalSamplingClient(self.service))


class LocalServiceClient:
    """``tinker.ServiceClient``: one training client, and nothing to close."""

    def __init__(self, client: LocalRunClient) -> None:
        self.client = client

    def __enter__(self) -> LocalServiceClient:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def create_lora_training_client(self, base_model: str, **_: Any) -> Any:
        return done(self.client)

    async def create_lora_training_client_async(self, base_model: str, **_: Any) -> Any:
        return self.client


def train_is_before(version: str) -> bool:
    from importlib.metadata import version as installed

    from packaging.version import Version

    return Version(installed("tinker-cookbook")) < Version(version)


class ShareOfGood(Env):
    """One turn; the reward is the share of :data:`GOOD` among the sampled tokens."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.prompt = list(prompt)

    async def initial_observation(self) -> Any:
        return ModelInput.from_ints(self.prompt), []

    async def step(self, action: Sequence[int], *, extra: object = None) -> StepResult:
        reward = list(action).count(GOOD) / len(action)
        return StepResult(reward, True, ModelInput.empty(), [])


class Group(EnvGroupBuilder):
    def __init__(self, prompt: Sequence[int], size: int) -> None:
        self.prompt, self.size = prompt, size

    async def make_envs(self) -> Sequence[Env]:
        return [ShareOfGood(self.prompt) for _ in range(self.size)]


class Prompts(RLDataset):
    """``steps`` batches of four groups with six samples each."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        return [Group([1, 2 + row], 6) for row in range(4)]

    def __len__(self) -> int:
        return self.steps


@chz.chz
class PromptsBuilder(RLDatasetBuilder):
    steps: int

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        return Prompts(self.steps), None


def configuration(log_path: Path, steps: int = 1, **changes: Any) -> train.Config:
    """The cookbook's configuration with its defaults, but for what a run has to name and what would need the web."""
    plain: dict[str, Any] = {
        "learning_rate": 0.01,
        "dataset_builder": PromptsBuilder(steps=steps),
        "model_name": MODEL,
        "recipe_name": "local",
        "max_tokens": 4,
        "log_path": str(log_path),
        "eval_every": 0,
        "save_every": 0,
        "num_groups_to_log": 0,
    }
    return train.Config(**{**plain, **changes})


@pytest.fixture
def service_client(monkeypatch: pytest.MonkeyPatch) -> LocalRunClient:
    """The stand-ins in place: what a run trains, with the service behind it."""
    torch.manual_seed(1)
    client = LocalRunClient(Service())
    decode = SimpleNamespace(decode=lambda tokens, **_: " ".join(map(str, tokens)))
    tokenizer_utils.register_tokenizer(MODEL, lambda: decode)
    monkeypatch.setattr(train.tinker, "ServiceClient", lambda **_: LocalServiceClient(client))
    monkeypatch.setattr(train, "fetch_model_pricing", lambda name: None, raising=False)
    return client


def history(log_path: Path, name: str) -> list[float]:
    """The values of one metric in the run's log, in order of the steps."""
    rows = [json.loads(line) for line in (log_path / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
