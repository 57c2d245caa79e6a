"""Prompts as token ids: chat templates and their variables, ends of sequence, tokens without a row."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors

from drpo.errors import ConfigError, DataError
from drpo.model.policy import Policy
from drpo.model.prompts import PromptEncoder, PromptSettings
from support import tiny

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n:.,'<>|/0123456789"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
THINKING = "{% if enable_thinking is not defined %}{{ raise_exception('set enable_thinking') }}{% endif %}" + PLAIN
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + PLAIN
DROPS_SYSTEM = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}assistant: "
PARTS = "{% for m in messages %}{% for p in m.content %}{{ p['text'] }}{% endfor %}{% endfor %}:"


def encoder(template: Any = None, vocabulary: int = 10_000, end: bool = False, **settings: Any) -> PromptEncoder:
    tokenizer = tiny.tokenizer(LETTERS)
    tokenizer.chat_template = template
    if end:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore
            single=f"$A {tiny.END}", special_tokens=[(tiny.END, 0)]
        )
    return PromptEncoder(tokenizer, vocabulary, PromptSettings(**settings))


def text(made: PromptEncoder, *prompt: Any, **options: Any) -> str:
    return made.tokenizer.decode(made.encode(*prompt, **options))


def test_without_a_template_the_prompt_and_a_line_end() -> None:
    assert text(encoder(), "ab") == "ab\n" and text(encoder(), "ab", chat=False) == "ab"


def test_an_end_of_sequence_that_the_tokenizer_appends_is_removed() -> None:
    made = encoder(end=True)
    assert made.tokenizer("ab")["input_ids"][-1] == 0
    for chat in (True, False):
        assert made.encode("ab", chat) == encoder().encode("ab", chat)
    both = encoder()
    both.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single=f"<unk> $A {tiny.END}", special_tokens=[(tiny.END, 0), ("<unk>", 1)]
    )
    assert both.encode("ab", False) == [1, *encoder().encode("ab", False)]


def test_a_template_that_ends_in_an_end_of_sequence_keeps_it() -> None:
    made = encoder("{{ messages[0].content }}" + tiny.END, end=True)
    assert made.encode("ab")[-1] == 0 and made.encode("ab")[-2] != 0


def test_variables_and_a_system_turn_reach_the_template() -> None:
    assert text(encoder(THINKING, template_kwargs={"enable_thinking": False}), "hi") == "user: hi\nassistant: "
    made = encoder(NEEDS_SYSTEM, system_prompt="Be brief.")
    assert text(made, "hi") == "system: Be brief.\nuser: hi\nassistant: "


def test_one_of_several_templates() -> None:
    templates = {"a": "A " + PLAIN, "b": "B " + PLAIN}
    assert text(encoder(templates, template_kwargs={"chat_template": "b"}), "hi").startswith("B user")
    with pytest.raises(ConfigError, match=r"templates: a, b.*chat_template_kwargs.chat_template=NAME"):
        encoder(templates).encode("hi")


def test_a_template_that_reads_parts_alone() -> None:
    assert text(encoder(PARTS), "hello") == "hello:"


def test_the_whole_conversation() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert text(encoder(PLAIN), "a\n\nb\n\nc", turns=turns) == "user: a\nassistant: b\nuser: c\nassistant: "
    assert text(encoder(), "a\n\nb\n\nc", turns=turns) == "a\n\nb\n\nc\n"
    system = [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}]
    with pytest.raises(ConfigError, match="system turn of their own"):
        encoder(PLAIN, system_prompt="x").encode("c", turns=system)


@pytest.mark.parametrize(
    ("template", "settings", "message"),
    [
        (THINKING, {}, r"refuses the prompt: set enable_thinking.*chat_template_kwargs"),
        (NO_SYSTEM, {"system_prompt": "x"}, "System role not supported"),
        (NEEDS_SYSTEM, {}, "no system turn.*system_prompt=TEXT"),
        (DROPS_SYSTEM, {"system_prompt": "xyz"}, "drops system_prompt"),
        ("fixed", {}, "drops the prompt"),
        (PLAIN, {"template_kwargs": {"enable_thinkin": True}}, "enable_thinkin would be ignored"),
        ("{{ messages[7].content.x }}", {}, "refuses the prompt: .*no element 7"),
        ("{{ 1 / 0 }}", {}, "refuses the prompt: division"),
        ("{% if %}", {}, "refuses the prompt"),
        (None, {"system_prompt": "x"}, "system_prompt would be ignored: the tokenizer has no chat template"),
        (None, {"template_kwargs": {"a": 1}}, "chat_template_kwargs.a would be ignored"),
    ],
)
def test_templates_that_refuse(template: str | None, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        encoder(template, **settings).encode("hi")
    assert "\n" not in str(caught.value)


def test_a_setting_for_prompts_that_are_plain_text() -> None:
    with pytest.raises(ConfigError, match="plain text"):
        encoder(PLAIN, system_prompt="x").encode("hi", chat=False)


def test_what_is_set_here_cannot_be_set() -> None:
    for key in ("tokenize", "add_generation_prompt"):
        with pytest.raises(ConfigError, match=f"{key} cannot be set"):
            PromptSettings(None, {key: True})


def test_a_token_without_a_row_is_refused_where_it_is_used() -> None:
    made = encoder(vocabulary=10)
    assert not made.covers_tokenizer and encoder().covers_tokenizer
    assert made.encode("ab", False) == [2, 3]
    with pytest.raises(DataError, match=r"larger than the model: .*token \d+ \('z'\).* 10 rows"):
        made.encode("abz", False)


@pytest.mark.parametrize("prompt", ["a\ud83d", "\udc00", "x" * 50 + "\ud800" + "y" * 50])
def test_half_of_a_surrogate_pair_is_refused(prompt: str) -> None:
    with pytest.raises(DataError, match=r"surrogate pair .* at character"):
        encoder(PLAIN).encode(prompt)
    with pytest.raises(ConfigError, match=r"system_prompt holds half of a surrogate pair"):
        PromptSettings(prompt)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="no tokens from the prompt"):
        encoder(end=True).encode("", False)


def test_the_policy_encodes_with_its_settings() -> None:
    tokenizer = tiny.tokenizer(LETTERS)
    tokenizer.chat_template = PLAIN
    policy = Policy(tiny.model(len(tokenizer)), tokenizer)
    policy.prompt_settings = PromptSettings("sys")
    assert "system: sys\nuser: hi" in str(tokenizer.decode(policy.encode("hi")))
    with pytest.raises(DataError, match="20 rows"):
        Policy(tiny.model(20), tokenizer).encode("Z")
