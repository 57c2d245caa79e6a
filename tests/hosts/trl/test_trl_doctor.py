"""`drpo doctor trl` where TRL is."""

from __future__ import annotations

from support.host_doctor import ask


def test_a_sound_environment() -> None:
    found = ask("trl", code=0)
    assert found["trl"]["status"] == found["trainer"]["status"] == "ok"
    assert "rollout_func=InProcessRollouts()" in found["μ"]["found"] or "use_vllm" in found["μ"]["found"]
