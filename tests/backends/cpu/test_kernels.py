"""The native CPU kernels against torch in float32, and what happens where there are none."""

from __future__ import annotations

import copy
import ctypes
import logging
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config

from multiverse.backends import select
from multiverse.backends.base import Backend, ForwardContext
from multiverse.backends.batch import Batch, Family
from multiverse.backends.buckets import Bucket, build_buckets
from multiverse.backends.cpu import build
from multiverse.backends.cpu.backend import MAX_KERNEL_ROWS, CpuBackend
from multiverse.backends.cpu.build import kernels
from multiverse.backends.cpu.layers import use_kernels
from multiverse.backends.cpu.modules import NativeGatedMLP, NativeLinear, NativeRMSNorm
from multiverse.backends.kv_pool import KVPool
from multiverse.backends.torch import CPU, TorchBackend

LIBRARY: Any = kernels()
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason="no compiler, or a processor without AVX-512 for bfloat16")

SHAPE: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
CONFIGS = {
    "qwen2": Qwen2Config(tie_word_embeddings=True, **{k: v for k, v in SHAPE.items() if k != "head_dim"}),
    "qwen3": Qwen3Config(**SHAPE),
    "llama": LlamaConfig(**SHAPE),
    "gemma": GemmaConfig(**SHAPE),
    "phi3": Phi3Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}),
    "olmo2": Olmo2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"}),
}


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    # The model keeps its configuration and writes to it.
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases begin as ones and zeros
            parameter.data += torch.randn_like(parameter) * 0.2
    return model.bfloat16()


@needs_kernels
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (96, 50), (33, 17), (31, 5), (896, 130), (4871, 21)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_right_and_the_same_in_every_batch(inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias=bias).bfloat16()
    native = NativeLinear(linear, LIBRARY)
    x_MK = torch.randn(LIBRARY.multiverse_rows(), inputs).bfloat16()
    with torch.inference_mode():
        expected_MN = nn.functional.linear(x_MK.float(), linear.weight.float(), linear.bias.float() if bias else None)
        whole_MN = native(x_MK)
        assert whole_MN.dtype == torch.bfloat16
        torch.testing.assert_close(whole_MN.float(), expected_MN, rtol=2**-7, atol=1e-3)
        for rows in (1, 2, 3, 4, 7, 8, 9, 16, 17, 31):
            assert torch.equal(native(x_MK[None, :rows])[0], whole_MN[:rows]), rows
            assert torch.equal(native(x_MK[-rows:]), whole_MN[-rows:]), rows


@needs_kernels
def test_linear_takes_any_rows_and_strides() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48).bfloat16()
    native = NativeLinear(linear, LIBRARY)
    with torch.inference_mode():
        many_MK = torch.randn(LIBRARY.multiverse_rows() + 1, 64).bfloat16()
        assert torch.equal(native(many_MK), linear(many_MK))
        assert native(many_MK[:0]).shape == (0, 48)
        strided = torch.randn(64, 3).bfloat16().T
        torch.testing.assert_close(native(strided), linear(strided), rtol=2**-7, atol=1e-3)


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 70).bfloat16()
    native, x_MK = NativeLinear(linear, LIBRARY), torch.randn(5, 96).bfloat16()
    with torch.inference_mode():
        expected_MN = native(x_MK)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert torch.equal(native(x_MK), expected_MN)
        finally:
            torch.set_num_threads(before)


@needs_kernels
def test_callers_in_several_threads_do_not_disturb_each_other() -> None:
    torch.manual_seed(0)
    native = NativeLinear(nn.Linear(128, 200).bfloat16(), LIBRARY)
    inputs = [torch.randn(rows, 128).bfloat16() for rows in (1, 4, 20)]
    with torch.inference_mode():
        expected = [native(x_MK) for x_MK in inputs]
    wrong: list[int] = []

    def call(index: int) -> None:
        with torch.inference_mode():
            wrong.extend(index for _ in range(50) if not torch.equal(native(inputs[index]), expected[index]))

    callers = [threading.Thread(target=call, args=(index,)) for index in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@needs_kernels
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_replacement_gives_what_it_replaces(family: str) -> None:
    original, native = model_of(family), model_of(family)
    count = use_kernels(native, LIBRARY)
    replaced = [(name, module) for name, module in native.named_modules() if type(module).__name__.startswith("Native")]
    assert count >= len(replaced) > 10
    kinds = {type(module) for _, module in replaced}
    assert {NativeLinear, NativeRMSNorm} <= kinds
    assert (NativeGatedMLP in kinds) == (family != "gemma")  # whose activation is another
    assert not any(
        type(module) is nn.Linear or type(module).__name__.endswith(("LlamaRMSNorm",)) for module in native.modules()
    )
    for name, module in replaced:
        old = original.get_submodule(name)
        size = module.in_features if isinstance(module, NativeLinear) else 64
        size = module.weight.numel() if isinstance(module, NativeRMSNorm) else size
        for rows in (1, 5, LIBRARY.multiverse_rows() + 1):
            x_MK = torch.randn(1, rows, size).bfloat16()
            with torch.inference_mode():
                found, expected = module(x_MK), old(x_MK)
            scale = expected.float().abs().max()
            torch.testing.assert_close(found.float() / scale, expected.float() / scale, rtol=2**-6, atol=2**-8)
            if isinstance(module, NativeRMSNorm):  # the order of rounding is that of the model's own code
                assert (found != expected).float().mean() < 0.01


@needs_kernels
def test_weights_are_neither_copied_nor_untied() -> None:
    model = model_of("qwen2")
    before = {parameter.data_ptr() for parameter in model.parameters()}
    use_kernels(model, LIBRARY)
    assert isinstance(model.lm_head, NativeLinear)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    kept = {parameter.data_ptr() for parameter in model.parameters()}
    kept |= {mlp.gate_NK.data_ptr() for mlp in model.modules() if isinstance(mlp, NativeGatedMLP)}
    kept |= {mlp.up_NK.data_ptr() for mlp in model.modules() if isinstance(mlp, NativeGatedMLP)}
    assert kept == before


@needs_kernels
def test_similar_modules_are_not_replaced() -> None:
    class ShiftedRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(64).bfloat16()), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.rms_norm(x, (64,), self.weight, self.eps) + 0.5

    class SwappedMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = nn.Linear(64, 80, bias=False), nn.Linear(64, 80, bias=False)
            self.down_proj, self.act_fn = nn.Linear(80, 64, bias=False), nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.down_proj(self.gate_proj(x) * self.act_fn(self.up_proj(x)))
            return out

    torch.manual_seed(0)
    model = nn.Sequential(ShiftedRMSNorm(), SwappedMLP()).bfloat16()
    assert use_kernels(model, LIBRARY) == 3
    assert [type(module) for module in model] == [ShiftedRMSNorm, SwappedMLP]


@needs_kernels
def test_other_types_are_left_to_torch() -> None:
    model, backend = model_of("llama").float(), CpuBackend()
    backend.prepare(model, "llama")
    assert backend.library is None
    assert not any(type(module).__name__.startswith("Native") for module in model.modules())


def forward_in_chunks(backend: Backend, ids: Tensor, sizes: list[int]) -> Tensor:
    """Logits of one sequence, computed a few rows at a time, as the engine would."""
    logits, done = [], 0
    for rows in sizes:
        order, position_R = np.arange(done + rows), torch.arange(done, done + rows)
        family = Family(np.arange(rows), order, order, np.zeros_like(order), np.ones((1, 1), dtype=bool))
        logits.append(backend.run(Batch(ids[position_R], position_R, position_R, [family], list(range(rows)))))
        done += rows
    return torch.cat(logits)


@needs_kernels
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_a_model_on_kernels_is_as_near_to_float32_as_without(family: str) -> None:
    model = model_of(family)
    ids = torch.randint(3, 90, (30,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = copy.deepcopy(model).float()(ids[None], use_cache=False).logits[0].log_softmax(-1)
        stock = model(ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    backend = select(CPU, model.dtype)
    assert isinstance(backend, CpuBackend)
    backend.prepare(copy.deepcopy(model), family)
    assert backend.library is LIBRARY
    found = forward_in_chunks(backend.allocate(1 << 20), ids, [17, 1, 1, 3, 2, 1, 1, 1, 1, 1, 1]).log_softmax(-1)
    assert (found - exact).abs().max() <= 1.5 * (stock - exact).abs().max() + 2e-3
    plain = CpuBackend(packed_linears=False)
    plain.prepare(model, family)
    assert plain.library is None
    assert not any(type(module).__name__.startswith(("Native", "Packed")) for module in model.modules())


def native_backend() -> CpuBackend:
    backend = CpuBackend()
    backend.use_library(LIBRARY)
    return backend


def random_context(
    backend: TorchBackend, shape: tuple[int, int, int], groups: list[tuple[int, int]], dtype: torch.dtype
) -> Any:
    """A query and a context of one bucket over a random pool; groups are given as (rows, slots)."""
    kv_heads, size, value_size = shape
    generator = torch.Generator().manual_seed(1)
    pool, count = KVPool(700), sum(rows for rows, _ in groups)
    key_SKD = torch.randn(700, kv_heads, size, generator=generator).bfloat16().to(dtype)
    value_SKV = torch.randn(700, kv_heads, value_size, generator=generator).bfloat16().to(dtype)
    pool.write(0, torch.arange(700), key_SKD, value_SKV)
    most_rows, most_slots = max(rows for rows, _ in groups), max(width for _, width in groups)
    row_GR = torch.zeros(len(groups), most_rows, dtype=torch.long)
    slot_GU, visible_GRU = (
        torch.zeros(len(groups), most_slots, dtype=torch.long),
        torch.zeros(len(groups), most_rows, most_slots),
    )
    real_GR, start = torch.zeros(len(groups), most_rows, dtype=torch.bool), 0
    for g, (rows, width) in enumerate(groups):
        own = torch.Generator().manual_seed(width)
        row_GR[g] = start
        row_GR[g, :rows] = torch.arange(start, start + rows)
        slot_GU[g, :width] = torch.randperm(700, generator=own)[:width]
        visible_GRU[g, :rows, :width] = (torch.rand(rows, width, generator=own) < 0.6).float()
        visible_GRU[g, :rows, width - 1] = 1
        visible_GRU[g, rows:] = visible_GRU[g, 0]
        real_GR[g, :rows] = True
        start += rows
    position_GU = torch.arange(most_slots).expand(len(groups), most_slots)
    position_GR = torch.tensor([[width - 1] * most_rows for _, width in groups])
    bucket = Bucket(row_GR, slot_GU, visible_GRU.bool(), None if real_GR.all() else real_GR, position_GR, position_GU)
    query_NHD = torch.randn(count, kv_heads * 3, size, generator=generator).bfloat16().to(dtype)
    return query_NHD, ForwardContext(pool, backend, torch.zeros(count, dtype=torch.long), [bucket])


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 32, 16), (2, 64, 64), (3, 96, 48), (2, 128, 144)])
@pytest.mark.parametrize(
    "groups", [[(1, 1)], [(1, 300)], [(2, 257)], [(1, 255), (1, 600), (2, 17)], [(1, 40), (5, 64), (2, 512)]]
)
@pytest.mark.parametrize("window", [None, 9])
def test_attention_agrees_with_float32(shape: tuple[int, int, int], groups: list[tuple[int, int]], window: int | None) -> None:
    query_NHD, context = random_context(native_backend(), shape, groups, torch.bfloat16)
    exact_NHD, exact_context = random_context(TorchBackend(), shape, groups, torch.float32)
    found_NHV = context.backend.attend(query_NHD, 0, context, 0.2, window)
    expected_NHV = exact_context.backend.attend(exact_NHD, 0, exact_context, 0.2, window)
    torch.testing.assert_close(found_NHV.float(), expected_NHV, atol=2e-2, rtol=2e-2)


@needs_kernels
def test_attention_of_few_rows_does_not_depend_on_their_neighbours() -> None:
    shape, groups = (2, 64, 64), [(1, 90), (2, 600), (MAX_KERNEL_ROWS, 300)]
    backend = native_backend()
    query_NHD, together = random_context(backend, shape, groups, torch.bfloat16)
    found_NHV, start = backend.attend(query_NHD, 0, together, 0.2, None), 0
    for rows, width in groups:
        _, alone = random_context(backend, shape, [(rows, width)], torch.bfloat16)
        alone.pool = together.pool
        own_NHV = backend.attend(query_NHD[start : start + rows], 0, alone, 0.2, None)
        assert torch.equal(own_NHV, found_NHV[start : start + rows])
        start += rows


@needs_kernels
def test_groups_of_few_rows_are_apart_from_larger_ones() -> None:
    backend = native_backend()
    sizes = [1, MAX_KERNEL_ROWS + 1, MAX_KERNEL_ROWS, MAX_KERNEL_ROWS + 2]
    starts = np.cumsum([0, *sizes[:-1]])
    families = [
        Family(np.arange(start, start + rows), np.arange(20), np.arange(20), np.zeros(20, np.int64), np.ones((1, 1), bool))
        for start, rows in zip(starts, sizes, strict=True)
    ]
    shapes = [tuple(bucket.row_GR.shape) for bucket in build_buckets(families, backend.split_rows)]
    assert shapes == [(2, MAX_KERNEL_ROWS), (2, MAX_KERNEL_ROWS + 2)]
    assert [tuple(bucket.row_GR.shape) for bucket in build_buckets(families)] == [(4, MAX_KERNEL_ROWS + 2)]


@needs_kernels
def test_attention_of_sizes_that_the_kernel_does_not_support_is_left_to_torch() -> None:
    query_NHD, context = random_context(native_backend(), (2, 24, 20), [(1, 50)], torch.bfloat16)
    exact_NHD, exact_context = random_context(TorchBackend(), (2, 24, 20), [(1, 50)], torch.float32)
    found_NHV = context.backend.attend(query_NHD, 0, context, 0.2, None)
    expected_NHV = exact_context.backend.attend(exact_NHD, 0, exact_context, 0.2, None)
    torch.testing.assert_close(found_NHV.float(), expected_NHV, atol=2e-2, rtol=2e-2)


def fresh() -> ctypes.CDLL | None:
    """`kernels()` as in a new process."""
    library: ctypes.CDLL | None = build.kernels.__wrapped__()
    return library


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "multiverse"


@needs_kernels
def test_the_library_is_compiled_once(empty_cache: Path) -> None:
    assert fresh() is not None
    (library,) = empty_cache.iterdir()
    written = library.stat().st_mtime_ns
    assert fresh() is not None
    assert [file.stat().st_mtime_ns for file in empty_cache.iterdir()] == [written]


def test_it_can_be_switched_off(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIVERSE_NATIVE", "0")
    assert fresh() is None
    assert not empty_cache.exists()


BROKEN = "#!/bin/sh\n[ $1 = --version ] || { echo broken >&2; exit 1; }\n"


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (None, "no C\\+\\+ compiler was found"),
        (BROKEN, "failed: broken"),
    ],
)
@needs_kernels
def test_without_a_working_compiler_there_are_none(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, compiler: str | None, reason: str
) -> None:
    folder = empty_cache.parent / "bin"
    folder.mkdir()
    if compiler is not None:
        (folder / "g++").write_text(compiler)
        (folder / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}")
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.INFO):
        assert fresh() is None
    (record,) = caplog.records
    assert re.search(reason, record.getMessage())


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_other_machines_have_none(monkeypatch: pytest.MonkeyPatch, empty_cache: Path, system: str, machine: str) -> None:
    monkeypatch.setattr(build.platform, "system", lambda: system)
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    assert fresh() is None
    assert not empty_cache.exists()


@needs_kernels
def test_a_library_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(build, "_agrees_with_torch", lambda _: False)
    with caplog.at_level(logging.WARNING, build.__name__):
        assert fresh() is None
    assert "wrong results" in caplog.text


def test_without_kernels_linears_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiverse.backends.cpu.backend.kernels", lambda: None)
    model, backend = model_of("llama"), CpuBackend()
    backend.prepare(model, "llama")
    assert backend.library is None
    assert type(model.lm_head).__name__ in ("PackedLinear", "Linear")
