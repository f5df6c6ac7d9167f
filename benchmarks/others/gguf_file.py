"""Converts Qwen2 and Qwen3 models saved by transformers (one safetensors file, bf16 or fp32) to GGUF files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # llama.cpp's types of tokens


class Tensor(NamedTuple):
    """A tensor of the safetensors file: its type there (``BF16`` or ``F32``), and its raw numbers."""

    name: str
    kind: str
    values: NDArray[Any]


def convert(folder: Path, target: Path, *, vocabulary: bool = False) -> None:
    """Write `target`.

    Args:
        folder: holds config.json, model.safetensors, and with `vocabulary` tokenizer.json.
        vocabulary: write the tokenizer too, for a server that is sent texts; without it, only token ids can be used.
    """
    gguf: Any = importlib.import_module("gguf")
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(target), config["model_type"])
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if vocabulary:
        _add_tokenizer(writer, folder, config)
    else:
        writer.add_tokenizer_model("no_vocab")
    for name, kind, values in _tensors(folder / "model.safetensors"):
        if kind == "F32":
            writer.add_tensor(_name(name), values)
        elif values.ndim > 1:
            writer.add_tensor(_name(name), values.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:  # llama.cpp takes norms and biases in fp32, of which bf16 is the upper half
            writer.add_tensor(_name(name), (values.astype(np.uint32) << 16).view(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Write a byte-level BPE tokenizer.

    llama.cpp knows the expressions that split a text before the merges by name only, and not all of them. Qwen2's gives the
    same tokens for every tokenizer whose merges stay within a word with its leading space, as the mini's do.
    Added tokens that are not special (the tags) become ``USER_DEFINED``, so they are read in prompts and written in answers as
    text; special ones become ``CONTROL``, which llama.cpp leaves out of answers unless it is started with ``--special``.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    model = tokenizer["model"]
    assert model["type"] == "BPE", f"{folder} has a tokenizer of type {model['type']}: only byte-level BPE can be written"
    size = config["vocab_size"]
    texts, types = [f"[PAD{index}]" for index in range(size)], [_UNUSED] * size
    for text, index in model["vocab"].items():
        texts[index], types[index] = text, _NORMAL
    for token in tokenizer["added_tokens"]:
        texts[token["id"]], types[token["id"]] = token["content"], _CONTROL if token["special"] else _USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(config["eos_token_id"])
    if config.get("pad_token_id") is not None:
        writer.add_pad_token_id(config["pad_token_id"])
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def _name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{NAMES[stem]}.{kind}"
    number, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{NAMES[part]}.{kind}"


def _tensors(path: Path) -> Iterator[Tensor]:
    """All tensors, read without `safetensors.numpy`, because numpy has no bf16."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)
    for name, entry in header.items():
        if name != "__metadata__":
            kind = entry["dtype"]
            assert kind in ("BF16", "F32"), f"{name} is {kind}"
            start, end = entry["data_offsets"]
            values = data[start:end].view(np.uint16 if kind == "BF16" else np.float32)
            yield Tensor(name, kind, values.reshape(entry["shape"]))
