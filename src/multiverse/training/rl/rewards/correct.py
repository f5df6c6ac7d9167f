"""Whether an answer is right, by the check that its question names.

A rollout that did not end by itself is wrong whatever it says, as in evaluations; except one that was closed for its budget,
whose answer the model wrote knowing it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....answers import last_number
from ....errors import MultiverseError, RewardError
from ....evaluation.graders.choice import LETTERS, grade_choice
from ....evaluation.graders.code import Case, grade_code, program_in
from ....evaluation.graders.mathematics import grade_math
from ....evaluation.graders.sandbox import run
from ....structure import last_box
from ....tasks import final_answer, read_rule
from ....threads import usable_cores
from ..rollout import Question, Rollout
from .workers import Outcome, Pool

if TYPE_CHECKING:
    from ....engine import Generation

GRADED = ("stop", "budget")
"""Finish reasons of rollouts whose answers are looked at."""

_MEMORY = 4 << 30
_MARKUP = " \t\n.,;:!?*_`\"'()[]{}$“”‘’"


def check_of(question: Question) -> str:
    """The name of the check that judges answers to a question.

    Raises:
        RewardError: there is none.
    """
    check = question.extra.get("check")
    if check is not None and check != "auto":
        return str(check)
    if question.reference is None:
        raise RewardError(f"the question {question.id!r} has neither a check nor a reference: nothing can say what is right")
    return check_for(question.reference)


def check_for(reference: str) -> str:
    """The check of a reference that nothing else is known of."""
    return "math" if re.search(r"[0-9\\]", reference) else "exact"


def plain(text: str) -> str:
    """A text without case, markup, articles, marks and white space at its ends; of a box, its content."""
    box = last_box(text)
    text = unicodedata.normalize("NFKC", text if box is None else box).casefold()
    text = " ".join(text.split()).strip(_MARKUP)
    return re.sub(r"^(an?|the) ", "", text)


def _task(question: Question, generation: Generation) -> bool:
    rule = question.extra["rule"]
    assert isinstance(rule, Mapping)
    return read_rule(rule).accepts(final_answer(generation.answer))


def _exact(question: Question, generation: Generation) -> bool:
    return plain(generation.answer) == plain(question.reference or "")


def _math(question: Question, generation: Generation) -> bool:
    boxed = last_box(generation.content) is not None
    text = generation.content if boxed else generation.answer
    return _exact(question, generation) or grade_math(question.reference or "", text).right


def _number(question: Question, generation: Generation) -> bool:
    found, expected = last_number(generation.answer), last_number(question.reference or "")
    return found is not None and expected is not None and float(found) == float(expected)


def _choice(question: Question, generation: Generation) -> bool:
    choices = question.extra.get("choices") or list(LETTERS[:5])
    assert isinstance(choices, Sequence)
    boxed = last_box(generation.content) is not None
    text = generation.content if boxed else generation.answer
    return grade_choice(question.reference or "", text, [str(choice) for choice in choices]).right


def _code(question: Question, generation: Generation) -> bool:
    if isinstance(asserts := question.extra.get("asserts"), str):
        program, token = program_in(generation.content), secrets.token_hex(16)
        # What is printed last shows that the tests were reached: a program may end before them.
        done = run(f"{program}\n{asserts}\nprint()\nprint({token!r})\n") if program is not None else None
        return done is not None and done.status == "ok" and done.output.rstrip().endswith(token)
    cases = question.extra["cases"]
    assert isinstance(cases, Sequence)
    return grade_code(generation.content, [Case(*case) for case in cases]).right


_DIRECT: dict[str, Callable[[Question, Generation], bool]] = {
    "task": _task,
    "exact": _exact,
    "number": _number,
    "choice": _choice,
}
_SLOW: dict[str, Callable[[Question, Generation], bool]] = {"math": _math, "code": _code}
_SCORERS = {
    "gym": "multiverse.training.rl.rewards.gym_scorer:score",
    "instructions": "multiverse.training.rl.rewards.following:score",
}
"""Checks that run in processes of their own: they work on what the model wrote with code that may hang or fail."""

CHECKS = (*_DIRECT, *_SLOW, *_SCORERS, "judge")

Asked = Callable[[Sequence[tuple[Question, Rollout]]], list[Outcome]]


class Correct:
    """Judges rollouts, all of a step at once.

    Args:
        asked: what judges questions with the check ``judge``; `None` if there is no judge.
    """

    def __init__(self, asked: Asked | None = None) -> None:
        self._asked = asked
        self._pools: dict[str, Pool] = {}

    def __call__(self, rollouts: Sequence[tuple[Question, Rollout]]) -> list[Outcome]:
        """How right each answer is, from 0 to 1 (1 is right), or why its check failed.

        Raises:
            RewardError: a question has no check, an unknown one, or one that needs a judge that is not there.
            ExtraError: a library of a check is not installed.
        """
        outcomes: list[Outcome | None] = [None] * len(rollouts)
        by_check: dict[str, list[int]] = {}
        for index, (question, rollout) in enumerate(rollouts):
            check = check_of(question)
            if check not in CHECKS:
                raise RewardError(f"the question {question.id!r} has check={check!r}, which is none of {', '.join(CHECKS)}")
            if rollout.generation.finish_reason not in GRADED:
                outcomes[index] = Outcome(0.0)
            else:
                by_check.setdefault(check, []).append(index)
        for check, indices in by_check.items():
            for index, outcome in zip(indices, self._check(check, [rollouts[index] for index in indices]), strict=True):
                outcomes[index] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """Kill the worker processes."""
        for pool in self._pools.values():
            pool.close()

    def _check(self, check: str, rollouts: Sequence[tuple[Question, Rollout]]) -> list[Outcome]:
        if check in _DIRECT:
            return [_graded(_DIRECT[check], *one) for one in rollouts]
        if check in _SLOW:
            with ThreadPoolExecutor(usable_cores()) as threads:
                return list(threads.map(lambda one: _graded(_SLOW[check], *one), rollouts))
        if check == "judge":
            if self._asked is None:
                raise RewardError(f"the question {rollouts[0][0].id!r} has check='judge', and the reward correct has no judge")
            return self._asked(rollouts)
        if check not in self._pools:
            self._pools[check] = Pool(_SCORERS[check], ["extra", "text"], memory=_MEMORY)
            self._pools[check].check()
        return self._pools[check].call(
            [((dict(question.extra), text_of(check, rollout)), "") for question, rollout in rollouts]
        )


def text_of(check: str, rollout: Rollout) -> str:
    """What a scorer gets of a rollout."""
    generation = rollout.generation
    return generation.content if check == "instructions" else generation.answer


def _graded(grade: Callable[[Question, Generation], bool], question: Question, rollout: Rollout) -> Outcome:
    try:
        asked = (question, *(replace(question, reference=str(other)) for other in _also(question)))
        return Outcome(float(any(grade(one, rollout.generation) for one in asked)))
    except MultiverseError:
        raise  # a library or a process that is not there: the same for all
    except Exception as error:  # of any class: caused by this answer, or by what the question says of its check
        return Outcome(None, f"{type(error).__name__}: {error}"[:300])


def _also(question: Question) -> Sequence[object]:
    """Other answers that are as right as the reference."""
    also = question.extra.get("also", ())
    assert isinstance(also, Sequence)
    return also


def digest(value: Any) -> str:
    """A short hash of a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
