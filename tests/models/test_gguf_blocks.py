"""The bits of GGUF files: every kind as the gguf package reads it, and models that compute with them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.backends.cpu.from_gguf import take_file
from multiverse.backends.cpu.quantised_linears import QuantisedEmbedding, QuantisedLinear
from multiverse.models import resolve
from multiverse.models.gguf_blocks import _KINDS, Blocks, FileBlocks
from tests.models.tiny_gguf import write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIVERSE_CACHE", str(tmp_path / "cache"))


def numbers(blocks: Blocks) -> np.ndarray:
    """What the codes stand for."""
    each = blocks.codes.shape[1] // blocks.scales.shape[1]
    scales = np.repeat(blocks.scales.astype(np.float32), each, 1)
    if blocks.mins is None:
        return scales * (blocks.codes.astype(np.float32) - (1 << (blocks.bits - 1)))
    return scales * blocks.codes + np.repeat(blocks.mins.astype(np.float32), each, 1)


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_is_read_as_the_library_reads_it(kind: str) -> None:
    own = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[own][1]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (64, size), dtype=np.uint8)
    for at in {"Q6_K": (208,), "Q8_0": (0,), "Q4_0": (0,), "Q5_0": (0,)}.get(kind, (0, 2)):
        blocks[:, at : at + 2] = rng.uniform(0.001, 0.01, (64, 1)).astype(np.float16).view(np.uint8)
    expected = gguf.quants.dequantize(blocks, own).reshape(64, -1)
    found = _KINDS[kind](blocks)
    assert found.codes.max() < 1 << found.bits
    if not kind.endswith("_K"):
        assert np.array_equal(numbers(found), expected)
        return
    # Scales and minimums, products in the file, are rounded to half precision.
    sizes = numbers(found._replace(mins=None if found.mins is None else np.abs(found.mins)))
    assert (np.abs(numbers(found) - expected) <= 2**-11 * np.abs(sizes) + 1e-7).all()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_a_file_is_computed_with_its_own_bits(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"tiny.{kind}.gguf"
    write_gguf(file, quantised=True, kind=kind)
    llm = LLM(file, kv_memory=4 << 20, dtype="float32")
    assert llm.quantized == "gguf"
    layers = [module for module in llm.engine.loaded.model.modules() if isinstance(module, QuantisedLinear)]
    assert len(layers) == 8
    assert {(layer.weight.bits, layer.weight.mins_GS16 is None) for layer in layers} == {
        (8 if kind == "Q8_0" else 4, kind != "Q4_1")
    }
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    down = tensors["blk.0.ffn_down.weight"]
    expected = torch.from_numpy(gguf.quants.dequantize(down.data, down.tensor_type))
    weight = llm.engine.loaded.model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(weight.dequantised(), expected), "the file's own numbers, and not those of the bfloat16 copy"
    (score,) = llm.score("Why? t")
    plain = LLM(file, kv_memory=4 << 20, dtype="float32", quantize="none")
    assert plain.quantized is None
    (other,) = plain.score("Why? t")
    assert score.logprobs[1:] == pytest.approx(other.logprobs[1:], abs=0.05)
    assert LLM(file, kv_memory=4 << 20, quantize="int8").quantized == "int8"


def test_a_file_of_plain_numbers_stays_plain(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    assert LLM(tmp_path / "tiny.gguf", kv_memory=4 << 20).quantized is None


class Held:
    """Stands for a file with these matrices."""

    def __init__(self, matrices: dict[str, Blocks]) -> None:
        self.matrices = matrices

    def __call__(self, name: str) -> Blocks | None:
        return self.matrices.get(name)


def coded(weight_NK: torch.Tensor) -> Blocks:
    raw = gguf.quantize(weight_NK.detach().float().numpy(), gguf.GGMLQuantizationType.Q8_0)
    found = _KINDS["Q8_0"](raw.reshape(-1, 34))
    return found._replace(codes=found.codes.reshape(len(weight_NK), -1), scales=found.scales.reshape(len(weight_NK), -1))


def test_rows_in_the_order_of_llama_cpp_and_matrices_of_something_else() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 90}
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, **shape))
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    prefix = "model.layers.0"
    held = {"lm_head": coded(model.lm_head.weight)}
    expected = {}
    for name, heads in (("q_proj", 4), ("k_proj", 2)):
        weight = getattr(attention, name).weight
        # convert_hf_to_gguf.py: the two halves of a head in turn.
        permuted = weight.view(heads, 2, -1, 64).swapaxes(1, 2).reshape(weight.shape)
        held[f"{prefix}.self_attn.{name}"] = coded(permuted)
        expected[name] = weight.detach().clone()
    held[f"{prefix}.mlp.up_proj"] = coded(mlp.gate_proj.weight)  # not its own
    assert take_file(model, Held(held), torch.device("cpu")) == 3  # type: ignore[arg-type]
    for name, weight in expected.items():
        found = getattr(attention, name).weight.dequantised()
        assert (found - weight).abs().max() <= weight.abs().max() / 127
    assert not isinstance(mlp.up_proj, QuantisedLinear)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, QuantisedEmbedding)
    assert embedding.weight is model.lm_head.weight


def test_names_of_the_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", quantised=True)
    blocks = FileBlocks(tmp_path / "tiny.gguf", 1)
    model = AutoModelForCausalLM.from_pretrained(resolve(tmp_path / "tiny.gguf"))
    for name in ("model.layers.0.mlp.down_proj", "lm_head", "model.layers.0.self_attn.k_proj"):
        found = blocks(name)
        assert found is not None
        assert np.abs(numbers(found) - model.get_submodule(name).weight.detach().float().numpy()).max() < 0.01
    assert blocks("model.layers.0.input_layernorm") is None
    assert blocks("model.layers.7.mlp.down_proj") is None


def test_greedy_tokens_are_those_of_the_unpacked_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", quantised=True)
    params = SamplingParams(temperature=0, max_tokens=6)
    texts = [
        LLM(tmp_path / "tiny.gguf", kv_memory=4 << 20, quantize=how, deterministic=True)
        .generate("Why?", params)[0]
        .token_ids[:1]
        for how in ("auto", "none")
    ]
    assert texts[0] == texts[1]
