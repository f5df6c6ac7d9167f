"""Greedy answers of a model to this project's puzzles, whatever runs it: what is right, what forks, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from multiverse import LLM, Generation, SamplingParams
from multiverse.prompting import Mode
from multiverse.tasks import Problem, generate

GREEDY = SamplingParams(temperature=0, max_tokens=2048)


class Answer(NamedTuple):
    """One answer.

    Attributes:
        right: it ended by itself, and is correct.
        text: as generated, tags included.
        forks: blocks that were opened.
        parallelism: all tokens over those of the longest chain.
        tokens: generated, over all branches.
        reread: tokens of paths that were read again at joins.
        malformed: it broke the grammar.
    """

    right: bool
    text: str
    forks: int
    parallelism: float
    tokens: int
    reread: int
    malformed: bool


def questions(families: Sequence[str], count: int, seed: int) -> dict[str, list[Problem]]:
    """Held-out problems by family."""
    return {family: generate(family, count, seed=seed) for family in families}


def ask(
    llm: LLM, problems: Sequence[Problem], mode: Mode = "parallel", on_finish: Callable[[], None] = lambda: None
) -> tuple[list[Answer], float]:
    """Answers to all problems, asked at once, and the seconds that took."""
    asked = [[{"role": "user", "content": problem.question}] for problem in problems]
    began = time.perf_counter()
    found = llm.chat(asked, GREEDY, mode=mode, on_finish=lambda *_: on_finish(), progress=False)
    seconds = time.perf_counter() - began
    return [_judge(problem, own) for problem, own in zip(problems, found, strict=True)], seconds


def _judge(problem: Problem, found: Generation) -> Answer:
    blocks = list(found.tree.blocks()) if found.tree is not None else []
    return Answer(
        right=found.finish_reason == "stop" and problem.check(found.answer),
        text=found.text,
        forks=len(blocks),
        parallelism=found.usage.parallelism,
        tokens=found.usage.total_tokens,
        reread=found.usage.reread_tokens,
        malformed=found.finish_reason == "malformed",
    )


def figures(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """Figures of a set of answers, for a report and for JSON; means are over the answers."""
    return {
        "n": len(answers),
        "accuracy": round(fmean(own.right for own in answers), 4),
        "forks": sum(own.forks for own in answers),
        "parallelism": round(fmean(own.parallelism for own in answers), 4),
        "tokens": round(fmean(own.tokens for own in answers), 2),
        "reread": round(fmean(own.reread for own in answers), 2),
        "malformed": sum(own.malformed for own in answers),
        "seconds": round(seconds, 2),
    }
