"""Does SkyRL import here at all, and does it know our loss once it is registered?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from drpo.doctor.check import Check


def probe(_: Sequence[str]) -> Iterator[Check]:
    """Registration, what the rest of SkyRL-Train needs, and where μ is from."""
    ours = importlib.import_module("drpo.integrations.skyrl")
    ours.register()
    known = ours.PolicyLossRegistry.list_available()
    if ours.NAME in known:
        yield Check(
            status="ok",
            what="registry",
            found=f"policy_loss_type={ours.NAME} is registered by "
            "`python -m drpo.integrations.skyrl`, or by register() in a script of yours",
        )
    else:
        yield Check(
            status="problem",
            what="registry",
            found=f"after register() SkyRL lists {', '.join(known)}",
            fix="Install a tested version of SkyRL (docs/integrations/skyrl.md).",
        )
    try:
        importlib.import_module("drpo.integrations.skyrl.entry")
        yield Check(status="ok", what="entry", found="python -m drpo.integrations.skyrl can start")
    except ImportError as error:
        yield Check(
            status="problem",
            what="entry",
            found=f"SkyRL's trainer cannot be imported: {error}",
            fix="pip install 'skyrl[fsdp]' on a machine with CUDA",
        )
    yield Check(
        status="note",
        what="μ",
        found="rollout_logprobs of the engine; the entry script refuses a configuration without them",
    )
