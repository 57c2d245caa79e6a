"""`drpo doctor tinker` where its SDK is."""

from __future__ import annotations

import pytest

from support.host_doctor import ask


def test_a_sound_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    found = ask("tinker", code=0)
    assert {found[what]["status"] for what in ("tinker", "tinker-cookbook", "custom loss")} == {"ok"}
    assert found["service"]["status"] == "warning" and "TINKER_API_KEY" in found["service"]["fix"]
    monkeypatch.setenv("TINKER_API_KEY", "tml-something")
    assert ask("tinker", code=0)["service"]["status"] == "ok"
