"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drpo.cpus import wait_briefly


def pytest_configure() -> None:
    """Load torch as the tests need it, before any of them does."""
    wait_briefly()  # as the command does: idle threads leave the CPUs to the other workers' tests
    import torch

    torch.set_num_threads(1)
    # Triton reads it when it is imported, which torch does not do by itself. A GPU runs the kernels.
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _every_test_may_be_the_first_to_be_warned() -> None:
    """`drpo` warns of a vacuous delta once a process; a test must not depend on which ran before it."""
    from drpo.objectives import regularized

    regularized._warn_vacuous_delta.cache_clear()


@pytest.fixture(scope="session")
def copyist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's directory that half knows the `copy` task with two letters of "abcd"."""
    from support import tiny

    return tiny.save_copyist(tmp_path_factory.mktemp("models") / "copyist")
