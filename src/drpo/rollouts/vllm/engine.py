"""The program of vLLM's process: its offline engine, with weights that can be replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from drpo.rollouts.engine.messages import Batch, Start
from drpo.rollouts.engine.shared_weights import read_weights
from drpo.rollouts.engine.worker import serve
from drpo.rollouts.sampler import Response, SamplingParameters, response_seeds
from drpo.support import OUTSIDE, Support

GIB = 1024**3
DEFAULT_CPU_CACHE_GIB = 1.0
DEFAULT_GPU_SHARE = 0.4


def main() -> None:
    """Serve."""
    serve(VllmEngine)


class VllmEngine:
    """vLLM, started with meaningless weights: all that it ever samples from come the same way."""

    def __init__(self, start: Start):
        import vllm  # pyright: ignore[reportMissingImports]

        self.start = start
        self.asleep = False
        self.llm: Any = vllm.LLM(**engine_arguments(start))
        self.parameters_of: Any = vllm.SamplingParams

    def sample(self, batch: Batch) -> list[list[Response]]:
        """Responses by request. Keys and values of earlier batches are never used: they may be of older weights, and a
        batch must not depend on what was sampled before it."""
        self._wake(batch)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not free the KV cache of an earlier batch")
        prompts, parameters = [], []
        for request in batch.requests:
            for seed in response_seeds(request):
                prompts.append({"prompt_token_ids": list(request.prompt_ids)})
                parameters.append(self._sampling_parameters(batch, seed))
        outputs = iter(self.llm.generate(prompts, parameters, use_tqdm=False))
        groups = [
            [to_response(next(outputs), batch.parameters) for _ in range(request.count)] for request in batch.requests
        ]
        if self.start.options.sleep:
            self.llm.sleep(level=2)  # the weights are read anew: nothing is worth keeping in main memory
            self.asleep = True
        return groups

    def _wake(self, batch: Batch) -> None:
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        if self.asleep or batch.new_weights:
            weights = read_weights(self.start.weights, batch.entries)
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self.asleep = False

    def _sampling_parameters(self, batch: Batch, seed: int) -> Any:
        return self.parameters_of(
            temperature=batch.parameters.temperature,
            top_p=batch.parameters.top_p,
            top_k=self._top_k(batch.parameters.top_k),
            min_p=batch.parameters.min_p,
            max_tokens=batch.parameters.max_new_tokens,
            seed=seed,
            logprobs=batch.parameters.report_topk,
            flat_logprobs=True,
            stop_token_ids=list(batch.stop_ids),
            ignore_eos=True,
            detokenize=False,
        )

    def _top_k(self, top_k: int) -> int:
        """With supports, vLLM wants a bound of their size: at most the vocabulary, which cuts nothing."""
        return self.llm.model_config.get_vocab_size() if self.start.support and top_k == -1 else top_k


def engine_arguments(start: Start) -> dict[str, Any]:
    """What vLLM is started with."""
    options = start.options
    if start.device == "cpu":
        device: dict[str, Any] = {
            "kv_cache_memory_bytes": int((options.cache_gib or DEFAULT_CPU_CACHE_GIB) * GIB),
            "enforce_eager": True,
            # After a part of a prompt vLLM turns the request's generator back, which no generator of a CPU can.
            "enable_chunked_prefill": False,
        }
    else:
        device = {"enforce_eager": bool(options.eager)}
        if options.cache_gib is None:
            device["gpu_memory_utilization"] = options.gpu_memory_utilization or DEFAULT_GPU_SHARE
        else:
            device["kv_cache_memory_bytes"] = int(options.cache_gib * GIB)
    return {
        "model": start.directory,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "trust_remote_code": False,
        "dtype": start.dtype,
        "max_model_len": options.max_length,
        "enable_sleep_mode": options.sleep,
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": -1,
        "seed": 0,
        **({"return_sampling_mask": True} if start.support else {}),
        **device,
    }


def to_response(output: Any, parameters: SamplingParameters) -> Response:
    """One of vLLM's outputs; at every position its log-probabilities are the sampled token's, then the top-K.

    Raises:
        RuntimeError: vLLM ended it for another reason than a stop token or its length, or reported no support where
            one was asked for.
    """
    (completion,) = output.outputs
    if completion.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a response with {completion.finish_reason!r}")
    found, starts = completion.logprobs, completion.logprobs.start_indices
    token_ids = list(completion.token_ids)
    if [found.token_ids[at] for at in starts] != token_ids:
        raise RuntimeError("vLLM's log-probabilities are not those of the sampled tokens")
    support = to_support(completion) if parameters.is_truncated and parameters.report_support else None
    logprobs = [found.logprobs[at] for at in starts]
    response = Response(token_ids, logprobs, completion.finish_reason, support=support)
    if not parameters.report_topk:
        return response
    places = [slice(at + 1, end) for at, end in zip(starts, found.end_indices, strict=True)]
    return replace(
        response,
        topk_ids=[found.token_ids[place] for place in places],
        topk_logprobs=[[max(value, OUTSIDE) for value in found.logprobs[place]] for place in places],
    )


def to_support(completion: Any) -> Support:
    """vLLM's ``sampling_mask``: one list of ids for each sampled token.

    Raises:
        RuntimeError: there is none, or it has another shape.
    """
    mask = completion.sampling_mask
    rows = None if mask is None else mask.token_ids
    if rows is None or len(rows) != len(completion.token_ids):
        found = "none" if rows is None else f"{len(rows)}"
        raise RuntimeError(f"vLLM reported {found} sampling masks for {len(completion.token_ids)} tokens")
    return Support.from_rows(rows)
