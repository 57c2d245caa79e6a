"""What torch frees stays with the process, unless the user chose otherwise."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from drpo.allocator import CHOSEN, keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system has another allocator than glibc's")

#: Frees and allocates 16 blocks of 16 MB; prints the pages that the system had to clear for them.
CODE = """
import json, resource, sys
import torch
from drpo.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def work():
    for _ in range(16):
        torch.full((4_000_000,), 1.0)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(json.dumps({"kept": kept, "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before}))
"""


def run(what: str, **changes: str) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN} | changes
    command = [sys.executable, "-c", CODE, what]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


@glibc
def test_memory_is_cleared_once() -> None:
    """16 blocks of 3,900 pages of 4 kB are 62,500 pages; of larger pages there are fewer."""
    given_back, kept = run("leave"), run("keep")
    assert kept["kept"] is True
    assert kept["faults"] <= given_back["faults"] / 10


@glibc
def test_what_the_user_chose_stays() -> None:
    assert run("keep", MALLOC_TOP_PAD_="0")["kept"] is False


@pytest.mark.parametrize("name", CHOSEN)
def test_every_choice_counts(name: str) -> None:
    assert keep_freed_memory({name: "1"}) is False
