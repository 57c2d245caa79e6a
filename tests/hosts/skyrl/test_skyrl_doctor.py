"""`drpo doctor skyrl` where SkyRL is. On Python 3.11 SkyRL 0.3.0 cannot be imported, and the doctor says so."""

from __future__ import annotations

import sys

from support.host_doctor import ask


def test_this_environment() -> None:
    if sys.version_info < (3, 12):
        found = ask("skyrl", code=1)
        assert found["skyrl"]["status"] == "problem" and "Use Python 3.12" in found["skyrl"]["found"]
    else:
        found = ask("skyrl", code=0)
        assert {found[what]["status"] for what in ("skyrl", "registry", "entry")} == {"ok"}
