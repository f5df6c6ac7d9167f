"""Models with random bf16 weights in the shape of real ones, and a tokenizer with one token per byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from multiverse.structure import MULTIVERSE

END = "<|end|>"
SHAPES = Path(__file__).parents[1] / "recipes" / "shapes"
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}


def shape_config(shape: str, **changes: Any) -> Qwen2Config:
    """Configuration of a file of `recipes/shapes`, by its stem, or of ``tiny``.

    Args:
        shape: such as ``qwen2.5-0.5b``.
        changes: fields that differ.
    """
    values: dict[str, Any] = dict(_TINY) if shape == "tiny" else json.loads((SHAPES / f"{shape}.json").read_text())
    values.pop("model_type", None)
    values |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "dtype": "bfloat16"}
    return Qwen2Config(**values | {"bos_token_id": None, "eos_token_id": None} | changes)


QWEN_05B = shape_config("qwen2.5-0.5b")


def random_model(config: Qwen2Config = QWEN_05B, device: str = "cpu") -> Any:
    """A model with random bf16 weights, created on the device; the same in every run on one device."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def weight_bytes(model: Any) -> int:
    """Bytes of weights that a decode step reads.

    An input embedding is looked up, not read, unless it is the output layer as well.
    """
    embedding: int = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.nbytes
    total: int = sum(weight.nbytes for weight in model.parameters())
    return total - embedding


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte and one per tag, so a script has as many tokens as it has letters; `END` ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in MULTIVERSE.tags])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
