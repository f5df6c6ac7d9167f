"""What everything is measured on: the shape of Qwen2.5-0.5B with random bf16 weights, and a tokenizer easy to count with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from multiverse.structure import MULTIVERSE

END = "<|end|>"

# https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json
QWEN_05B = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    max_position_embeddings=32768,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=None,
    dtype="bfloat16",
)


def random_model() -> Any:
    """The same random weights in every run."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(QWEN_05B).bfloat16().eval()


SHAPES = Path(__file__).parents[1] / "recipes" / "shapes"


def shaped_model(shape: str, device: str = "cpu") -> Any:
    """Random bf16 weights of a shape of `recipes/shapes`, made where they are to be; the same in every run on one device."""
    fields = json.loads((SHAPES / f"{shape}.json").read_text())
    config = AutoConfig.for_model(fields.pop("model_type"), bos_token_id=None, eos_token_id=None, **fields)
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def weight_bytes(model: Any) -> int:
    """Bytes that a decode step has to read: every weight once (the embedding is tied, and read whole as the output layer)."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte and one a tag, so that a script has as many tokens as it has letters; `END` ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in MULTIVERSE.tags])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
