"""Answer questions with a trained arm, and grade the answers of all arms by the same rule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from multiverse.engine.engine import Engine
from multiverse.engine.generation import Generation
from multiverse.engine.model import LoadedModel
from multiverse.engine.params import SamplingParams
from multiverse.errors import StructureError
from multiverse.prompting import ask
from multiverse.structure import ChatEncoder, TokenDialect, markdown, parse, resolve
from multiverse.tasks import Problem

from .arms import Arm, Decoding
from .joined import Answer, JoinedDecoder

MAX_TOKENS = 1024
"""Most generated tokens of an answer; the longest solutions have about 700."""


class Judged(NamedTuple):
    """A graded answer."""

    answer: Answer
    right: bool
    malformed: bool


class Respondent:
    """Answers a batch of prompts with one way of decoding, greedily.

    Args:
        loaded: the model.
        arm: how it was trained.
        decoding: how it is decoded; `None` is the arm's own way.
        budget: limit on the critical path, with the grammar enforced; `None` decodes without limit and grammar.
        max_tokens: most generated tokens of an answer.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        arm: Arm,
        decoding: Decoding | None = None,
        budget: int | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.tokens = resolve(loaded.tokenizer)
        self.arm = arm
        decoding = decoding if decoding is not None else arm.decoding
        self.joined = JoinedDecoder(loaded, self.tokens, arm.join, max_tokens) if decoding == "joined" else None
        self.engine = self.joined.engine if self.joined else Engine(loaded, self.tokens if decoding == "engine" else None)
        self.params = SamplingParams(
            temperature=0,
            max_tokens=max_tokens,
            guard=budget is not None,
            max_critical_path_tokens=budget,
            share_every=arm.share_every if decoding == "engine" else None,
        )

    def prompt(self, question: str) -> list[int]:
        """Token ids of a question in the arm's mode."""
        return prompt_ids(self.tokens, self.engine.loaded.tokenizer, question, self.arm)

    def __call__(self, prompts: Sequence[list[int]], on_finish: Callable[[Answer], None] = lambda _: None) -> list[Answer]:
        """Answers in the order of the prompts."""
        if self.joined is not None:
            return self.joined(prompts, on_finish=on_finish)
        requests = [self.engine.submit(list(prompt), self.params) for prompt in prompts]
        self.engine.run(requests, lambda request: on_finish(answer_of(self.engine.generation(request))))
        return [answer_of(self.engine.generation(request)) for request in requests]


def prompt_ids(tokens: TokenDialect, tokenizer: Any, question: str, arm: Arm) -> list[int]:
    """Token ids of a question with the generation prompt."""
    return ChatEncoder(tokenizer, tokens)(ask(question, arm.mode)).token_ids


def answer_of(generation: Generation) -> Answer:
    """The answer in a generation of the engine, which keeps every token that the trunk has read."""
    usage = generation.usage
    return Answer(
        text=generation.text,
        finish_reason=generation.finish_reason,
        total_tokens=usage.total_tokens,
        critical_path_tokens=usage.critical_path_tokens,
        forks=len(set(generation.branches)) - 1,
        recomputed=usage.reread_tokens,
        stored=usage.prompt_tokens + usage.total_tokens - 1,
    )


def judge(problem: Problem, answer: Answer) -> Judged:
    """Grade an answer: it has to be finished, parse, and be right."""
    ended = answer.finish_reason in ("stop", "budget")
    try:
        document = parse(answer.text)
    except StructureError:
        return Judged(answer, False, answer.finish_reason in ("stop", "malformed"))
    return Judged(answer, ended and problem.check(markdown(document.answer)), answer.finish_reason == "malformed")


def figures(
    respondent: Respondent, problems: Sequence[Problem], on_finish: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Figures of these problems, answered as one batch: means over the answers, and the wall-clock time of the batch."""
    prompts = [respondent.prompt(problem.question) for problem in problems]
    respondent.engine.cache.clear()
    start = time.perf_counter()
    answers = respondent(prompts, lambda _: on_finish())
    seconds = time.perf_counter() - start
    judged = [judge(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
    accuracy = fmean(item.right for item in judged)
    return {
        "n": len(judged),
        "accuracy": round(accuracy, 4),
        "stderr": round(math.sqrt(accuracy * (1 - accuracy) / len(judged)), 4),
        "malformed": sum(item.malformed for item in judged),
        "cut": sum(answer.finish_reason == "length" for answer in answers),
        "forked": round(fmean(answer.forks > 0 for answer in answers), 4),
        "critical_path_tokens": round(fmean(answer.critical_path_tokens for answer in answers), 2),
        "total_tokens": round(fmean(answer.total_tokens for answer in answers), 2),
        "parallelism": round(fmean(answer.parallelism for answer in answers), 4),
        "recomputed": round(fmean(answer.recomputed for answer in answers), 2),
        "stored": round(fmean(answer.stored for answer in answers), 2),
        "seconds": round(seconds, 3),
    }
