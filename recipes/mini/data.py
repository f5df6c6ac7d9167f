"""What the mini model trains on: problems of all families, each with its solution that forks and the one in a line.

The families that are hardest to learn come up more often than the others, and the first few thousand problems are mostly
narrow, since copying from a short question is learned sooner than from a long one. A function of the seed alone.

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
"""How often each family comes up; by documents, not by tokens."""

NARROW = 8000
"""The share of problems that are kept narrow falls from all to none over this many problems."""

DOCUMENTS = 90_000


def drawn(seed: int, count: int, narrow: int = NARROW, weights: Mapping[str, float] = WEIGHTS) -> Iterator[Problem]:
    """Problems of the training split, in the order in which they are to be learned."""
    rng = Random(f"mini/{seed}")
    for number in range(count):
        family = rng.choices(list(weights), list(weights.values()))[0]
        kept_narrow = rng.random() >= number / narrow if narrow else False
        width = WIDTHS[family][0] if kept_narrow and WIDTHS[family] else None
        yield next(problems(family, seed=rng.getrandbits(63), split="train", width=width))


def record(problem: Problem) -> dict[str, object]:
    """A problem as `multiverse data` and `multiverse train` read it."""
    answer = {"role": "assistant", "content": render(problem.structured)}
    return {
        "messages": [{"role": "user", "content": problem.question}, answer],
        "sequential": render(problem.sequential),
    }


def write(
    path: Path, seed: int = 0, count: int = DOCUMENTS, narrow: int = NARROW, weights: Mapping[str, float] = WEIGHTS
) -> None:
    """Write the problems as JSON lines; whoever is killed meanwhile leaves no file that looks whole."""
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
    parser.add_argument("--narrow", type=int, default=NARROW, help="problems over which width is let go")
    options = parser.parse_args()
    write(options.out, options.seed, options.documents, options.narrow)
    print(f"{options.documents:,} problems in {options.out}")


if __name__ == "__main__":
    main()
