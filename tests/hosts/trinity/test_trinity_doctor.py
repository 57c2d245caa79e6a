"""`drpo doctor trinity` where Trinity-RFT is."""

from __future__ import annotations

from drpo.integrations.hosts import HOSTS
from drpo.integrations.trinity import NAME, DRPOPolicyLoss
from support.host_doctor import ask


def test_this_environment() -> None:
    found = ask("trinity", code=0)
    assert {found[what]["status"] for what in (*HOSTS["trinity"].tested, "policy loss", "trainer")} == {"ok"}
    assert NAME in found["policy loss"]["found"] and found["trainer"]["found"] == "verl and tinker"
    assert found["μ"]["status"] == "note"


def test_the_name_is_that_of_the_class() -> None:
    assert f"{DRPOPolicyLoss.__module__}.{DRPOPolicyLoss.__qualname__}" == NAME
