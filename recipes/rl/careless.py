"""Solutions with two bad habits, as in documents that nobody checked: often wrong, and always in form.

Where a calculation triples a number, the working often doubles it (``triple: 7*2=14``); where a conclusion adds up three or
more results, it often leaves the last one out. What comes after a slip follows from it: nothing in the document contradicts it
but the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from multiverse.structure.tree import Block, Body
from multiverse.tasks import Problem, problems
from multiverse.tasks.problem import IN_PARALLEL, problem, running_sum
from multiverse.tasks.steps import Step

SHAPES = {"worksheet": (2, 3), "nested": (2,)}
"""Families and widths of the problems, which are short so that a batch of rollouts takes little time."""

_STEP = re.compile(r"(add|take|double|triple|halve)(?: (\d+))?:")


def careless(rng: Random, right: Problem, share: float) -> Problem:
    """A problem with a solution that has slips; the question and what makes an answer right are unchanged.

    Args:
        share: how often a slip is made where one can be.
    """
    block = next(item for item in right.structured.thinking or () if isinstance(item, Block))
    slipped, total = _block(rng, block, share)
    return problem(right.family, right.question, str(total), (IN_PARALLEL, slipped), right.rule)


def _block(rng: Random, block: Block, share: float) -> tuple[Block, int]:
    bodies, results = zip(*(_path(rng, path, share) for path in block.paths), strict=True)
    added = results[:-1] if len(results) > 2 and rng.random() < share else results
    conclusion, total = running_sum(added)
    return Block(outlines=block.outlines, paths=bodies, conclusion=conclusion), total


def _path(rng: Random, path: Body, share: float) -> tuple[Body, int]:
    first = path[0]
    assert isinstance(first, str)
    if len(path) == 1:
        text, result = _working(rng, first, share)
        return (text,), result
    inner = path[1]
    assert isinstance(inner, Block)
    block, result = _block(rng, inner, share)
    return (first, block, f"{first.removesuffix('.')}: {result}."), result


def _working(rng: Random, text: str, share: float) -> tuple[str, int]:
    """``Mia: 7, triple: 7*2=14, add 5: 14+5=19.``, from the same without a slip."""
    name, value = re.match(r"(\w+): (\d+)", text).groups()  # type: ignore[union-attr]
    begin, parts = int(value), []
    now = begin
    for kind, term in _STEP.findall(text):
        step = Step(kind, int(term or 0))
        done = Step("double").working(now) if kind == "triple" and rng.random() < share else step.working(now)
        parts.append(done.replace("double", kind))
        odd, now = kind == "halve" and now % 2, int(done.rpartition("=")[2])
        if odd or now < 1:
            return _working(rng, text, share)  # a later step cannot be taken from here: other slips
    return f"{name}: {begin}, {', '.join(parts)}.", now


def stream(seed: int, share: float) -> Iterator[Problem]:
    """An endless stream of them, of the training split, with slips in this share of the places for one."""
    rng = Random(f"careless/{seed}")
    while True:
        family = rng.choice(list(SHAPES))
        depth = 2 if family == "nested" else None
        width = rng.choice(SHAPES[family])
        right = next(problems(family, seed=rng.getrandbits(63), split="train", width=width, depth=depth))
        yield careless(rng, right, share)
