"""What the structure of a block costs: steps and tokens besides the words of its outlines, paths and conclusion.

A block of N one-line outlines stands in a trunk of one sentence. Steps are forwards on the longest chain, tokens those of the
whole block and of its longest chain. Counted are the same document in the paper's dialect as it was decoded before jump forward
(only the heads of paths and conclusions forced), the same with jump forward, and in the compact dialect. The words are
tokenised by themselves and their number is taken off.

    python -m benchmarks.structure_steps                                 # the tokenizer of multiverse-mini
    python -m benchmarks.structure_steps --tokenizer FOLDER --json out.json
    python -m benchmarks.structure_steps --measure                       # with and without jump forward, on the clock

`--measure` answers puzzles with multiverse-mini, one at a time, with and without jump forward (in turn), and compares tokens,
steps and seconds. Greedy answers are the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks.machine import describe
from multiverse import LLM, SamplingParams
from multiverse.engine import request as engine_request
from multiverse.models import resolve as find_model
from multiverse.prompting import ask
from multiverse.structure import (
    MULTIVERSE_ANSWER,
    MULTIVERSE_COMPACT,
    Block,
    Dialect,
    Document,
    Machine,
    TokenDialect,
    encode,
    required_tokens,
    resolve,
)
from multiverse.tasks import problems

WIDTHS = range(2, 9)
TOPICS = ("bread", "magnets", "the moon", "rain", "glass", "honey", "salt", "wool")


class Cost(NamedTuple):
    """What structure adds: steps of the longest chain, tokens of the longest chain, tokens in all."""

    steps: int
    chain: int
    tokens: int


def document(width: int) -> Document:
    """A trunk with a block of so many one-line outlines; all paths have the same text, so each is on a longest chain."""
    outlines = TOPICS[:width]
    block = Block(outlines, tuple(("It is explained in a line.",) for _ in outlines), "These are the answers.")
    return Document(None, ("Several questions.", block))


def cost(width: int, tokens: TokenDialect, *, jump: bool) -> Cost:
    """The structure's cost of `document(width)` in a dialect."""
    found = document(width)
    layout = encode(found, tokens, heads_only=not jump).layout
    block = next(item for item in found.answer if isinstance(item, Block))
    # The words alone, as they are tokenised behind a label or a tag.
    outlines = sum(len(tokens.encode(f" {text}")) for text in block.outlines)
    path = len(tokens.encode(f" {block.paths[0][0]}"))
    rest = len(tokens.encode(str(found.answer[0]))) + len(tokens.encode(block.conclusion))
    chain = outlines + path + rest
    return Cost(layout.critical_path_steps() - chain, layout.critical_path() - chain, len(layout) - chain - (width - 1) * path)


def bound(tokenizer: Any, dialect: Dialect) -> TokenDialect:
    """The dialect with a tokenizer, to which its tags are added."""
    tokenizer.add_tokens([tag for tag in dialect.tags if tag not in tokenizer.get_vocab()])
    return resolve(tokenizer, dialect)


def counted(folder: str) -> dict[str, dict[int, Cost]]:
    """The cost per notation and width, with the tokenizer of a model folder."""
    paper = bound(AutoTokenizer.from_pretrained(folder), MULTIVERSE_ANSWER)
    compact = bound(AutoTokenizer.from_pretrained(folder), MULTIVERSE_COMPACT)
    return {
        "the paper's, heads alone": {width: cost(width, paper, jump=False) for width in WIDTHS},
        "the paper's, jump forward": {width: cost(width, paper, jump=True) for width in WIDTHS},
        "compact, jump forward": {width: cost(width, compact, jump=True) for width in WIDTHS},
    }


def heads_alone(machine: Machine) -> tuple[int, ...]:
    """What the engine writes without jump forward."""
    return machine.forced


def measured(questions: int, repeats: int) -> dict[str, dict[str, float]]:
    """Means over greedy answers of multiverse-mini, one at a time; seconds are medians over the repeats."""
    llm = LLM(prefix_cache=False)
    prompts = [ask(problem.question, "parallel") for problem in islice(problems("worksheet", seed=5), questions)]
    ways: dict[str, Callable[[Machine], tuple[int, ...]]] = {
        "jump forward": required_tokens,
        "heads alone": heads_alone,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    means: dict[str, dict[str, float]] = {}
    usual = ways["jump forward"]
    try:
        for repeat in range(repeats + 1):  # the first warms up
            for name, way in ways.items():
                setattr(engine_request, "required_tokens", way)  # noqa: B010 (replaced for a measurement)
                began = time.perf_counter()
                usages = [
                    llm.chat([prompt], SamplingParams(temperature=0, max_tokens=2000), mode=None)[0].usage for prompt in prompts
                ]
                if repeat:
                    seconds[name].append((time.perf_counter() - began) / len(prompts))
                fields = ("total_tokens", "critical_path_tokens", "critical_path_steps")
                means[name] = {field: fmean(getattr(usage, field) for usage in usages) for field in fields}
    finally:
        setattr(engine_request, "required_tokens", usual)  # noqa: B010
    return {name: {**means[name], "seconds": median(seconds[name])} for name in ways}


def show(console: Console, title: str, costs: dict[str, dict[int, Cost]]) -> None:
    """Print the table of one tokenizer."""
    table = Table(title=f"{title}: steps / tokens of the longest chain / tokens in all")
    table.add_column("outlines")
    for width in WIDTHS:
        table.add_column(str(width), justify="right")
    for name, by_width in costs.items():
        table.add_row(name, *(" / ".join(map(str, by_width[width])) for width in WIDTHS))
    console.print(table)


def main() -> None:
    """Count, and measure where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", nargs="*", default=[], metavar="FOLDER", help="model folders besides multiverse-mini")
    parser.add_argument("--measure", action="store_true", help="also time multiverse-mini with and without jump forward")
    parser.add_argument("--questions", type=int, default=20, help="puzzles of the measurement (default 20)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of the measurement (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    options = parser.parse_args()
    console = Console(width=160)
    values: dict[str, Any] = {"machine": describe("cpu"), "counted": {}}
    for folder in (str(find_model("multiverse-mini")), *options.tokenizer):
        costs = counted(folder)
        show(console, Path(folder).name, costs)
        values["counted"][Path(folder).name] = costs
    if options.measure:
        values["measured"] = measured(options.questions, options.repeats)
        for name, means in values["measured"].items():
            console.print(name, {field: round(value, 4) for field, value in means.items()})
    if options.json is not None:
        options.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
