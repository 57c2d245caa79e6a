"""A tiny Llama in a GGUF file, as llama.cpp's converter lays it out, and the model that it was made from."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
#: "12" must never become a token: a digit is a word of its own.
MERGES = ("Ġ Ġ", "1 2", "Ġ 1", "a b")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}


def vocabulary() -> list[str]:
    """Special tokens, bytes, merged pairs."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in MERGES)]


def reference_tokenizer() -> Tokenizer:
    """What a converted tokenizer must be like; of plain text, without special tokens."""
    merges = [(left, right) for left, right in (merge.split(" ") for merge in MERGES)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(vocabulary())}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def write(file: Path, words: str = "smollm") -> LlamaForCausalLM:
    """Write ``file``; returns the model with the weights that the file holds, matrices rounded to 4 bits."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    torch.manual_seed(0)
    heads = {"q_proj": 4, "k_proj": 2}
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=heads["q_proj"],
        num_key_value_heads=heads["k_proj"],
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads["q_proj"])
    writer.add_head_count_kv(heads["k_proj"])
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads["q_proj"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words)
    writer.add_token_list(vocabulary())
    writer.add_token_types([3] * len(SPECIAL) + [1] * (config.vocab_size - len(SPECIAL)))
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)  # attention that attends: an order of heads can be wrong
            values = weight.numpy()
            if weight.dim() > 1:
                values = quants.dequantize(
                    quants.quantize(values, GGMLQuantizationType.Q4_1), GGMLQuantizationType.Q4_1
                )
                weight.copy_(torch.from_numpy(values))
            if count := heads.get(name.split(".")[-2]):  # llama.cpp rotates neighbors, transformers a head's halves
                values = values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
            kind = GGMLQuantizationType.Q4_1 if weight.dim() > 1 else GGMLQuantizationType.F32
            writer.add_tensor(_name(name), quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _name(name: str) -> str:
    """The name of a weight in the file."""
    plain = name.removesuffix(".weight")
    if not plain.startswith("model.layers."):
        return f"{_NAMES[plain]}.weight"
    layer, _, part = plain.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_NAMES[part]}.weight"
