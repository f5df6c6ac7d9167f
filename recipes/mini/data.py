"""Training data of the mini model: problems of all families, each with a solution that forks and a sequential one.

Families that are harder to learn are more frequent, and the first few thousand problems are mostly narrow, since copying from
a short question is learned sooner than from a long one. The data depends only on the seed.

    python -m recipes.mini.data runs/mini/data.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import track

from multiverse.structure import render
from multiverse.tasks import WIDTHS, Problem, problems

WEIGHTS = {"worksheet": 3.0, "cases": 8.0, "countdown": 4.0, "nested": 3.0, "chain": 2.0}
"""Relative frequency of each family, in documents."""

NARROW = 8000
"""Over this many problems the fraction that is kept narrow falls linearly from 1 to 0."""

DOCUMENTS = 90_000


def drawn(seed: int, count: int, narrow: int = NARROW, weights: Mapping[str, float] = WEIGHTS) -> Iterator[Problem]:
    """Problems of the training split in training order."""
    rng = Random(f"mini/{seed}")
    for number in range(count):
        family = rng.choices(list(weights), list(weights.values()))[0]
        kept_narrow = rng.random() >= number / narrow if narrow else False
        width = WIDTHS[family][0] if kept_narrow and WIDTHS[family] else None
        yield next(problems(family, seed=rng.getrandbits(63), split="train", width=width))


def record(problem: Problem) -> dict[str, object]:
    """A problem as a record for `multiverse data` and `multiverse train`."""
    answer = {"role": "assistant", "content": render(problem.structured)}
    return {
        "messages": [{"role": "user", "content": problem.question}, answer],
        "sequential": render(problem.sequential),
    }


def write(
    path: Path, seed: int = 0, count: int = DOCUMENTS, narrow: int = NARROW, weights: Mapping[str, float] = WEIGHTS
) -> None:
    """Write the problems as JSON lines, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w") as file:
        stream = drawn(seed, count, narrow, weights)
        for problem in track(stream, "problems", total=count, console=Console(stderr=True), transient=True):
            file.write(json.dumps(record(problem), ensure_ascii=False) + "\n")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--narrow", type=int, default=NARROW, help="problems over which the fraction of narrow ones falls to 0")
    options = parser.parse_args()
    write(options.out, options.seed, options.documents, options.narrow)
    print(f"{options.documents:,} problems in {options.out}")


if __name__ == "__main__":
    main()
