"""Models whose rotary frequencies depend on the longest sequence of a forward pass.

Longrope takes one set of frequencies up to its original length and another beyond it, for all positions of all rows;
dynamic NTK scaling makes new ones for every length beyond, and keeps them for the passes after. So log π of a token is
not a function of what stands before it alone, and rows of one pass have to stand on one side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drpo.errors import DataError


@dataclass(frozen=True, slots=True)
class RopeRegimes:
    """``longrope`` and ``dynamic`` are the lengths up to which a model has its first frequencies; None: at any."""

    longrope: int | None = None
    dynamic: int | None = None

    @classmethod
    def of(cls, model: Any) -> RopeRegimes:
        """Those of a causal LM of transformers, from its configuration."""
        config = model.config.get_text_config()
        bounds: dict[str, list[int]] = {"longrope": [], "dynamic": []}
        for parameters in _rope_parameters(config):
            kind = str(parameters.get("rope_type", parameters.get("type", "default")))
            if kind == "longrope":
                bounds["longrope"].append(
                    parameters.get("original_max_position_embeddings")
                    or getattr(config, "original_max_position_embeddings", None)
                    or config.max_position_embeddings
                )
            elif "dynamic" in kind:
                bounds["dynamic"].append(config.max_position_embeddings)
        return cls(*(min(bounds[kind], default=None) for kind in ("longrope", "dynamic")))

    def side(self, length: int) -> bool:
        """Which sequences may go through the model together: those of one side.

        Raises:
            DataError: no pass gives a sequence of ``length`` tokens a log π of its own.
        """
        if self.dynamic is not None and length > self.dynamic:
            raise DataError(
                f"a sequence of {length} tokens is beyond the {self.dynamic} positions from which this model's dynamic "
                "rope scaling changes its frequencies with every length, so that log π of a token depends on what "
                "comes after it. Keep prompt and max_new_tokens within them, or set another rope_type (yarn) in the "
                "model's config.json."
            )
        return self.longrope is not None and length > self.longrope

    def check(self, prompt_lengths: Iterable[int], max_new_tokens: int) -> None:
        """That no response crosses over to other frequencies: the tokens before would be sampled at a policy that the
        whole sequence does not have.

        Raises:
            DataError: one can.
        """
        for length in prompt_lengths:
            if self.side(length) != self.side(length + max_new_tokens):
                raise DataError(
                    f"a prompt of {length} tokens and max_new_tokens={max_new_tokens} can cross {self.longrope} "
                    "positions, where this model's longrope scaling changes its frequencies: log π of the whole "
                    "sequence then differs from the log-probabilities sampled before. Lower max_new_tokens to "
                    f"{(self.longrope or 0) - length}, or set another rope_type (yarn) in the model's config.json."
                )


def _rope_parameters(config: Any) -> Iterator[Mapping[str, Any]]:
    """One for the model, or one for each type of layer."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in found.values() if isinstance(value, Mapping)]
    yield from nested or [found]
