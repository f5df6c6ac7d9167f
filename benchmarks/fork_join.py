"""Scripted fork-join work on the shape of Qwen2.5-0.5B, random bf16 weights: forked, sequential, transformers generate.

The structure is scripted and the weights are random, so this measures machinery, not a model. All sides are run in turn,
several times over; each figure is the median of its decode time per token, with the prompt's prefill left out.

    python -m benchmarks.fork_join                  # about five minutes on two cores
    python -m benchmarks.fork_join --json out.json
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from benchmarks.machine import describe
from multiverse.engine import SamplingParams
from multiverse.engine.engine import Engine
from multiverse.engine.model import prepare
from multiverse.engine.packing import pack_linears
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import MULTIVERSE, Block, Document, resolve

# https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json
QWEN_05B = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    max_position_embeddings=32768,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=None,
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte and one a tag, so that a script has as many tokens as it has letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in MULTIVERSE.tags])
    return PreTrainedTokenizerFast(tokenizer_object=core)


class Ours:
    """The engine, writing scripts."""

    def __init__(self, model: Any) -> None:
        tokenizer = byte_tokenizer()
        self.tokens = resolve(tokenizer)
        self.sampler = ScriptedSampler()
        loaded = prepare(model, tokenizer, "random Qwen2.5-0.5B shape", torch.device("cpu"))
        self.engine = Engine(loaded, self.tokens, kv_memory=1 << 30, sampler=self.sampler)

    def seconds_per_token(self, document: Document, prompt: list[int]) -> tuple[float, float]:
        """Decode time over tokens written: of the whole document, and of the steps in which its branches ran alone.

        The prompt's own step is left out. Without a fork the second figure is not a number.
        """
        script = Script(document, self.tokens)
        length = sum(map(len, script.by_path.values()))
        request = self.engine.submit(prompt, SamplingParams(temperature=0, max_tokens=length))
        self.sampler.scripts[request.id] = script
        self.engine.step()  # the prompt
        seconds, written = [0.0, 0.0], [0, 0]
        while request.finish_reason is None:
            forked, before = request.trunk.waiting, request.written
            start = time.perf_counter()
            self.engine.step()
            elapsed = time.perf_counter() - start
            for inside in range(1 + (forked and request.trunk.waiting)):
                seconds[inside] += elapsed
                written[inside] += request.written - before
        return seconds[0] / written[0], seconds[1] / written[1] if written[1] else float("nan")


def generate_seconds_per_token(model: Any, prompt: list[int], count: int) -> float:
    """transformers generate, greedy; the time of one token, prefill included, is taken off."""

    def run(new: int) -> float:
        ids = torch.tensor([prompt])
        start = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False)
        return time.perf_counter() - start

    return (run(count + 1) - run(1)) / count


def forked(width: int, tokens: int) -> Document:
    """One block of `width` paths with `tokens` letters each."""
    return Document((Block(("o",) * width, (("x" * tokens,),) * width, "c"),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=512, help="prompt tokens")
    parser.add_argument("--tokens", type=int, default=64, help="tokens a branch, and of a sequential run")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    torch.manual_seed(0)
    stock: Any = Qwen2ForCausalLM(QWEN_05B).bfloat16().eval()
    packed = copy.deepcopy(stock)
    pack_linears(packed)
    ours = Ours(copy.deepcopy(stock))
    prompt = [index % 200 for index in range(options.prompt)]
    sequential = Document(None, "x" * options.tokens)
    sides: dict[str, Callable[[], dict[str, float]]] = {
        "transformers generate, stock": lambda: {"": generate_seconds_per_token(stock, prompt, options.tokens)},
        "transformers generate, packed": lambda: {"": generate_seconds_per_token(packed, prompt, options.tokens)},
        "ours, sequential": lambda: {"": ours.seconds_per_token(sequential, prompt)[0]},
    }
    for width in options.widths:
        document = forked(width, options.tokens)
        sides[f"ours, {width} branches"] = lambda document=document: dict(  # type: ignore[misc]
            zip((", whole document", ", inside the block"), ours.seconds_per_token(document, prompt), strict=True)
        )

    times: dict[str, list[float]] = {}
    for side in sides.values():
        side()  # warm-up
    for _ in track(range(options.repeats), description="measuring", console=Console(stderr=True), transient=True):
        for name, side in sides.items():
            for part, value in side().items():
                times.setdefault(name + part, []).append(value)
    report(times, options.json)


def report(times: dict[str, list[float]], path: Path | None) -> None:
    """Print medians and ratios, and store them."""
    medians = {name: median(values) for name, values in times.items()}
    stock, sequential = medians["transformers generate, stock"], medians["ours, sequential"]
    table = Table(title="decode, Qwen2.5-0.5B shape, bf16, random weights, scripted")
    for column in ("side", "ms/token", "spread", "x stock", "x sequential"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, value in medians.items():
        spread = f"{min(times[name]) * 1e3:.1f}-{max(times[name]) * 1e3:.1f}"
        table.add_row(name, f"{value * 1e3:.1f}", spread, f"{stock / value:.2f}", f"{sequential / value:.2f}")
    console = Console(width=100)
    console.print(table)
    console.print(describe())
    if path is not None:
        path.write_text(json.dumps({"machine": describe(), "seconds_per_token": times, "medians": medians}, indent=1) + "\n")


if __name__ == "__main__":
    main()
