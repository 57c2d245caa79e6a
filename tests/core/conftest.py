import hypothesis
from hypothesis import HealthCheck, Phase

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
