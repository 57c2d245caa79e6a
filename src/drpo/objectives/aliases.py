"""What hosts call the objectives: one table, of names that were looked up in the host's own code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Alias(NamedTuple):
    """``setting`` of ``host`` is the objective ``name`` here, with ``parameters`` beside its defaults.

    The losses agree for the same anchor: a host that bounds π/π_old wants ``anchor="proximal"`` here.
    """

    host: str
    setting: str
    name: str
    parameters: Mapping[str, Any] = MappingProxyType({})

    @property
    def here(self) -> str:
        """``name(parameter=value, …)``."""
        inside = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.name}({inside})" if inside else self.name


ALIASES = (
    Alias("prime-rl", "ipo", "ipo"),
    Alias("prime-rl", "icepop", "icepop"),
    Alias("prime-rl", "cispo", "cispo"),
    Alias("TRL 1.16", "vespo", "vespo"),
    Alias("TRL 1.16", "luspo", "luspo", {"ratio_low": 0.2, "ratio_high": 0.2}),
    Alias("TRL 1.16", "sapo", "sapo"),
    Alias("TRL 1.16", "cispo", "cispo"),
    Alias("TRL 1.16", "dapo", "ppo"),
    Alias("TRL 1.16", "dr_grpo", "ppo"),
    Alias("verl 0.9.1", "dppo_tv", "dppo_tv"),
    Alias("verl 0.9.1", "dppo_kl", "dppo_kl"),
    Alias("verl 0.9.1", "sapo", "sapo"),
    Alias("verl 0.9.1", "dro", "dro"),
    Alias("verl 0.9.1", "gpg", "dro", {"beta": 0}),
    Alias("verl 0.9.1", "clip_cov", "clip_cov"),
    Alias("verl 0.9.1", "kl_cov", "kl_cov"),
    Alias("SkyRL", "rollout_is", "rollout_is"),
    Alias("SkyRL", "cispo", "cispo", {"ratio_cap": 5}),
    Alias("ms-swift 4.6", "fipo", "fipo", {"ratio_high": 0.2}),
    Alias("ms-swift 4.6", "sapo", "sapo"),
    Alias("Trinity-RFT 0.6", "rec (clip_mode=ring)", "rec_ring"),
    Alias("Tinker", "dro", "dro"),
)


def alias_hint(name: str) -> str:
    """The tail of an "unknown objective …" message: which objective hosts call ``name``; empty if none does."""
    asked = name.lower().replace("-", "_")
    found = [alias for alias in ALIASES if alias.setting.split()[0] == asked]
    hosts = dict.fromkeys(f"{alias.host} calls {alias.here} {alias.setting.split()[0]}" for alias in found)
    return f" {'; '.join(hosts)}." if hosts else ""
