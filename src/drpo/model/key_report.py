"""Names of weights: what a checkpoint lacks, holds beyond need, or holds in another shape, as an error or a note."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError

#: What leaves such a segment in the names of weights.
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DistributedDataParallel or DeepSpeed",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning",
    "base_model": "peft",
    "pretrained_model": "a value head of TRL",
}
#: Parts of a checkpoint beside the language model: towers of other senses, heads for other ends, extra prediction.
_BESIDE = re.compile(
    r"(vision|visual|image|audio|speech|video|talker|code2wav|projector|connector|merger|perceiver|resampler|mtp|"
    r"v_head|value_head|critic|score|reward|classifier|qa_outputs)"
)
#: Buffers that older versions saved, and which are computed now.
_COMPUTED = re.compile(r"(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|masked_bias|attn\.bias)$")
_SHOWN = 3


def check_keys(model: Any, info: Any, directory: Path) -> list[str]:
    """Compare names and shapes of the checkpoint with the model's, by transformers' loading info.

    Returns:
        notes about what is left out and does no harm.

    Raises:
        ConfigError: weights are missing or of another shape, or the language model has no place for some.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    missing = sorted(key for key in info["missing_keys"] if key in parameters)
    buffers = sorted(set(info["missing_keys"]) - set(missing))
    unexpected = sorted(key for key in info["unexpected_keys"] if not _COMPUTED.search(key))
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        name, theirs, ours = mismatched[0]
        raise ConfigError(
            f"model: {directory}: {len(mismatched)} weights have another shape than config.json "
            f"asks for, for example {name}: {list(theirs)} in the file, {list(ours)} in the model. Take "
            "config.json and weights from one place."
        )
    beside = [key for key in unexpected if _is_beside(model, key)]
    foreign = sorted(set(unexpected) - set(beside))
    if missing or foreign:
        raise ConfigError(
            f"model: {directory} does not hold the model that its config.json describes: "
            f"{_difference(missing, foreign, len(parameters))}. "
            f"{likely_reason(missing, foreign) or _advice(missing)}"
        )
    notes = []
    if beside:
        notes.append(
            f"{len(beside)} weights of {directory} are not part of the language model and are not used "
            f"({examples(beside)})"
        )
    if buffers:
        notes.append(
            f"{len(buffers)} buffers are not in {directory} and have their initial values ({examples(buffers)})"
        )
    return notes


def _difference(missing: Collection[str], foreign: Collection[str], needed: int) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {needed} weights are missing ({examples(missing)})")
    if foreign:
        parts.append(f"it holds {len(foreign)} unexpected ones ({examples(foreign)})")
    return " and ".join(parts)


def _advice(missing: Collection[str]) -> str:
    if not missing:
        return "Take config.json and weights from one place: the weights are of a larger or another model."
    return "Download the checkpoint again, or save it with save_pretrained."


def likely_reason(missing: Iterable[str], foreign: Iterable[str]) -> str | None:
    """If the foreign names are the missing ones with something added: what, who adds it, and the fix."""
    wanted = set(missing)
    for key in list(foreign)[:20]:
        segments = key.split(".")
        for start in range(len(segments)):
            for end in range(start + 1, len(segments)):
                if ".".join(segments[:start] + segments[end:]) not in wanted:
                    continue
                added = segments[start:end]
                author = next((_WRAPPERS[part] for part in added if part in _WRAPPERS), None)
                by = f", which {author} adds" if author else ""
                where = "begin with" if start == 0 else "contain"
                return (
                    f"The names {where} '{'.'.join(added)}.'{by}: save the unwrapped model with save_pretrained, "
                    "or take that part out of every name in the file."
                )
    return None


def examples(keys: Collection[str]) -> str:
    """A few of ``keys``, shortened."""
    shown = [key if len(key) <= 90 else f"{key[:45]}…{key[-44:]}" for key in list(keys)[:_SHOWN]]
    return ", ".join([*shown, "…"] if len(keys) > _SHOWN else shown)


def _is_beside(model: Any, key: str) -> bool:
    """Whether ``key`` lies outside of every module of the language model, in a part with a known other purpose."""
    for base in ("", model.base_model_prefix, f"{model.base_model_prefix}.model"):
        inner = key.removeprefix(f"{base}.") if base and key.startswith(f"{base}.") else key
        head = inner.split(".", 1)[0]
        if _BESIDE.search(head) and head not in dict(model.base_model.named_children()):
            return True
    return False
