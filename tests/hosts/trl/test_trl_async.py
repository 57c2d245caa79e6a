"""DRPOAsyncTrainer: its loss on the real class with a real model, and its loop with a stand-in for the vLLM server.

TRL's attention for packed rows is a GPU kernel. Here the same rows go through eager attention (TRL 1.14, 1.15), or
through the kernel's function written out in torch (TRL 1.16).
"""

from __future__ import annotations

import json
import math
import queue
import shutil
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl_runs
from datasets import Dataset
from transformers import PrinterCallback
from trl import chat_template_utils  # pyright: ignore[reportAttributeAccessIssue]
from trl.experimental.async_grpo import async_grpo_trainer, async_rollout_worker
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

import drpo
from drpo.errors import ConfigError, DataError, MismatchError
from drpo.integrations.trl.asynchronous import DRPOAsyncConfig, DRPOAsyncTrainer, check_trl
from drpo.model.policy import load_policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters

HORIZON = 32
ON_TREE = hasattr(async_grpo_trainer, "register_tree_attention")


def attention_in_torch(query: Any, key: Any, value: Any, starts_q: Any, starts_k: Any, *_: Any, **options: Any) -> Any:
    """flash_attn_varlen_func: each segment of the queries sees its own keys, causal from the end."""
    parts = []
    for q0, q1, k0, k1 in zip(starts_q[:-1], starts_q[1:], starts_k[:-1], starts_k[1:], strict=True):
        q, k, v = query[q0:q1].transpose(0, 1), key[k0:k1].transpose(0, 1), value[k0:k1].transpose(0, 1)
        repeats = q.shape[0] // k.shape[0]
        k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
        scores = q @ k.transpose(1, 2) * (options["softmax_scale"] or q.shape[-1] ** -0.5)
        late = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 + scores.shape[2] - scores.shape[1])
        parts.append((scores.masked_fill(late, -math.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture(autouse=True)
def attention(monkeypatch: pytest.MonkeyPatch) -> None:
    # It asks CUDA for the name of the GPU.
    monkeypatch.setattr(async_grpo_trainer, "get_peak_flops_per_device", lambda *_: None, raising=False)
    if ON_TREE:
        from trl.experimental.async_grpo import packing

        kernel = type("Kernel", (), {"flash_attn_varlen_func": staticmethod(attention_in_torch)})
        monkeypatch.setattr(packing, "_flash_attn", lambda: kernel)
        monkeypatch.setattr(packing, "get_target_dtype", lambda query, module: query.dtype)
    else:
        usual = async_grpo_trainer.create_model_from_path  # pyright: ignore[reportPrivateImportUsage]
        monkeypatch.setattr(
            async_grpo_trainer,
            "create_model_from_path",
            lambda model, **options: usual(model, **{**options, "attn_implementation": "eager"}),
        )


class Worker:
    """Holds samples for the trainer; what a rollout worker of TRL has."""

    def __init__(self) -> None:
        self.rollout_buffer: queue.Queue = queue.Queue()
        self.metrics_queue: queue.Queue = queue.Queue()
        self.version = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def check_health(self, stale_after_s: float) -> None:
        raise RuntimeError("no samples are left")

    def update_model_version(self, version: int) -> None:
        self.version = version


class NoTransfer:
    """The weights stay where they are."""

    def init_weight_transfer(self) -> None: ...

    def pause(self) -> None: ...

    def send_weights(self, iterator: Any) -> None:
        list(iterator)

    def resume(self) -> None: ...

    def destroy(self) -> None: ...


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model where `from_pretrained` reads it."""
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(Path(drpo.__file__).parent / "assets" / "arithmetic", folder, dirs_exist_ok=True)
    return folder


def make_async(base: Path, worker: Any = None, parts: dict[str, Any] | None = None, **settings: Any) -> Any:
    config = DRPOAsyncConfig(
        **{
            "output_dir": tempfile.mkdtemp(),
            "max_completion_length": HORIZON,
            "per_device_train_batch_size": 4,
            "token_budget": 0,
            "max_steps": 1,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "mismatch_limit": 1e9,
            **settings,
        }
    )
    parts = {
        "reward_funcs": trl_runs.answer_length,
        "train_dataset": Dataset.from_list([{"prompt": prompt} for prompt in trl_runs.PROMPTS]),
        "rollout_worker": Worker() if worker is None else worker,
        "weight_transfer": NoTransfer(),
        **(parts or {}),
    }
    trainer = DRPOAsyncTrainer(model=str(base), args=config, **parts)
    trainer.remove_callback(PrinterCallback)
    return trainer


def samples(count: int = 8, seed: int = 0, version: int = 1) -> list[RolloutSample]:
    """Ragged responses, two to a prompt, with prompts and tool output that are not trained."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        prompt = torch.arange(3 + index // 2) % 7 + 4
        length = 4 + index % 5
        response = torch.randint(4, 20, (length,), generator=draw)
        mask = torch.cat([torch.zeros(len(prompt)), torch.ones(length)])
        if index == 3:
            mask[len(prompt) + 2] = 0
        logprobs = torch.cat([torch.zeros(len(prompt)), -torch.rand(length, generator=draw) * 6 - 0.1])
        made.append(
            sample_of(
                [*prompt.tolist(), *response.tolist()], mask, logprobs, (-1) ** index * (1 + index), index // 2, version
            )
        )
    return made


def sample_of(ids: list[int], mask: Any, logprobs: Any, advantage: float, group: int, version: int) -> RolloutSample:
    lists: list[Any] = [np.asarray(ids), np.asarray(mask, dtype=np.int64), np.asarray(logprobs, dtype=np.float32)]
    if not ON_TREE:
        lists = [values.tolist() for values in lists]
    return RolloutSample([], [], lists[0], lists[1], lists[2], float(advantage), version, group, {"reward": 0.0})


def fill(trainer: Any, made: list[RolloutSample]) -> None:
    for sample in made:
        trainer.rollout_queue.put_nowait(sample)


class Table(torch.nn.Module):
    """A model whose log π depends on a token and its place alone, in float64; called as TRL calls the real one."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.weight = torch.nn.Parameter(torch.randn(HORIZON, 64, generator=draw, dtype=torch.float64))

    def logprobs(self, place: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """log π of ``token`` after ``place`` + 1 tokens."""
        return -torch.nn.functional.softplus(self.weight[place, token])

    def forward(self, input_ids: Any, position_ids: Any, shift_labels: Any = None, **_: Any) -> dict[str, torch.Tensor]:
        following = input_ids[:, 1:] if shift_labels is None else shift_labels.clamp(min=0)
        logprobs = self.logprobs(position_ids[:, : following.shape[1]], following)
        return {"log_probs": logprobs, "entropy": torch.ones_like(logprobs)}


def gradient_of(trainer: Any, made: list[RolloutSample], micro_batches: int, model: torch.nn.Module) -> torch.Tensor:
    """Through TRL's own queue, packing, data loader and the loss; the loader asks for one batch more than it gives."""
    fill(trainer, [*made, *made])
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = micro_batches
    batches, items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), micro_batches, torch.device("cpu"))
    for inputs in batches:
        trainer.compute_loss(model, inputs, num_items_in_batch=items).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def reference(model: torch.nn.Module, settings: dict[str, Any], made: list[RolloutSample], mode: Any) -> torch.Tensor:
    """The same by our library, from the samples themselves, a sequence at a time."""
    parts = {"logprobs": [], "behavior_logprobs": [], "advantages": [], "sequence_ids": []}
    for row, sample in enumerate(made):
        ids, mask, mu = (
            torch.as_tensor(getattr(sample, name)) for name in ("input_ids", "completion_mask", "old_log_probs")
        )
        mu = mu.float()[1:]
        kept = mask[1:].bool() & mu.isfinite()
        if isinstance(model, Table):
            logprobs = model.logprobs(torch.arange(len(ids) - 1), ids[1:])
        else:
            logprobs = model(ids.unsqueeze(0)).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None]).squeeze(1)
        parts["logprobs"].append(logprobs[kept])
        parts["behavior_logprobs"].append(mu[kept])
        parts["advantages"].append(torch.full((int(kept.sum()),), sample.advantage))
        parts["sequence_ids"].append(torch.full((int(kept.sum()),), row))
    fields: dict[str, Any] = {name: torch.cat(values) for name, values in parts.items()}
    batch = drpo.TokenBatch(**fields)
    loss = drpo.aggregate(
        drpo.make_objective(**settings)(batch).loss,
        batch,
        mode=mode,
        denominator=len(batch) if mode == "token_mean" else len(made),
        horizon=HORIZON if mode == "sequence_sum" else None,
    )
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_gradient_is_ours(base: Path, mode: Any, micro_batches: int) -> None:
    trainer = make_async(
        base,
        aggregation=mode,
        per_device_train_batch_size=8 // micro_batches,
        gradient_accumulation_steps=micro_batches,
    )
    found = gradient_of(trainer, samples(), micro_batches, Table())
    assert difference(found, reference(Table(), {"name": "drpo"}, samples(), mode)) <= 1e-12


@pytest.mark.parametrize("name", ["grpo", "spo", "dppo_tv", "gspo", "kl_penalty"])
def test_other_objectives(base: Path, name: str) -> None:
    trainer = make_async(base, objective=name, per_device_train_batch_size=8)
    found = gradient_of(trainer, samples(), 1, Table())
    assert difference(found, reference(Table(), {"name": name}, samples(), "sequence_sum")) <= 1e-12


def test_with_a_real_model_the_gradient_is_that_of_unpacked_sequences(base: Path) -> None:
    """TRL's LM head computes in float32, whatever the model is in."""
    trainer = make_async(base, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    found = gradient_of(trainer, samples(), 2, trainer.model.double())
    plain: Any = load_policy(str(base), torch.device("cpu")).model
    plain = plain.double().train()
    assert difference(found, reference(plain, {"name": "drpo"}, samples(), "sequence_sum")) <= 1e-5


def test_a_token_without_mu_is_left_out(base: Path) -> None:
    made = samples()
    made[2].old_log_probs[-1] = math.nan
    trainer = make_async(base, aggregation="token_mean", per_device_train_batch_size=8)
    found = gradient_of(trainer, made, 1, Table())
    assert difference(found, reference(Table(), {"name": "drpo"}, made, "token_mean")) <= 1e-12
    trained = sum(int(sum(sample.completion_mask)) for sample in made)
    assert trainer._metrics["train"]["drpo/left_out_share"] == [pytest.approx(1 / trained)]
    for sample in made:
        sample.old_log_probs[-1] = math.nan
    with pytest.raises(DataError, match="have no log μ"):
        gradient_of(make_async(base, per_device_train_batch_size=8), made, 1, Table())


def test_a_trl_that_passes_something_unknown_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_async(base, per_device_train_batch_size=8)
    fill(trainer, [*samples(), *samples()])
    inputs = next(iter(trainer.get_train_dataloader()))
    for changed, says in (
        ({**inputs, "new_mask": torch.ones(1)}, "the loss is given new_mask, which it would ignore"),
        ({k: v for k, v in inputs.items() if k != "advantages"}, "the loss is not given advantages"),
    ):
        with pytest.raises(ConfigError, match=says):
            trainer.get_batch_samples(iter([changed]), 1, torch.device("cpu"))
    monkeypatch.setattr(async_grpo_trainer.AsyncGRPOTrainer, "compute_loss", lambda self, model, inputs: None)
    with pytest.raises(ConfigError, match=r"compute_loss takes \(self, model, inputs\)"):
        check_trl()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epsilon": 0.1}, "epsilon=0.1 is not used by DRPOAsyncTrainer"),
        ({"epsilon_high": 0.3}, "epsilon_high=0.3 is not used"),
        ({"top_p": 0.9}, "top_p=0.9 is not used"),
        ({"objective_parameters": {"anchor": "proximal"}}, "needs proximal_logprobs"),
        ({"objective": "m2po", "gradient_accumulation_steps": 2}, "all tokens of an optimizer step"),
    ],
)
def test_what_would_be_ignored_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DRPOAsyncConfig(output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to="none", **settings)


class Sampling(Worker):
    """The engine's stand-in: samples from the weights that the trainer has published, whenever the queue is empty."""

    temperature = 1.0

    def __init__(self, base: Path):
        super().__init__()
        self.policy = load_policy(str(base), torch.device("cpu"))
        self.rollout_buffer = OnDemand(self)

    def update_model_version(self, version: int) -> None:
        super().update_model_version(version)
        self.policy.model.load_state_dict(self.trainer.model.state_dict())

    trainer: Any

    def sample(self) -> list[RolloutSample]:
        requests = [
            Request(self.policy.tokenizer(prompt)["input_ids"], 4, self.version * 100 + index)
            for index, prompt in enumerate(trl_runs.PROMPTS[:2])
        ]
        sampler = InProcessSampler(self.policy.model.eval(), [self.policy.tokenizer.eos_token_id], 64)
        groups = sampler.sample(requests, SamplingParameters(temperature=self.temperature, max_new_tokens=8))
        made = []
        for index, (request, group) in enumerate(zip(requests, groups, strict=True)):
            rewards = torch.tensor([float(sum(response.token_ids) % 7) for response in group])
            for response, advantage in zip(group, rewards - rewards.mean(), strict=True):
                prompt = list(request.prompt_ids)
                made.append(
                    sample_of(
                        [*prompt, *response.token_ids],
                        [0] * len(prompt) + [1] * len(response.token_ids),
                        [0.0] * len(prompt) + list(response.behavior_logprobs),
                        float(advantage),
                        self.version * 10 + index,
                        self.version,
                    )
                )
        return made


class OnDemand(queue.Queue):
    """Never empty: what is missing is sampled."""

    def __init__(self, worker: Sampling):
        super().__init__()
        self.worker = worker

    def get(self, block: bool = True, timeout: float | None = None) -> RolloutSample:
        if self.empty():
            for sample in self.worker.sample():
                self.put_nowait(sample)
        return super().get(block, timeout)


def run(base: Path, **settings: Any) -> Any:
    worker = Sampling(base)
    trainer = make_async(
        base,
        worker,
        **{
            "max_steps": 4,
            "weight_sync_steps": 1,
            "learning_rate": 1e-3,
            "mismatch_limit": 0.1,
            **settings,
        },
    )
    worker.trainer = trainer
    trainer.train()
    return trainer


def test_the_loop_trains_measures_and_logs(base: Path, tmp_path: Path) -> None:
    """The loader pulls a batch ahead, so that every update but the first is one update off policy."""
    trainer = run(base, output_dir=str(tmp_path), log_tokens=True)
    logged = [entry for entry in trainer.state.log_history if "drpo/shift" in entry]
    assert trainer.state.global_step == 4 and len(logged) == 4
    assert all(math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in logged)
    mismatch = [entry["drpo/mismatch"] for entry in logged]
    assert mismatch[0] < 1e-5 and min(mismatch[1:]) > 1e-4
    assert trainer.rollout_worker.version == 5  # published at the start and after each update
    (start,) = [entry for entry in trainer.state.log_history if "drpo/mu_source" in entry]
    assert start["drpo/mu_source"] == "rollout_worker Sampling" and start["drpo/start_mismatch"] < 1e-5
    records = [
        json.loads(line) for file in sorted((tmp_path / "tokens").iterdir()) for line in file.read_text().splitlines()
    ]
    assert len(records) == 16 and {record["step"] for record in records} == {1, 2, 3, 4}
    assert all(len(record["logprobs"]) == len(record["tokens"]) for record in records)


def test_raw_logprobs_at_a_temperature_stop_a_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampling, "temperature", 2.0)
    with pytest.raises(MismatchError, match="μ is from rollout_worker Sampling"):
        run(base)


def test_the_model_card_cites_the_paper(base: Path, tmp_path: Path) -> None:
    trainer = make_async(base, output_dir=str(tmp_path))
    trainer.create_model_card(model_name="tiny")
    assert "@misc{yao2026rethinking," in (tmp_path / "README.md").read_text(encoding="utf-8")


class Server(ThreadingHTTPServer):
    """The part of a vLLM server that TRL's rollout worker speaks to; it samples from published weights."""

    def __init__(self, base: Path):
        super().__init__(("127.0.0.1", 0), Completions)
        self.policy = load_policy(str(base), torch.device("cpu"))
        self.lock = threading.Lock()
        self.answered = self.published = 0

    def complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        parameters = SamplingParameters(temperature=asked["temperature"], max_new_tokens=asked["max_tokens"])
        with self.lock:
            sampler = InProcessSampler(self.policy.model.eval(), [self.policy.tokenizer.eos_token_id], 8)
            ((response,),) = sampler.sample([Request(asked["prompt"], 1, asked.get("seed", self.answered))], parameters)
            self.answered += 1
        logprobs = {"token_logprobs": list(response.behavior_logprobs)}
        return {"choices": [{"token_ids": list(response.token_ids), "logprobs": logprobs}]}


class Completions(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(self.server.complete(asked)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None: ...


class Publishing(NoTransfer):
    """Puts the weights into the server's own model, where NCCL would."""

    def __init__(self, server: Server):
        self.server = server

    def send_weights(self, iterator: Any) -> None:
        with self.server.lock, torch.no_grad():
            own = dict(self.server.policy.model.named_parameters())
            for name, values in iterator:
                own[name].copy_(values)
        self.server.published += 1


def test_the_loop_with_trls_own_worker_in_its_process(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="TRL's rollout worker needs it")
    monkeypatch.setattr(async_rollout_worker, "is_vllm_available", lambda: True)
    tokenizer: Any = load_policy(str(base), torch.device("cpu")).tokenizer
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.response_template = chat_template_utils.qwen3_template
    server = Server(base)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        prompts = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in trl_runs.PROMPTS]
        trainer = make_async(
            base,
            parts={
                "reward_funcs": trl_runs.length_of_messages,
                "train_dataset": Dataset.from_list(prompts),
                "processing_class": tokenizer,
                "rollout_worker": None,
                "weight_transfer": Publishing(server),
            },
            output_dir=str(tmp_path / "out"),
            vllm_server_base_url=f"http://127.0.0.1:{server.server_port}",
            num_generations=4,
            max_completion_length=8,
            max_steps=4,
            learning_rate=1e-3,
            mismatch_limit=0.1,
        )
        trainer.train()
    finally:
        server.shutdown()
        thread.join()
    logged = [entry for entry in trainer.state.log_history if "drpo/shift" in entry]
    assert len(logged) == 4 and server.answered >= 16 and server.published == 5
    assert logged[0]["drpo/mismatch"] < 1e-5 and logged[0]["drpo/left_out_share"] == 0
    assert all(math.isfinite(entry["loss"]) for entry in logged) and any(entry["grad_norm"] > 0 for entry in logged)
    assert trainer.mu_source.startswith("the vLLM server at http://127.0.0.1:")
