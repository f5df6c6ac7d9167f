"""What the mini model trains on, as a pure function of a seed and a step.

Nothing is stored and nothing has to be rewound: a run that resumes at step n asks for the documents of step n. Both
forms of a family come up equally often, the families that are hardest to learn more often than the others, and for the
first few hundred steps most problems are narrow, since copying from a short question is learned sooner than from a long one.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from random import Random
from typing import Any, NamedTuple, get_args

from transformers import AutoTokenizer

from multiverse.prompting import Mode
from multiverse.structure import TokenDialect, resolve
from multiverse.tasks import FAMILIES, WIDTHS, Problem, Split, problems
from multiverse.training import Features, featurize

MODES: tuple[Mode, ...] = get_args(Mode)

WEIGHTS = {"worksheet": 3.0, "cases": 8.0, "countdown": 4.0, "nested": 3.0, "chain": 2.0}
"""How often each family comes up; by documents, not by tokens."""

NARROW_STEPS = 400
"""The share of problems that are kept narrow falls from all to none over this many steps."""


class Source(NamedTuple):
    """Where the documents of a step come from.

    Attributes:
        tokenizer: folder of the tokenizer.
        seed: which stream.
        tokens: how many tokens a step has, about: documents are drawn until there are this many.
    """

    tokenizer: str
    seed: int
    tokens: int


def documents(source: Source, step: int) -> list[Features]:
    """The training documents of one step."""
    rng = Random(f"mini/{source.seed}/{step}")
    drawn: list[Features] = []
    total = 0
    while total < source.tokens:
        family = rng.choices(FAMILIES, [WEIGHTS[name] for name in FAMILIES])[0]
        narrow = rng.random() >= step / NARROW_STEPS
        width = WIDTHS[family][0] if narrow and WIDTHS[family] else None
        problem = next(problems(family, seed=rng.getrandbits(63), split="train", width=width))
        features = _features(problem, rng.choice(MODES), source.tokenizer)
        drawn.append(features)
        total += len(features)
    return drawn


def held_out(tokenizer: str, count: int, seed: int = 0, split: Split = "test") -> dict[tuple[str, Mode], list[Features]]:
    """The same `count` unseen problems of every family in both modes."""
    groups: dict[tuple[str, Mode], list[Features]] = {}
    for family in FAMILIES:
        stream = problems(family, seed=seed, split=split)
        chosen = [next(stream) for _ in range(count)]
        for mode in MODES:
            groups[family, mode] = [_features(problem, mode, tokenizer) for problem in chosen]
    return groups


def prefetch(source: Source, start: int, ahead: int = 8) -> Iterator[list[Features]]:
    """Documents of step `start`, `start` + 1, and so on, made by a process of their own while the model trains."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_ignore_interrupts) as pool:
        waiting: deque[Future[list[Features]]] = deque()
        step = start
        try:
            while True:
                while len(waiting) < ahead:
                    waiting.append(pool.submit(documents, source, step))
                    step += 1
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _features(problem: Problem, mode: Mode, folder: str) -> Features:
    tokenizer, tokens = _tokenizer(folder)
    document = problem.structured if mode == "parallel" else problem.sequential
    return featurize(problem.question, document, mode, tokenizer, tokens)


@cache
def _tokenizer(folder: str) -> tuple[Any, TokenDialect]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, resolve(tokenizer)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches every process of the terminal; only the trainer answers it, by saving.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
