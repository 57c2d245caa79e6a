"""Part ``vllm``: the vLLM sampler against ours on the same model, with the same number of tokens."""

from __future__ import annotations

from collections.abc import Callable

from drpo.bench import sampler
from drpo.bench.frame import Row, Settings, Turn, Watch
from drpo.bench.gpu import Cases
from drpo.bench.gpu.sampling import case, title
from drpo.bench.gpu.steps import QUICK, SHAPES, SIZES, TINY
from drpo.model.policy import Policy
from drpo.rollouts import InProcessSampler
from drpo.rollouts.options import VllmOptions
from drpo.rollouts.vllm.sampler import VllmSampler

VLLM = "VllmSampler"


def cases(settings: Settings) -> Cases:
    """A case a shape."""
    sizes = QUICK if settings.quick else SIZES
    for name in TINY if settings.quick else SHAPES:
        yield title(name, sizes), one_case(settings, name, sizes)


def one_case(settings: Settings, name: str, sizes: tuple[int, int, int]) -> Callable[[Watch], list[Row]]:
    """What measures the shape ``name``; the engine ends with it."""

    def work(watch: Watch) -> list[Row]:
        engines: list[VllmSampler] = []

        def variants(policy: Policy, ids: list[list[int]], count: int, length: int) -> dict[str, Callable[[], Turn]]:
            ours = InProcessSampler(policy.model, (), compiled=settings.compiled)
            engines.append(VllmSampler(policy.model, (), VllmOptions(max_length=2048), note=watch))
            engines[0].load_weights(policy.weights())
            made = {sampler.OURS: ours, VLLM: engines[0]}
            return {name: sampler.of_sampler(one, policy, ids, count, length) for name, one in made.items()}

        try:
            return case(settings, name, sizes, variants)(watch)
        finally:
            for engine in engines:
                engine.close()

    return work
