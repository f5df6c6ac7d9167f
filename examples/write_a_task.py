"""A family of verifiable problems: question, answer, a solution that forks, the same in a line, and a rule for what is right.

Printed as JSON lines, they are training data:

python examples/write_a_task.py 200 > fields.jsonl
multiverse data validate fields.jsonl
multiverse train recipes/lora-0.5b.yaml --dry-run --set "data=[fields.jsonl]"
"""

import json
import sys
from random import Random

from multiverse.structure import Block, render
from multiverse.tasks import IntegerRule, Problem
from multiverse.tasks.problem import forked, running_sum

NAMES = ("meadow", "orchard", "garden", "yard", "field", "lawn")


def draw(rng: Random, width: int) -> Problem:
    """Areas of `width` rectangles, and their sum: each is computed for itself, so each is a path."""
    names = rng.sample(NAMES, width)
    sides = [(rng.randint(2, 20), rng.randint(2, 20)) for _ in names]
    areas = [a * b for a, b in sides]
    question = (
        " ".join(f"A {name} is {a} by {b}." for name, (a, b) in zip(names, sides, strict=True)) + " What is the whole area?"
    )
    paths = tuple((f"{a}*{b}={a * b}.",) for a, b in sides)
    total_text, total = running_sum(areas)
    return forked("fields", question, str(total), Block(tuple(names), paths, total_text), IntegerRule(total))


def main(count: str = "3", seed: str = "0") -> None:
    rng = Random(int(seed))
    for _ in range(int(count)):
        problem = draw(rng, rng.randint(2, 4))
        assert problem.check(f"Answer: {problem.answer}")
        print(json.dumps({"question": problem.question, "answer": problem.answer, "structured": render(problem.structured)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
