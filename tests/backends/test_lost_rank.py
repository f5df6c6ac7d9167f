"""What a tensor-parallel engine says when one of its processes is gone. A process holds one such engine: hence a file apart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch.distributed as dist

from multiverse import LLM, SamplingParams
from multiverse.backends.tensor_parallel import TensorParallelBackend
from multiverse.errors import EngineError


def test_a_killed_rank_is_reported(model_folders: dict[str, Path]) -> None:
    llm = LLM(model_folders["qwen3"], kv_memory=4 << 20, tensor_parallel=2)
    backend = llm.engine.backend
    assert isinstance(backend, TensorParallelBackend)
    ranks = backend.ranks
    assert ranks.broken is None
    params = SamplingParams(temperature=0, max_tokens=8)
    assert len(llm.generate("Q", params)) == 1
    other = ranks._others[0].process
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with pytest.raises((EngineError, RuntimeError)):
        llm.generate("Q2", params)
    assert ranks.broken is not None
    with pytest.raises(EngineError, match="load it again"):
        llm.generate("Q3", params)
    assert not dist.is_initialized()
