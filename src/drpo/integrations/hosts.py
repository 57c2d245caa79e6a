"""The one table of hosts: other people's trainers that have a plug-in here.

`drpo doctor`, `drpo recipe`, the command line's help, `tools/` and the tests of the documentation read it.
It imports neither torch nor a host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRun:
    """How a recipe becomes a run of the host.

    Args:
        module: what ``python -m`` runs with the settings as its arguments.
        dry_run: the module that checks settings with the host's own code. It is run by name, in a process of its own:
            nothing imports a plug-in, and a host's imports patch, log and read the environment.
        needed: module → how to get it, for what must be importable before a check or a run.
        objective_key: the setting that takes the objective's name.
        parameter_prefix: what stands before the name of a parameter of the objective.
        on_ray: whether a run can join a Ray cluster.
    """

    module: str
    dry_run: str
    needed: dict[str, str]
    objective_key: str
    parameter_prefix: str
    on_ray: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host.

    Args:
        name: on the command line; also the name of its page in docs/integrations.
        title: as its authors write it.
        distribution: the package whose metadata tells the installed version.
        tested: distribution → the range in which the tests ran, and whose internals were read.
        install: how to get the host.
        package: the plug-in's package, with the modules ``doctor`` and ``parity``.
        extra: its extra in pyproject.toml; None with a ``reason``.
        constraints: the file that pins its environment; None with a ``reason``.
        reason: why there is no extra, no pinned environment and no make target.
        doctor_takes_settings: whether `drpo doctor` checks the settings of a run too.
        run: how recipes run; None where there are none.
    """

    name: str
    title: str
    distribution: str
    tested: dict[str, str]
    install: str
    package: str
    extra: str | None = None
    constraints: str | None = None
    reason: str = ""
    doctor_takes_settings: bool = False
    run: HostRun | None = None

    @property
    def doctor(self) -> str:
        """The module with ``probe(settings)``, which yields checks."""
        return f"{self.package}.doctor"

    @property
    def parity(self) -> str:
        """The module with ``make_path()``, a :class:`drpo.integrations.parity.HostPath`."""
        return f"{self.package}.parity"

    @property
    def key(self) -> str:
        """The name in Python and in file names."""
        return self.name.replace("-", "_")


_TRL = Host(
    name="trl",
    title="TRL",
    distribution="trl",
    tested={"trl": ">=1.14.1,<1.17"},
    install="pip install 'trl>=1.14.1,<1.17'",
    package="drpo.integrations.trl",
    extra="trl",
    constraints="constraints.txt",
    run=HostRun(
        module="drpo.integrations.trl.gsm8k",
        dry_run="drpo.integrations.trl.gsm8k",
        needed={"trl": "pip install 'trl>=1.14.1,<1.17'"},
        objective_key="objective",
        parameter_prefix="objective_parameters.",
    ),
)
_VERL = Host(
    name="verl",
    title="verl",
    distribution="verl",
    tested={"verl": "==0.9.*"},
    install="pip install verl, and vLLM or SGLang as its installation page says",
    package="drpo.integrations.verl_plugin",
    extra="verl",
    constraints="constraints/verl.txt",
    doctor_takes_settings=True,
    run=HostRun(
        module="verl.trainer.main_ppo",
        dry_run="drpo.integrations.verl_plugin.dry_run",
        needed={
            "verl": "pip install verl==0.9.1, and vLLM as verl's installation page says",
            "ray": "pip install 'ray[default]'",
        },
        objective_key="actor_rollout_ref.actor.policy_loss.objective",
        parameter_prefix="+actor_rollout_ref.actor.policy_loss.parameters.",
        on_ray=True,
    ),
)
_TINKER = Host(
    name="tinker",
    title="Tinker",
    distribution="tinker",
    tested={"tinker": "==0.38.*", "tinker-cookbook": ">=0.5.8,<0.7"},
    install="pip install tinker",
    package="drpo.integrations.tinker",
    extra="tinker",
    constraints="constraints/tinker.txt",
)
_PRIME_RL = Host(
    name="prime-rl",
    title="prime-rl",
    distribution="prime-rl",
    tested={"prime-rl": "==0.8.*"},
    install="Install prime-rl from its repository, and drpo into the same environment.",
    package="drpo.integrations.prime_rl",
    reason="prime-rl is not on a package index and needs CUDA to install; its contract is tested without it",
)
_SKYRL = Host(
    name="skyrl",
    title="SkyRL",
    distribution="skyrl",
    tested={"skyrl": ">=0.3,<0.5"},
    install="pip install skyrl",
    package="drpo.integrations.skyrl",
    extra="skyrl",
    constraints="constraints/skyrl.txt",
)
_UNIRL = Host(
    name="unirl",
    title="UniRL",
    distribution="unirl",
    tested={"unirl": "==0.2.*"},
    install="pip install unirl (Python 3.12 or newer)",
    package="drpo.integrations.unirl",
    extra="unirl",
    constraints="constraints.txt",
)

_TRINITY = Host(
    name="trinity",
    title="Trinity-RFT",
    distribution="trinity-rft",
    tested={"trinity-rft": "==0.6.*", "verl": "==0.9.*"},
    install="pip install trinity-rft, with its extra vllm or tinker",
    package="drpo.integrations.trinity",
    extra="trinity",
    constraints="constraints/verl/trinity.txt",
)
_MS_SWIFT = Host(
    name="ms-swift",
    title="ms-swift",
    distribution="ms-swift",
    tested={"ms-swift": "==4.6.*"},
    install="pip install ms-swift msgspec, and vLLM",
    package="drpo.integrations.ms_swift",
    extra="ms-swift",
    constraints="constraints/verl/ms-swift.txt",
)

#: Name → host, in the order of every list and table.
HOSTS: dict[str, Host] = {
    host.name: host for host in (_TRL, _VERL, _TINKER, _PRIME_RL, _SKYRL, _UNIRL, _TRINITY, _MS_SWIFT)
}


def run_of(host: str) -> HostRun:
    """How recipes of ``host`` run."""
    run = HOSTS[host].run
    assert run is not None, f"{host} has no recipes"  # a recipe's file is checked when it is read
    return run


def names(choices: Iterable[str] = HOSTS) -> str:
    """The names in words: ``a, b or c``."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last
