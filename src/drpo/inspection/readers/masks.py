"""Columns that say which tokens are trained on: every trainer has its own name for them, and some have several."""

from __future__ import annotations

import re
from collections.abc import Collection

from drpo.errors import DataError

#: The name of such a column in `--map`.
MASK = "mask"
#: Masks of tokens that are kept where they are not 0. A token is kept if all of them keep it: TRL multiplies
#: completion_mask and tool_mask, NeMo-RL token_mask and sample_mask (one value a response; token_loss_mask and
#: sample_loss_mask in its log), SkyRL and AReaL write
#: loss_mask within response_mask.
KEEPS = (
    "mask",
    "masks",
    "response_mask",
    "response_masks",
    "completion_mask",
    "completion_masks",
    "loss_mask",
    "loss_masks",
    "action_mask",
    "action_masks",
    "token_mask",
    "token_masks",
    "assistant_mask",
    "assistant_masks",
    "tool_mask",
    "tool_masks",
    "sample_mask",
    "sample_masks",
    "token_loss_mask",
    "sample_loss_mask",
)
#: Masks of padding or of the prompt, over other positions than the response's: a mask above covers what they say of a
#: response, and alone they say too little. The last one is SkyRL's, of tokens without a recorded route.
COVERED = (
    "attention_mask",
    "attention_masks",
    "prompt_mask",
    "prompt_masks",
    "completion_attention_mask",
    "router_padding_mask",
)
#: What a loss did with a token, which says nothing about whose token it is (prime-rl).
VERDICTS = ("is_masked", "is_masked_high", "is_masked_low")

#: Names that end in mask, and flags that say what kind of token it is: is_pad, is_prompt_token, is_tool.
_LIKE_A_MASK = re.compile(
    r"mask(s|ed)?(_?\d+)?$|^is_?(pad(ding|ded)?|prompt|response|completion|assistant|tool|generated)(_?tokens?)?$",
    re.IGNORECASE,
)


def resolve_masks(present: Collection[str], where: str) -> list[str]:
    """The masks among the names ``present`` that leave tokens out, in their order.

    Raises:
        DataError: a column looks like a mask, and what it means is not known.
    """
    masks = [name for name in present if name in KEEPS]
    unclear = [
        name
        for name in present
        if _LIKE_A_MASK.search(name) and name not in KEEPS and name not in VERDICTS and not (masks and name in COVERED)
    ]
    if unclear:
        raise DataError(_question(masks, unclear[0], where))
    return masks


def _question(masks: list[str], name: str, where: str) -> str:
    others = "+".join(masks) or "none"
    without = f"by {' and '.join(masks)} alone" if masks else "all tokens"
    both = "+".join([*masks, name])
    return (
        f"{where}: the column {name!r:.80} looks like a mask, and whether it keeps or leaves out the tokens where it "
        f"is not 0 is not known. If it keeps them, add --map {MASK}={both:.200}; to go without it ({without}), add "
        f"--map {MASK}={others}."
    )
