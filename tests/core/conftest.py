import hypothesis
import pytest
from hypothesis import HealthCheck, Phase

from drpo.kernels import chunks

# Reproducible and blind to the clock: the machines that run these tests are shared, and a test that fails once
# must fail again.
hypothesis.settings.register_profile(
    "core",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    max_examples=60,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
hypothesis.settings.load_profile("core")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of CHUNK_ROWS rows whatever the vocabulary, so that small tests go beyond one."""
    monkeypatch.setattr(chunks, "CHUNK_NUMBERS", 0)
