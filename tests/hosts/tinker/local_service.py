"""A stand-in for the service alone: a small model on this machine behind the SDK's real ``TrainingClient``.

The SDK's request ids, their order, the custom loss and its two phases are its own. Here are a causal model, the
cross-entropy that it is asked for, and AdamW; the network is left out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

import torch
from tinker.lib.chunked_fwdbwd_helpers import combine_fwd_bwd_output_results
from tinker.lib.public_interfaces import APIFuture, AwaitableConcurrentFuture, TrainingClient
from tinker.types import AdamParams, Datum, ForwardBackwardOutput, OptimStepResponse, TensorData


class Service:
    """A GRU language model and its optimizer."""

    def __init__(self, vocabulary: int = 12, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.embedding = torch.nn.Embedding(vocabulary, 24)
        self.body = torch.nn.GRU(24, 24, batch_first=True)
        self.head = torch.nn.Linear(24, vocabulary)
        self.parameters = [*self.embedding.parameters(), *self.body.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0)
        #: What arrived, in order: ("forward" | "backward", names of the inputs) and ("optim", learning rate).
        self.requests: list[tuple[str, Any]] = []

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[T]`` → ``[T, V]``."""
        return self.head(self.body(self.embedding(tokens.unsqueeze(0)))[0])[0]

    def forward_backward(self, data: list[Datum], loss_fn: str, forward_only: bool) -> ForwardBackwardOutput:
        assert loss_fn == "cross_entropy"
        names = {name for datum in data for name in datum.loss_fn_inputs}
        self.requests.append(("forward" if forward_only else "backward", names))
        outputs, total = [], 0.0
        for datum in data:
            inputs = torch.tensor(datum.model_input.to_ints())
            targets = datum.loss_fn_inputs["target_tokens"].to_torch()
            logprobs = self.logits(inputs).log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
            loss = -(logprobs * datum.loss_fn_inputs["weights"].to_torch()).sum()
            if not forward_only:
                loss.backward()
            total += loss.item()
            outputs.append({"logprobs": TensorData.from_torch(logprobs.detach())})
        return ForwardBackwardOutput("TorchLossReturn", outputs, {"loss:sum": total})

    def step(self, params: AdamParams) -> OptimStepResponse:
        self.requests.append(("optim", params.learning_rate))
        for group in self.optimizer.param_groups:
            group.update(lr=params.learning_rate, betas=(params.beta1, params.beta2), eps=params.eps, weight_decay=0.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return OptimStepResponse(metrics={"optim/steps": 1.0})

    def sample(self, prompt: list[int], length: int) -> tuple[list[int], list[float]]:
        """Tokens and their log μ."""
        tokens, logprobs = list(prompt), []
        with torch.no_grad():
            for _ in range(length):
                row = self.logits(torch.tensor(tokens))[-1].log_softmax(-1)
                token = int(torch.multinomial(row.exp(), 1))
                tokens.append(token)
                logprobs.append(float(row[token]))
        return tokens[len(prompt) :], logprobs


class _Holder:
    """The part of the SDK's client holder that a custom loss touches, with a loop in a thread of its own."""

    class _client_config:
        fwdbwd_max_chunk_len = 3
        fwdbwd_max_chunk_bytes_count = 10**9
        parallel_fwdbwd_chunks = False

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run_coroutine_threadsafe(self, coroutine: Coroutine[Any, Any, Any]) -> AwaitableConcurrentFuture[Any]:
        return AwaitableConcurrentFuture(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def get_telemetry(self) -> None:
        return None


class LocalTrainingClient(TrainingClient):
    """The SDK's client, its two requests answered by a :class:`Service`."""

    def __init__(self, service: Service) -> None:
        super().__init__(_Holder(), 0, "local", info=None)
        self.service = service

    def _run_fwd_bwd(
        self, requests: list[Any], loss_fn: str, loss_fn_config: Mapping[str, Any] | None, *, forward_only: bool
    ) -> APIFuture[ForwardBackwardOutput]:
        async def run() -> ForwardBackwardOutput:
            results = []
            for chunk in requests:
                async with self._take_turn(chunk.request_id):
                    results.append(self.service.forward_backward(chunk.data, loss_fn, forward_only))
            return combine_fwd_bwd_output_results(results)

        return self.holder.run_coroutine_threadsafe(run())

    def optim_step(
        self, optim_params: AdamParams | None = None, *, adam_params: AdamParams | None = None
    ) -> APIFuture[OptimStepResponse]:
        params, request = optim_params or adam_params, self._get_request_id()

        async def run() -> OptimStepResponse:
            async with self._take_turn(request):
                return self.service.step(params)

        return self.holder.run_coroutine_threadsafe(run())
