"""The shape of the mini model: a small Qwen3, so that it runs like any large checkpoint of that family.

It is small enough to train on tens of millions of tokens per hour on two cores. Its weights take less than 16 MiB in fp32, so
that they can be part of the package.
"""

from __future__ import annotations

from typing import NamedTuple

from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM


class Shape(NamedTuple):
    """Width, depth and heads of a model."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    head_dim: int = 64


SHAPES = {
    "mini": Shape(width=256, layers=4, heads=4, kv_heads=2, intermediate=768, head_dim=32),
    "small": Shape(width=192, layers=4, heads=3, kv_heads=1, intermediate=576),
    "deep": Shape(width=192, layers=6, heads=4, kv_heads=2, intermediate=512, head_dim=32),
    "paper": Shape(width=192, layers=4, heads=6, kv_heads=2, intermediate=576, head_dim=32),
    "test": Shape(width=32, layers=2, heads=2, kv_heads=1, intermediate=48, head_dim=16),
}


def build_model(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> Qwen3ForCausalLM:
    """A model with fresh weights (from torch's global generator) for this tokenizer."""
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.set_attn_implementation("sdpa")  # accepts a boolean mask, which eager would misinterpret
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model
