"""The same gradient through verl as from us: every objective that verl can feed, every way of summing up."""

from __future__ import annotations

import pytest

from drpo.aggregation import MODES, Mode
from drpo.integrations import parity
from drpo.integrations.verl_plugin.parity import VerlPath, make_path

NAMES = parity.names()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_gradient(name: str, mode: Mode) -> None:
    path = make_path()
    agreement = parity.compare(path, {"name": name}, mode)
    assert agreement.worst <= parity.tolerance(path), agreement


@pytest.mark.parametrize("mode", MODES)
def test_gradient_of_two_ranks(mode: Mode) -> None:
    path = VerlPath(ranks=2)
    for name in ("drpo", "gspo", "grpo"):
        agreement = parity.compare(path, {"name": name}, mode)
        assert agreement.worst <= parity.tolerance(path), agreement
