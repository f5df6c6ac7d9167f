"""What rollouts cost beside plain generation: recording, layers that are not packed, adapters that are not merged.

Each case answers the same questions with the same seeds, in turns with the case that it is compared with; the ratio is the
median of the ratios of seconds a token within a repeat. The model is a folder that is given, or multiverse-mini in float32.

    python -m benchmarks.rollouts
    python -m benchmarks.rollouts --model FOLDER --repeats 9 --json out.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.machine import describe
from benchmarks.options import make_parser
from multiverse import LLM, SamplingParams
from multiverse.engine.model import embedded_model
from multiverse.models.rows import Rows
from multiverse.structure import MULTIVERSE, TokenDialect, read_dialect, resolve
from multiverse.tasks import problems
from multiverse.training.config import Config, Lora
from multiverse.training.lora import enable_training
from multiverse.training.prepare import Prepared
from multiverse.training.rl.policy import Policy

PLAIN = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=512)
RECORDED = replace(PLAIN, logprobs=True, logprobs_mode="processed_logprobs", supports=True)

Case = Callable[[int], float]
"""Seconds a token of one repeat."""


def timed(llm: LLM, chats: list[Any], params: SamplingParams, seed: int) -> float:
    """Seconds a generated token, all answers in one batch."""
    llm.engine.cache.clear()
    start = time.perf_counter()
    found = llm.chat(chats, [replace(params, seed=seed * 1000 + number) for number in range(len(chats))], progress=False)
    return (time.perf_counter() - start) / sum(one.usage.total_tokens for one in found)


def load(folder: Path) -> tuple[Any, Any, TokenDialect]:
    """A model in float32, as it is trained on a CPU."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model, tokenizer, resolve(tokenizer, read_dialect(model.config) or MULTIVERSE)


def adapted(folder: Path, rank: int) -> tuple[Any, Any, TokenDialect]:
    """The same with adapters, and the rows of tags beside them."""
    model, tokenizer, tokens = load(folder)
    config = Config(model=str(folder), data=["-"], out="-", lora=Lora(rank=rank))
    return enable_training(model, config, Prepared(tokens, (), tuple(sorted(tokens.roles)), 0, Rows(0, 0))), tokenizer, tokens


def compare(pairs: dict[str, tuple[Case, Case]], repeats: int) -> dict[str, tuple[float, float, float]]:
    """Microseconds a token without and with, and the ratio, of each pair."""
    figures = {}
    for name, (without, with_) in pairs.items():
        found: list[tuple[float, float]] = []
        for repeat in range(-1, repeats):  # the first is not counted
            if repeat % 2:
                one = without(repeat + 1), with_(repeat + 1)
            else:
                other = with_(repeat + 1)
                one = without(repeat + 1), other
            if repeat >= 0:
                found.append(one)
        columns = [median(pair[i] for pair in found) * 1e6 for i in range(2)]
        figures[name] = columns[0], columns[1], median(b / a for a, b in found)
    return figures


def measure(folder: Path, count: int, rank: int, repeats: int) -> dict[str, tuple[float, float, float]]:
    """All cases over so many questions."""
    asked = [one.question for one in islice(problems("worksheet", seed=5), count)]
    chats = [[{"role": "user", "content": question}] for question in asked]
    model = load(folder)
    whole = adapted(folder, rank)
    policies = [
        Policy(*model),
        Policy(*model, packed_linears=True),
        Policy(*adapted(folder, rank)),
        Policy(whole[0].merge_and_unload(), *whole[1:]),
    ]
    with ExitStack() as stack:
        plain, packed, beside, merged = (stack.enter_context(policy.decoding()) for policy in policies)

        def case(llm: LLM, params: SamplingParams) -> Case:
            return lambda seed: timed(llm, chats, params, seed)

        return compare(
            {
                "log-probabilities and supports recorded": (case(plain, PLAIN), case(plain, RECORDED)),
                "the same, top_p 0.9": (case(plain, replace(PLAIN, top_p=0.9)), case(plain, replace(RECORDED, top_p=0.9))),
                "layers not packed, against packed": (case(packed, RECORDED), case(plain, RECORDED)),
                f"adapters (rank {rank}) not merged, against merged": (case(merged, RECORDED), case(beside, RECORDED)),
            },
            repeats,
        )


def main() -> None:
    """Measure, print and store."""
    parser = make_parser(__doc__, quick=True)
    parser.add_argument("--model", type=Path, metavar="FOLDER", default=embedded_model(), help="in place of multiverse-mini")
    parser.add_argument("--questions", type=int, default=64, metavar="N", help="answered in one batch")
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="of the adapters")
    parser.add_argument("--repeats", type=int, default=7, metavar="N")
    options = parser.parse_args()
    if options.quick:
        options.questions, options.repeats = 2, 1
    figures = measure(options.model, options.questions, options.rank, options.repeats)
    machine = describe()
    table = Table("", "without, µs a token", "with, µs a token", "ratio", title=f"{options.questions} questions: {machine}")
    for name, (without, with_, ratio) in figures.items():
        table.add_row(name, f"{without:.0f}", f"{with_:.0f}", f"{ratio:.3f}")
    Console(width=140).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": str(machine), "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
