"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def copyist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's directory that half knows the `copy` task with two letters of "abcd"."""
    import tiny

    return tiny.save_copyist(tmp_path_factory.mktemp("models") / "copyist")
