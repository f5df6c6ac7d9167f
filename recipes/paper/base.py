"""Train the base model of the comparison, which solves the tasks sequentially and has never seen a block.

As in the paper, whose models could reason before they learned to fork, an arm learns a form, not arithmetic. The base is
trained on sequential solutions with the parts of every block in random order, so that it identifies a part by its name and not
by its position, as a path has to, and no arm's order is favoured. The tags of blocks do not occur in its data.

    python -m recipes.paper.base          # about two hours on one core; resumes when started again

There are two rounds, each with its own problems and a learning rate that decays to 0: after the first round the base still
added up wrong parts. The weights are stored next to the cells (recipes/paper/start, bfloat16), so that all cells start alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from multiverse.structure import Block, Body, Document, render
from multiverse.tasks import flatten
from multiverse.training.config import load
from multiverse.training.run import train
from recipes.mini import start
from recipes.mini.data import drawn

from .arms import HERE, RUNS, START
from .data import DEPTH, FAMILIES

SEED = 100


class Round(NamedTuple):
    """One training run of the base.

    Attributes:
        data: file name of the problems.
        seed: of the problems.
        documents: number of problems.
        narrow: number of mostly narrow problems at the beginning.
        settings: overrides of base.yaml.
    """

    data: str
    seed: int
    documents: int
    narrow: int
    settings: dict[str, Any]


ROUNDS = (
    Round("base.jsonl", SEED, 60_000, 6_000, {}),
    Round(
        "base-2.jsonl",
        SEED + 1,
        60_000,
        0,
        {
            "model": str(RUNS / "base" / "model"),
            "data": [str(RUNS / "base-2.jsonl")],
            "out": str(RUNS / "base-2"),
            "seed": SEED + 1,
            "global_batch_size": 3,
            "micro_batch_size": 3,
            "max_steps": 5000,
        },
    ),
)


def shuffled(body: Body, rng: Random) -> Body:
    """The body with the paths of every block in random order, recursively."""
    return tuple(item if isinstance(item, str) else _shuffled_block(item, rng) for item in body)


def _shuffled_block(block: Block, rng: Random) -> Block:
    order = rng.sample(range(len(block.paths)), len(block.paths))
    return Block(tuple(block.outlines[i] for i in order), tuple(shuffled(block.paths[i], rng) for i in order), block.conclusion)


def records(seed: int, count: int, narrow: int) -> Iterator[dict[str, object]]:
    """Questions with sequential solutions, as records for `multiverse train`."""
    rng = Random(f"base/{seed}")
    endless = drawn(seed, 1 << 60, narrow, dict.fromkeys(FAMILIES, 1.0))
    for problem in islice((problem for problem in endless if problem.structured.depth <= DEPTH), count):
        document = problem.structured
        assert document.thinking is not None
        sequential: Document = flatten(replace(document, thinking=shuffled(document.thinking, rng)))
        yield {
            "messages": [
                {"role": "user", "content": problem.question},
                {"role": "assistant", "content": render(sequential)},
            ]
        }


def prepare(part: Round) -> None:
    """Write the problems of a round, unless the file exists."""
    data = RUNS / part.data
    if data.exists():
        return
    unfinished = data.with_suffix(".part")
    drawn_records = records(part.seed, part.documents, part.narrow)
    unfinished.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in drawn_records))
    unfinished.replace(data)


def main() -> None:
    disable_progress_bar()
    if not (RUNS / "fresh" / "config.json").exists():
        start.write(RUNS / "fresh", "paper", SEED)
    for part in ROUNDS:
        prepare(part)
        folder: Path = train(load(HERE / "base.yaml", part.settings), console=Console(stderr=True))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(START)
    AutoTokenizer.from_pretrained(folder).save_pretrained(START)
    print(START)


if __name__ == "__main__":
    main()
