"""Is our loss really in verl's registry (verl swallows what a plug-in raises), and will μ be the rollout's?"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version

from drpo.doctor.check import Check

GROUP = "verl.plugins"
POLICY = "VERL_USE_EXTERNAL_PLUGINS"


def probe(settings: Sequence[str]) -> Iterator[Check]:
    """Registration, the engines, and with ``settings`` the configuration of a run."""
    yield from check_registration()
    yield check_trainer()
    yield check_rollout()
    if settings:
        yield check_configuration(settings)
    else:
        yield Check(
            status="note",
            what="μ",
            found="depends on the run's configuration: `drpo doctor verl OVERRIDE…` composes and checks it",
        )


def check_registration() -> Iterator[Check]:
    """Whether importing verl alone puts our loss into its registry."""
    policy = os.environ.get(POLICY, "auto")
    if not any(point.name == "drpo" for point in entry_points(group=GROUP)):
        yield Check(
            status="problem",
            what="plug-in",
            found=f"the entry point {GROUP} does not name drpo: it is on the path without being installed",
            fix="install drpo into this environment: pip install . in a clone of it",
        )
    elif policy != "auto" and "drpo" not in policy.split(","):
        yield Check(
            status="problem",
            what="plug-in",
            found=f"{POLICY}={policy} keeps verl from loading it",
            fix=f"unset {POLICY}, or add drpo to it",
        )
    registry = importlib.import_module("verl.trainer.ppo.core_algos").POLICY_LOSS_REGISTRY
    ours = importlib.import_module("drpo.integrations.verl_plugin.checks")
    name = "drpo"
    if name in registry and registry[name].__module__.startswith("drpo."):
        yield Check(
            status="ok",
            what="registry",
            found=f"loss_mode={name} is {registry[name].__module__}.{registry[name].__qualname__}",
        )
    elif name in registry:
        yield Check(
            status="problem",
            what="registry",
            found=f"loss_mode={name} is {registry[name].__module__}, not ours",
            fix="Remove the other package that registers this name.",
        )
    else:
        yield registration_error()
    preset = importlib.import_module("drpo.integrations.verl_plugin.presets")
    yield Check(status="ok", what="preset", found=f"{ours.PRESET} ({', '.join(preset.__path__)})")


def registration_error() -> Check:
    """Why our loss is not registered: what verl swallowed."""
    try:
        importlib.import_module("drpo.integrations.verl")
    except Exception as error:  # the error is the finding
        return Check(
            status="problem",
            what="registry",
            found=f"loss_mode=drpo is not registered: importing "
            f"drpo.integrations.verl raises {type(error).__name__}: {error}",
            fix="Install a tested version of verl (docs/integrations/verl.md).",
        )
    return Check(
        status="warning",
        what="registry",
        found="loss_mode=drpo is registered only once drpo.integrations.verl is imported",
        fix="Use the preset, whose _target_ imports it in every worker, or install drpo.",
    )


def check_trainer() -> Check:
    """The V1 trainer, which hands the rollout's log-probabilities on, needs TransferQueue."""
    if importlib.util.find_spec("transfer_queue") is None:
        return Check(
            status="problem",
            what="trainer",
            found="TransferQueue is missing: verl's V1 trainer does not start without it",
            fix="pip install 'TransferQueue>=0.1.10'",
        )
    return Check(status="ok", what="trainer", found="V1 (TransferQueue is installed)")


def check_rollout() -> Check:
    """An engine that reports log-probabilities."""
    found = []
    for engine in ("vllm", "sglang"):
        try:
            found.append(f"{engine} {version(engine)}")
        except PackageNotFoundError:
            continue
    if not found and importlib.util.find_spec("vllm") is not None:
        return Check(
            status="problem",
            what="rollout",
            found="vLLM can be imported, but no distribution is called vllm, which is what verl looks for",
            fix="Install vllm itself, or see docs/integrations/verl-cpu.md for its CPU build.",
        )
    if not found:
        return Check(
            status="problem",
            what="rollout",
            found="neither vLLM nor SGLang is installed",
            fix="pip install vllm (see verl's installation page for the versions that fit)",
        )
    return Check(status="ok", what="rollout", found=", ".join(found))


def check_configuration(overrides: Sequence[str]) -> Check:
    """What verl and our loss say to the configuration of a run, without starting it."""
    answer = importlib.import_module("drpo.integrations.verl_plugin.dry_run").main(list(overrides))
    if "error" in answer:
        return Check(status="problem", what="run", found=answer["error"], fix="Change that setting and ask again.")
    return Check(status="ok", what="run", found="; ".join(answer["validated"]))
