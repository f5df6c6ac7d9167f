"""GGUF files for llama.cpp: the tensors are those of the folder, and the tokenizer makes the same tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Regex, Tokenizer, pre_tokenizers

from benchmarks.others.gguf_file import convert
from multiverse.engine.model import embedded_model
from multiverse.structure import MULTIVERSE, render
from multiverse.tasks import CALCULATIONS, generate

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")

QWEN2 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How llama.cpp splits texts before the merges of a tokenizer that says ``qwen2`` (`unicode.cpp`, `llama-vocab.cpp`)."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("gguf") / "mini.gguf"
    convert(embedded_model(), path, vocabulary=True)
    return gguf.GGUFReader(path)


def test_the_tensors_are_those_of_the_folder(written: Any) -> None:
    own = load_file(embedded_model() / "model.safetensors")
    there = {tensor.name: tensor.data for tensor in written.tensors}
    assert len(there) == len(own)
    for name, here in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
    ):
        assert np.array_equal(there[name].reshape(own[here].shape), own[here])
    fields = {name: written.get_field(name).contents() for name in ("general.architecture", "qwen3.attention.key_length")}
    assert fields == {"general.architecture": "qwen3", "qwen3.attention.key_length": 32}


def test_tags_are_written_as_text_and_chat_tokens_are_control_tokens(written: Any) -> None:
    texts = written.get_field("tokenizer.ggml.tokens").contents()
    types = written.get_field("tokenizer.ggml.token_type").contents()
    tokenizer = Tokenizer.from_file(str(embedded_model() / "tokenizer.json"))
    assert all(texts[index] == text for text, index in tokenizer.get_vocab().items())
    assert {types[texts.index(tag)] for tag in MULTIVERSE.tags} == {int(gguf.TokenType.USER_DEFINED)}
    assert types[texts.index("<|im_end|>")] == int(gguf.TokenType.CONTROL)
    assert {types[at] for at in range(tokenizer.get_vocab_size(), len(texts))} == {int(gguf.TokenType.UNUSED)}


def test_the_split_that_llama_cpp_knows_makes_the_same_tokens() -> None:
    file = str(embedded_model() / "tokenizer.json")
    own, there = Tokenizer.from_file(file), Tokenizer.from_file(file)
    split = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
    there.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    texts = ["Hello, world! It's  a\n\n test\tof 'Tom' and 12345, naïve café 中文\r\n  end "]
    for family in CALCULATIONS:
        for problem in generate(family, 20, seed=0):
            texts += [problem.question, render(problem.structured), render(problem.sequential)]
    assert [own.encode(text).ids for text in texts] == [there.encode(text).ids for text in texts]
