"""``python -m drpo.integrations.doctor HOST [--parity] [SETTING]...``: one line of JSON with what was found."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import traceback
from collections.abc import Iterator, Sequence

from drpo.doctor.check import Check
from drpo.doctor.hosts import MARK
from drpo.errors import DrpoError
from drpo.integrations.doctor.parity import check_parity
from drpo.integrations.doctor.version import check_version
from drpo.integrations.hosts import HOSTS


def run(host: str, settings: Sequence[str], parity: bool = False) -> Iterator[Check]:
    """The checks of ``host``, with its ``parity`` if asked for, and the error that ended them if one did."""
    try:
        for distribution, tested in HOSTS[host].tested.items():
            yield check_version(distribution, tested, host)
        yield from importlib.import_module(HOSTS[host].doctor).probe(settings)
        if parity:
            yield check_parity(importlib.import_module(HOSTS[host].parity).make_path())
    except DrpoError as error:  # says itself how to fix it
        yield Check(status="problem", what=host, found=str(error))
    except Exception as error:  # whatever a host's import may raise is a finding
        frame = traceback.extract_tb(error.__traceback__)[-1]
        yield Check(
            status="problem",
            what=host,
            found=f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})",
            fix="Install a tested version (docs/integrations), or report this.",
        )


if __name__ == "__main__":
    name, *settings = (argument for argument in sys.argv[1:] if argument != "--parity")
    found = [dataclasses.asdict(check) for check in run(name, settings, "--parity" in sys.argv)]
    sys.stdout.write(f"\n{MARK}{json.dumps(found)}\n")
