"""Memory that nobody uses goes back to the system."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from multiverse import LLM, SamplingParams
from multiverse.backends.cpu import backend
from multiverse.backends.cpu.trim import trim

needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
MIB = 1 << 20


def resident() -> int:
    """Memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@needs_glibc
def test_free_pages_are_returned() -> None:
    blocks = [torch.ones(64 << 10, dtype=torch.uint8) for _ in range(2048)]  # too small to be mapped one by one
    kept = blocks[::64]
    full = resident()
    del blocks
    trim()
    assert full - resident() > 64 * MIB
    assert all(int(block.sum()) == 64 << 10 for block in kept)


@pytest.mark.parametrize(("every", "share"), [(0.0, 1), (2.5, 3), (1e9, 0)])
def test_every_so_many_seconds(monkeypatch: pytest.MonkeyPatch, every: float, share: int) -> None:
    seconds = itertools.count()  # one from each look at the clock to the next
    trimmed, forwards = [], []
    llm = LLM()
    own = llm.engine.backend
    assert isinstance(own, backend.CpuBackend)
    monkeypatch.setattr(backend, "TRIM_INTERVAL", every)
    monkeypatch.setattr(backend, "trim", lambda: trimmed.append(True))
    own._trimmed_at = next(seconds)
    monkeypatch.setattr(backend, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    run = own.run
    monkeypatch.setattr(own, "run", lambda batch: forwards.append(True) or run(batch))  # type: ignore[func-returns-value]
    llm.generate("Start with 21.", SamplingParams(max_tokens=20, temperature=0, ignore_eos=True))
    assert len(forwards) > 6
    assert len(trimmed) == (len(forwards) // share if share else 0)
