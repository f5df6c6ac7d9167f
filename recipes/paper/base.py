"""The model that every arm starts from: a plain one, which can do each part of the work and has never seen a block.

As in the paper, whose models could reason before they were taught to fork, an arm learns a form, not arithmetic. The base
learns from solutions in a line, with the parts of every block told in random order: so it goes by a part's name and not by
its place, which is what a path needs, and the order of none of the arms is favoured. The tags of blocks occur nowhere in it.

    python -m recipes.paper.base          # about forty minutes on one core; started again, it goes on

The finished weights are kept beside the cells (recipes/paper/start, bfloat16), so that all cells have the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from multiverse.structure import Block, Body, Document, render
from multiverse.tasks.flatten import flatten
from multiverse.training.config import load
from multiverse.training.run import train
from recipes.mini import start
from recipes.mini.data import drawn

from .arms import HERE, RUNS, START
from .data import DEPTH, FAMILIES

SEED, DOCUMENTS, NARROW = 100, 60_000, 6_000


def shuffled(body: Body, rng: Random) -> Body:
    """The body with the paths of every block in random order."""
    return tuple(item if isinstance(item, str) else _shuffled_block(item, rng) for item in body)


def _shuffled_block(block: Block, rng: Random) -> Block:
    order = rng.sample(range(len(block.paths)), len(block.paths))
    return Block(tuple(block.outlines[i] for i in order), tuple(shuffled(block.paths[i], rng) for i in order), block.conclusion)


def records(count: int) -> Iterator[dict[str, object]]:
    """Questions with their solutions in a line, as `multiverse train` reads them."""
    rng = Random(f"base/{SEED}")
    endless = drawn(SEED, 1 << 60, NARROW, dict.fromkeys(FAMILIES, 1.0))
    for problem in islice((problem for problem in endless if problem.structured.depth <= DEPTH), count):
        document = problem.structured
        assert document.thinking is not None
        told: Document = flatten(replace(document, thinking=shuffled(document.thinking, rng)))
        yield {
            "messages": [
                {"role": "user", "content": problem.question},
                {"role": "assistant", "content": render(told)},
            ]
        }


def main() -> None:
    disable_progress_bar()
    if not (RUNS / "fresh" / "config.json").exists():
        start.write(RUNS / "fresh", "paper", SEED)
    data = RUNS / "base.jsonl"
    if not data.exists():
        part = data.with_suffix(".part")
        part.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records(DOCUMENTS)))
        part.replace(data)
    folder: Path = train(load(HERE / "base.yaml"), show=Console(stderr=True))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(START)
    AutoTokenizer.from_pretrained(folder).save_pretrained(START)
    print(START)


if __name__ == "__main__":
    main()
