"""Which tokens are no part of a response's text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Tokens that start or end a turn, in tokenizers without a chat template as well.
_KNOWN_MARKERS = re.compile(
    r"<\|(im_start|im_end|im_sep|eot_id|eom_id|start_header_id|end_header_id|endoftext|end_of_text|begin_of_text|eot|eom|"
    r"header_start|header_end|start|end|message|channel|return|user|assistant|system|observation|"
    r"start_of_role|end_of_role|end_of_turn|turn_end|"
    r"START_OF_TURN_TOKEN|END_OF_TURN_TOKEN|USER_TOKEN|CHATBOT_TOKEN|SYSTEM_TOKEN)\|>"
    r"|<(start_of_turn|end_of_turn|bos|eos|pad|end_of_utterance|turn\||\|turn)>"
    r"|<\N{FULLWIDTH VERTICAL LINE}(User|Assistant)\N{FULLWIDTH VERTICAL LINE}>"
)
_TAG = re.compile(r"</?(\w[\w-]*)>")
_CONTENTS = ("drpoQuestion", "drpoReply", "drpoFollowUp")


def tokens_outside_text(tokenizer: Any, stop_ids: Iterable[int]) -> frozenset[int]:
    """The ids of the tokens that end a response, pad it, or start or end a turn.

    Other special tokens belong to the text: a tokenizer may hold ``<answer>`` and ``</answer>`` as special tokens, and
    a task reads what stands between them.
    """
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *stop_ids} - {None}
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= {tokenizer.convert_ids_to_tokens(number): number for number in tokenizer.all_special_ids}
    between = _text_between_turns(tokenizer)
    for text, number in special.items():
        if _KNOWN_MARKERS.fullmatch(text) or (text in between and not _is_tag(text, special)):
            ids.add(number)
    return frozenset(ids)


def _text_between_turns(tokenizer: Any) -> str:
    """What the chat template writes around the contents of its turns; empty without a template."""
    if not tokenizer.chat_template:
        return ""
    turns = [
        {"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), _CONTENTS, strict=True)
    ]
    import jinja2

    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (jinja2.TemplateError, ValueError, TypeError, LookupError):  # it does not take such turns
        return ""
    for content in _CONTENTS:
        text = text.replace(content, " ")
    return text


def _is_tag(text: str, special: Iterable[str]) -> bool:
    """Whether it opens or closes a part of a response, as <think> and </think> do."""
    match = _TAG.fullmatch(text)
    return match is not None and f"<{match[1]}>" in special and f"</{match[1]}>" in special
