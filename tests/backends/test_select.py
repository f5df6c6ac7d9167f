"""Which backend a device gets; several engines on one prepared model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from multiverse.backends import find_device, on_gpu, select
from multiverse.backends.batch import Batch, Family
from multiverse.backends.cpu.backend import CpuBackend
from multiverse.backends.torch import CPU, TorchBackend
from multiverse.errors import ModelError


def causal(tokens: list[int]) -> Batch:
    """One request's first forward."""
    order = np.arange(len(tokens))
    family = Family(order, order, order, np.zeros_like(order), np.ones((1, 1), dtype=bool))
    return Batch(torch.tensor(tokens), torch.from_numpy(order), torch.from_numpy(order), [family], [len(tokens) - 1])


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match="device='abacus' is not known to torch"):
        find_device("abacus")
    assert on_gpu("cuda:1")
    assert not on_gpu("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    assert find_device("auto") == torch.device("cpu")
    assert not on_gpu("auto")
    with pytest.raises(ModelError, match="device='cuda' needs CUDA, which torch does not find here: use 'cpu'"):
        find_device("cuda")


def test_a_cpu_gets_the_cpu_backend_and_others_torch() -> None:
    assert type(select(CPU, torch.float32)) is CpuBackend
    assert type(select(torch.device("meta"), torch.float32)) is TorchBackend


def test_engines_on_one_model_have_pools_of_their_own(model_folders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen2"])
    backend = select(CPU, model.dtype)
    backend.prepare(model, "qwen2")
    first, second = backend.allocate(1 << 20), backend.allocate(1 << 19)
    assert first.num_slots == 2 * second.num_slots
    assert first.pool is not second.pool
    logits_BV = first.run(causal([5, 6, 7])).clone()
    second.run(causal([9, 9]))
    again = causal([5, 6, 7, 8])
    again.token_N, again.position_N, again.slot_N = (tensor[3:] for tensor in (again.token_N, again.position_N, again.slot_N))
    again.families[0] = again.families[0]._replace(rows=np.arange(1))
    again.logits_indices = [0]
    whole_BV = second.run(causal([5, 6, 7, 8]))
    torch.testing.assert_close(first.run(again), whole_BV, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits_BV, whole_BV, atol=1e-2)


def test_too_small_a_pool_is_refused(model_folders: dict[str, Path]) -> None:
    backend = TorchBackend()
    backend.prepare(AutoModelForCausalLM.from_pretrained(model_folders["qwen2"]), "the model")
    with pytest.raises(ModelError, match=r"kv_memory=1000 bytes hold only \d+ tokens of 'the model' \(\d+ bytes each\)"):
        backend.allocate(1000)
