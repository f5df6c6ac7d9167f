"""Training data of several turns: dialogues of the training split, a record for each turn after the turns before it.

Loss is taken on the last answer of a record only, so each turn of a dialogue is one. Earlier turns are as a chat has them:
their questions end with an instruction, and their answers are in its form, which is drawn for each dialogue. The form of the
last answer is the mixture's. Single questions are mixed in, so that what the model can do already is kept.

    python -m recipes.mini.dialogues runs/mini-dialogues/data.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import track

from multiverse.prompting import Mode, ask
from multiverse.structure import render
from multiverse.tasks import Exchange, dialogues

from .data import drawn, record

DIALOGUES = 1000
SINGLE = 0.25
"""Single questions for each record of a dialogue."""


def records(dialogue: tuple[Exchange, ...], earlier: Mode) -> Iterator[dict[str, object]]:
    """A record for each turn.

    Args:
        earlier: the form of earlier answers.
    """
    before: list[dict[str, str]] = []
    for exchange in dialogue:
        problem = exchange.problem
        own = record(problem)
        assert isinstance(own["messages"], list)
        yield own | {"messages": [*before, *own["messages"]]}
        answer = problem.structured if earlier == "parallel" else problem.sequential
        before += [*ask(problem.question, earlier), {"role": "assistant", "content": render(answer)}]


def written(seed: int, count: int) -> Iterator[dict[str, object]]:
    """All records in training order."""
    rng = Random(f"mini/dialogues/{seed}")
    single = drawn(seed + 1, 4 * count, narrow=0)
    for dialogue in islice(dialogues(seed, split="train"), count):
        for own in records(dialogue, "parallel" if rng.random() < 0.75 else "sequential"):
            yield own
            if rng.random() < SINGLE:
                yield record(next(single))


def write(path: Path, seed: int = 0, count: int = DIALOGUES) -> int:
    """Write the records as JSON lines, atomically, and return their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part, number = path.with_suffix(".part"), 0
    with part.open("w") as file:
        stream = track(written(seed, count), "records", total=5 * count, console=Console(stderr=True), transient=True)
        for own in stream:
            file.write(json.dumps(own, ensure_ascii=False) + "\n")
            number += 1
    part.replace(path)
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dialogues", type=int, default=DIALOGUES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    number = write(options.out, options.seed, options.dialogues)
    print(f"{number:,} records of {options.dialogues:,} dialogues in {options.out}")


if __name__ == "__main__":
    main()
