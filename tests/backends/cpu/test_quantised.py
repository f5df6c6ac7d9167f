"""Weights in 8 and 4 bits: what the codes stand for, and products with them by kernels and by torch."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from transformers import AutoConfig, LlamaConfig, Qwen2Config, Qwen2ForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.backends.cpu import quantised_linears
from multiverse.backends.cpu.build import QUANTISED, declare_quantised, quantised_kernels
from multiverse.backends.cpu.quantised_linears import (
    QuantisedEmbedding,
    QuantisedLinear,
    check_quantisable,
    multiply,
    quantise_model,
    quantised_parameters,
)
from multiverse.backends.cpu.quantised_weight import Bits, QuantisedWeight, concatenated, packed, quantised
from multiverse.errors import ModelError, RequestError

FORMS: list[tuple[Bits, int, bool]] = [(bits, block, mins) for bits in (8, 4) for block in (32, 16) for mins in (False, True)]
"""Bits, columns with one scale, and whether blocks have minimums."""


def weight_of(
    bits: Bits, block: int, mins: bool, rows: int = 37, columns: int = 72, dtype: torch.dtype = torch.float32
) -> QuantisedWeight:
    """Random codes; neither rows nor columns are whole groups and blocks."""
    generator = torch.Generator().manual_seed(bits + block + mins)
    blocks = -(-columns // 32) * 32
    codes = torch.randint(0, 1 << bits, (rows, blocks), generator=generator, dtype=torch.uint8)
    scales = torch.rand(rows, blocks // block, generator=generator) * 0.1 + 0.001
    least = -torch.rand(rows, blocks // block, generator=generator) if mins else None
    return packed(codes, scales, least, bits=bits, dtype=dtype, columns=columns)


def x_of(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)


@pytest.fixture(scope="module")
def plain_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as a processor without AVX-512 has them."""
    if quantised_kernels() is None:
        pytest.skip("no compiler")
    folder = tmp_path_factory.mktemp("plain")
    flags = ["-O1", "-march=x86-64-v2", "-std=c++17", "-fopenmp", "-fPIC", "-w"]
    subprocess.run(["g++", *flags, "-c", str(QUANTISED), "-o", str(folder / "q.o")], check=True)
    subprocess.run(["g++", "-shared", str(folder / "q.o"), "-o", str(folder / "q.so")], check=True)
    return declare_quantised(ctypes.CDLL(str(folder / "q.so")))


@pytest.fixture(params=["this processor", "plain", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The three ways of computing a product."""
    library: Any = quantised_kernels()
    if request.param == "plain":
        library = request.getfixturevalue("plain_library")
    elif request.param == "torch":
        library = None
    elif library is None:
        pytest.skip("no compiler")
    monkeypatch.setattr(quantised_linears, "quantised_kernels", lambda: library)
    return request.param


def rounding(x_MK: Tensor, weight: QuantisedWeight) -> Tensor:
    """How far a product with rows rounded to 8 bits may be from one with the rows as they are.

    A number moves by at most half a step, which is the largest number of its block of 32 divided by 127, times its weight.
    """
    blocks_MBI = nn.functional.pad(x_MK.float(), (0, -x_MK.shape[1] % 32)).unflatten(1, (-1, 32))
    steps_MB = blocks_MBI.abs().amax(-1) / 127
    sizes_NB = nn.functional.pad(weight.dequantised().abs(), (0, -x_MK.shape[1] % 32)).unflatten(1, (-1, 32)).sum(-1)
    return steps_MB / 2 @ sizes_NB.T


def allowed(x_MK: Tensor, weight: QuantisedWeight, exact_MN: Tensor) -> Tensor:
    """`rounding`, that of the sums in float32, and that of the result."""
    sums_MN = x_MK.float().abs() @ weight.dequantised().abs().T
    return rounding(x_MK, weight) + 2**-20 * sums_MN + torch.finfo(x_MK.dtype).eps * exact_MN.abs()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("bits", "block", "mins"), FORMS)
def test_numbers_are_what_the_codes_stand_for(bits: Bits, block: int, mins: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 1 << bits, (21, 64), generator=generator, dtype=torch.uint8)
    scales, least = torch.rand(2, 21, 64 // block, generator=generator).half().float()
    weight = packed(codes, scales, least if mins else None, bits=bits, dtype=torch.float32, columns=50)
    zero = 0 if mins else 1 << (bits - 1)
    expected = (codes.float() - zero) * scales.repeat_interleave(block, 1) + (least.repeat_interleave(block, 1) if mins else 0)
    assert torch.allclose(weight.dequantised(), expected[:, :50], rtol=1e-6, atol=1e-6)
    assert torch.equal(weight.rows(torch.tensor([[3, 20]])), weight.dequantised()[[3, 20]][None])
    found = quantised_linears.numbers(quantised_linears.quantised_kernels(), weight, 16, 21, torch.float32)
    assert torch.allclose(found, weight.dequantised()[16:], rtol=1e-6, atol=1e-6)
    assert weight.nbytes == 32 * 64 * bits // 8 + 32 * (64 // block) * 2 * (1 + mins)


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_to_codes(bits: Bits) -> None:
    weight_NK = torch.randn(40, 96, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 1, 40)[:, None]
    weight_NK[3, :32] = 0
    weight = quantised(weight_NK.bfloat16(), bits)
    assert weight.dtype == torch.bfloat16
    error = (weight.dequantised() - weight_NK.bfloat16().float()).view(40, 3, 32)
    largest = weight_NK.abs().view(40, 3, 32).amax(-1, keepdim=True)
    # Half a step, and what rounding a scale to half precision moves the largest number.
    step = largest / 127 if bits == 8 else largest / 7
    assert bool((error.abs() <= step * (0.51 + (bits == 8) * 127 * 2**-11 + (bits == 4) * 0.6) + 1e-5).all())
    assert torch.equal(weight.dequantised()[3, :32], torch.zeros(32))
    if bits == 4:
        once = (weight_NK.view(40, 3, 32) / step).nan_to_num().round().clamp(-8, 7) * step - weight_NK.view(40, 3, 32)
        assert error.square().sum() < once.square().sum(), "better than the nearest of evenly spread steps"


@pytest.mark.parametrize(("bits", "block", "mins"), FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_numbers(bits: Bits, block: int, mins: bool, dtype: torch.dtype, way: str) -> None:
    weight = weight_of(bits, block, mins, dtype=dtype)
    bias = torch.linspace(-1, 1, len(weight)).to(dtype)
    for rows in (1, 2, 7, 16, quantised_linears.FEW_ROWS + 3):
        x_MK = x_of(rows, 72, dtype)
        exact_MN = linear(x_MK.float(), weight.dequantised(), bias.float())
        found_MN = multiply(x_MK, weight, bias)
        assert found_MN.dtype == dtype
        by_numbers = way == "torch" or rows > quantised_linears.FEW_ROWS
        if by_numbers:  # not rounded but to the type
            sums_MN = x_MK.float().abs() @ weight.dequantised().abs().T
            limit = torch.finfo(dtype).eps * (sums_MN + exact_MN.abs())
        else:
            limit = allowed(x_MK, weight, exact_MN) + torch.finfo(dtype).eps * bias.float().abs()
        assert bool(((found_MN.float() - exact_MN).abs() <= limit).all())


@pytest.mark.usefixtures("way")
def test_activations_are_rounded_to_the_nearest_of_255_steps() -> None:
    """The codes' own products are exact: rows that are whole steps give the exact result."""
    weight = weight_of(8, 32, False, columns=64)
    x_MK = torch.randint(-127, 128, (5, 64), generator=torch.Generator().manual_seed(0)).float()
    x_MK[:, ::32] = 127
    assert torch.allclose(multiply(x_MK, weight), x_MK @ weight.dequantised().T, rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate_residual_and_bias(dtype: torch.dtype) -> None:
    weight, x_MK = weight_of(8, 32, False, rows=64, dtype=dtype), x_of(3, 72, dtype) * 0.1
    residual, bias = x_of(3, 64, dtype), torch.linspace(-1, 1, 64).to(dtype)
    plain = multiply(x_MK, weight, bias)
    added = plain + residual
    assert torch.allclose(multiply(x_MK, weight, bias, residual.clone()).float(), added.float(), rtol=1e-2, atol=1e-2)
    first, second = plain.chunk(2, -1)
    found = multiply(x_MK, weight, bias, gated=True)
    assert torch.allclose(
        found.float(), (silu(first) * second).float(), rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("bits", "block", "mins"), FORMS)
def test_a_row_has_the_same_bits_in_any_batch(bits: Bits, block: int, mins: bool) -> None:
    if quantised_kernels() is None:
        pytest.skip("no compiler")
    weight, x_MK = weight_of(bits, block, mins, rows=160), x_of(150, 72)
    alone = torch.cat([multiply(row_K[None], weight) for row_K in x_MK])
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            for rows in (2, 3, 5, 8, 21, 150):
                assert torch.equal(multiply(x_MK[:rows], weight, invariant=True), alone[:rows])
        finally:
            torch.set_num_threads(threads)


@pytest.mark.usefixtures("way")
def test_what_is_not_a_number_stays_so() -> None:
    weight, x_MK = weight_of(4, 32, False), x_of(2, 72)
    x_MK[1, 40] = float("nan")
    found = multiply(x_MK, weight)
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().all())


def test_parts_and_wholes() -> None:
    weight = weight_of(4, 32, True, rows=64)
    first, second = weight.split([48, 16])
    assert torch.equal(torch.cat([first.dequantised(), second.dequantised()]), weight.dequantised())
    assert first.codes_GBQ64.data_ptr() == weight.codes_GBQ64.data_ptr()
    assert torch.equal(concatenated([first, second]).dequantised(), weight.dequantised())
    with pytest.raises(ValueError, match="cannot be put together"):
        concatenated([first, weight_of(8, 32, False)])
    with pytest.raises(ValueError, match="cannot be put together"):
        concatenated([weight_of(8, 32, False, rows=21), weight_of(8, 32, False, rows=32)])


def tiny(*, tied: bool, vocabulary: int = 200) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, tie_word_embeddings=tied, **shape, **heads)).eval()


@pytest.mark.parametrize(("bits", "tied"), [(8, True), (4, False)])
def test_plain_weights_are_dropped(bits: Bits, tied: bool) -> None:
    model = tiny(tied=tied).bfloat16()
    linears = {name: weakref.ref(module.weight) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    before = sum(parameter.nbytes for parameter in model.parameters())
    assert quantise_model(model, bits) == len(linears) == 15
    gc.collect()
    assert [name for name, weight in linears.items() if weight() is not None] == []
    found = {id(module.weight): module.weight.nbytes for module in model.modules() if isinstance(module, QuantisedLinear)}
    left = sum(parameter.nbytes for parameter in model.parameters())
    assert left + sum(found.values()) < before * (0.57 if tied else 0.66 if bits == 8 else 0.57)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, QuantisedEmbedding) == tied
    head = model.get_output_embeddings().weight
    assert head.bits == 8
    assert (embedding.weight is head) == tied
    assert quantised_parameters(model) == 2 * (64 * (64 + 2 * 32 + 64) + 3 * 64 * 128) + 200 * 64


def test_what_cannot_be_quantised_is_named() -> None:
    cpu, config = torch.device("cpu"), LlamaConfig()
    with pytest.raises(ModelError, match=r"quantize='int8' is for a CPU, and 'x' would run on cuda:1: use device='cpu'"):
        check_quantisable(config, "x", "int8", torch.device("cuda:1"), 1)
    with pytest.raises(ModelError, match="quantize='int4' does not go with tensor_parallel=2"):
        check_quantisable(config, "x", "int4", cpu, 2)
    quantised_before = LlamaConfig(quantization_config={"quant_method": "torchao"})
    with pytest.raises(ModelError, match=r"whose weights are quantised already \(torchao\)"):
        check_quantisable(quantised_before, "x", "int8", cpu, 1)
    with pytest.raises(ModelError, match="does not go with recurrent or linear-attention layers"):
        check_quantisable(AutoConfig.for_model("mamba2"), "x", "int8", cpu, 1)
    with pytest.raises(RequestError, match=r"quantize='int3' is not known: it must be one of auto, none, int8, int4"):
        LLM(quantize="int3")  # type: ignore[arg-type]
    model = tiny(tied=False)
    quantise_model(model, 8)
    with pytest.raises(ModelError, match="no linear layer of this model"):
        quantise_model(model, 8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_deterministic_model(dtype: str) -> None:
    if quantised_kernels() is None:
        pytest.skip("no compiler")
    llm = LLM(quantize="int8", dtype=dtype, deterministic=True, kv_memory=32 << 20)
    assert llm.quantized == "int8"
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=True)
    alone = llm.generate("Start with 7. Add 5.", params)[0]
    beside = llm.generate(["Start with 7. Add 5.", "Mia has 3, Tom 4. " * 30], params)[0]
    assert beside.token_ids == alone.token_ids
    assert beside.logprobs == alone.logprobs


def test_deterministic_needs_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised_linears, "quantised_kernels", lambda: None)
    with pytest.raises(ModelError, match=r"deterministic=True with quantised weights needs a C\+\+ compiler"):
        LLM(quantize="int8", deterministic=True, kv_memory=32 << 20)
