"""llama.cpp through the low-level calls of llama-cpp-python: batched decoding of several sequences behind one shared prompt.

Every case runs with and without flash attention and the faster counts: on a CPU neither is always faster.

    python -m benchmarks.others.llama_worker    # started by the benchmark, in llama.cpp's own environment
"""

from __future__ import annotations

import ctypes
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .gguf_file import convert
from .protocol import Decode, Opened, Opening, serve

BATCH = 512
"""Most tokens of a prompt per call (llama.cpp's default for a physical batch)."""


class Context:
    """Sequences over one unified buffer of keys and values, so that a shared prompt is stored and read once.

    llama.cpp recommends that setting for several continuations of one prompt.
    """

    def __init__(self, lib: Any, model: Any, opening: Opening, *, flash: bool) -> None:
        self.lib, self.rows = lib, opening.rows
        settings = lib.llama_context_default_params()
        settings.n_ctx = opening.positions * opening.rows
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_seq_max = opening.rows
        settings.n_threads = settings.n_threads_batch = opening.threads
        settings.kv_unified = True
        settings.flash_attn_type = int(flash)
        self.context = lib.llama_init_from_model(model, settings)
        assert self.context, "llama.cpp could not make a context"
        self.memory = lib.llama_get_memory(self.context)
        self.vocabulary: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self.batch = lib.llama_batch_init(BATCH, 0, 1)
        self.prompt: list[int] = []
        self.first = 0

    def measure(self, decode: Decode) -> float:
        """Seconds of the steps: forward and greedy choice of a token for every row."""
        self._prefill(decode.prompt)
        length, tokens = len(decode.prompt), [self.first] * decode.rows
        for row in range(1, decode.rows):
            self.lib.llama_memory_seq_cp(self.memory, 0, row, -1, -1)
        start = time.perf_counter()
        for step in range(decode.steps):
            self._run([(token, length + step, row) for row, token in enumerate(tokens)])
            tokens = self._choose(decode.rows)
        return time.perf_counter() - start

    def _prefill(self, prompt: list[int]) -> None:
        """Make sequence 0 hold the prompt alone, and clear the other sequences."""
        if prompt == self.prompt:
            self.lib.llama_memory_seq_rm(self.memory, 0, len(prompt), -1)
            for row in range(1, self.rows):
                self.lib.llama_memory_seq_rm(self.memory, row, -1, -1)
            return
        self.lib.llama_memory_clear(self.memory, False)
        for start in range(0, len(prompt), BATCH):
            piece = prompt[start : start + BATCH]
            self._run([(token, start + index, 0) for index, token in enumerate(piece)], last=start + len(piece) == len(prompt))
        self.prompt, self.first = prompt, self._choose(1)[0]

    def _run(self, entries: list[tuple[int, int, int]], *, last: bool | None = None) -> None:
        """Decode entries of (token, position, sequence); logits of all, or with `last` of the last one or of none."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for index, (token, position, row) in enumerate(entries):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
            batch.logits[index] = last is None or (last and index + 1 == len(entries))
        code = self.lib.llama_decode(self.context, batch)
        assert code == 0, f"llama_decode returned {code}"

    def _choose(self, rows: int) -> list[int]:
        logits = self.lib.llama_get_logits(self.context)
        tokens: list[int] = np.ctypeslib.as_array(logits, (rows, self.vocabulary)).argmax(axis=1).tolist()
        return tokens


def _open(opening: Opening) -> Opened:
    lib: Any = importlib.import_module("llama_cpp")  # installed in its own environment only
    lib.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        convert(Path(opening.folder), path)
        if opening.kind != "BF16":
            path = _quantised(lib, path, opening)
        settings = lib.llama_model_default_params()
        # Not a mapped file, whose speed depends on the page cache.
        settings.use_mmap = False
        settings.n_gpu_layers = 0
        model = lib.llama_model_load_from_file(str(path).encode(), settings)
    assert model, "llama.cpp could not load the model"
    contexts = [Context(lib, model, opening, flash=flash) for flash in (True, False)]
    return Opened(f"llama-cpp-python {lib.__version__}", lambda decode: min(one.measure(decode) for one in contexts))


def _quantised(lib: Any, path: Path, opening: Opening) -> Path:
    """The file with weights of another kind, made as llama-quantize makes it."""
    settings, out = lib.llama_model_quantize_default_params(), path.with_name("quantised.gguf")
    settings.ftype, settings.nthread = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{opening.kind}"), opening.threads
    code = lib.llama_model_quantize(str(path).encode(), str(out).encode(), ctypes.byref(settings))
    assert code == 0, f"llama_model_quantize returned {code}"
    return out


if __name__ == "__main__":
    serve(_open)
