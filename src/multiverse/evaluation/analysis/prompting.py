"""The prompting test: whether a model that is prompted for the format produces it, and where the question can be forked.

An answer is `formed` (it parses and has a block), `broken` (tags of a block, but it does not parse) or `plain` (no tag of a
block). Whether the question can be answered with a fork is known from its own solution.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from ...engine.generation import Generation
from ...engine.params import SamplingParams
from ...errors import StructureError
from ...prompting import ask
from ...structure import MULTIVERSE, Block, Dialect, Document, Role, parse, place, render
from .cases import Case
from .intervals import Share, share

if TYPE_CHECKING:
    from ...llm import LLM

PromptMode = Literal["parallel", "sequential", "explained"]
Outcome = Literal["formed", "broken", "plain"]

_EXPLAINED = """\
{question} Think step by step and in parallel before answering. Where the question falls into parts that do not need each \
other, write them as a block: first a goal with one numbered outline for each part, then one path for each outline, which may \
not use what the other paths say, then a conclusion. Keep exactly to this form:

{example}"""
_EXAMPLE = Block(("the left side", "the right side"), (("3 times 4 is 12.",), ("20 minus 5 is 15.",)), "12 plus 15 is 27.")


@dataclass(frozen=True)
class PromptingTest:
    """How the questions are asked.

    Attributes:
        mode: ``parallel`` and ``sequential``: with the instruction of the mode (see `prompting`). ``explained``: with a
            description of the format and an example, for models that were not trained on it.
        guard: sample only legal tags.
    """

    mode: PromptMode
    guard: bool

    def messages(self, question: str, dialect: Dialect) -> list[dict[str, str]]:
        """The messages of a question."""
        if self.mode != "explained":
            return ask(question, self.mode)
        text = _EXPLAINED.format(question=question.strip(), example=render(_example(dialect), dialect))
        return [{"role": "user", "content": text}]


@dataclass(frozen=True)
class PromptingSample:
    """One question and the class of the generated text.

    Attributes:
        possible: whether the question's own solution forks.
        finish_reason: as in `Generation`.
        parallelism: tokens over the longest chain of them.
    """

    group: str
    question: str
    possible: bool
    outcome: Outcome
    finish_reason: str
    parallelism: float
    text: str


@dataclass(frozen=True)
class Tally:
    """Answers to questions of one group, asked in one way.

    Attributes:
        n: answers; a limit ended `cut` of them.
        possible: share of questions whose own solution forks.
        formed, broken, plain: shares of the outcomes.
        formed_where_possible, formed_where_not: `formed` among the questions that can be forked, and among the others.
        parallelism: mean over all answers.
    """

    group: str
    mode: PromptMode
    guard: bool
    n: int
    cut: int
    possible: Share
    formed: Share
    broken: Share
    plain: Share
    formed_where_possible: Share
    formed_where_not: Share
    parallelism: float

    def as_json(self) -> dict[str, Any]:
        """As plain objects; a share of nothing is null."""
        return {name: None if isinstance(value, dict) and not value["n"] else value for name, value in asdict(self).items()}


def classify(text: str, dialect: Dialect = MULTIVERSE) -> Outcome:
    """Class of a generated text.

    Formed is a text in which every tag of a block belongs to a whole block, with as many paths as outlines, numbered from 1.
    White space beside tags and the tags around the thinking are ignored, for models that were not trained on them.
    """
    think = dialect.think or ()
    if not any(tag in text for tag in dialect.tags if tag not in think):
        return "plain"
    try:
        document = parse(_tidied(text, dialect), dialect)
    except StructureError:
        return "broken"
    return "formed" if document.depth else "broken"


def _tidied(text: str, dialect: Dialect) -> str:
    """The text as one trunk that may fork, with one separator around each tag."""
    think = dialect.think
    kept = [tag for tag in dialect.tags if tag not in (think or ())]
    text = re.sub("|".join(map(re.escape, think)), " ", text) if think is not None else text
    parts: list[str] = []
    for piece in re.split("(" + "|".join(re.escape(tag) for tag in sorted(kept, key=len, reverse=True)) + ")", text):
        part = piece.strip()
        if parts and dialect.roles.get(parts[-1]) in (Role.OUTLINE_OPEN, Role.PATH_OPEN):
            end = dialect.label_end
            labelled = re.fullmatch(rf"([\d.]*)\s*{re.escape(end)}(.*)", part, re.DOTALL)
            if labelled is not None:
                part = f"{labelled[1]}{end} {labelled[2].strip()}".rstrip()
        # A conclusion may be empty if a limit cut it.
        silent = bool(parts) and dialect.roles.get(parts[-1]) is Role.CONCLUSION_OPEN
        parts += [part] if part or silent else []
    if think is not None and dialect.apart:
        parts = [think.open, *parts, think.close]
    return "".join(part + _between(part, behind, dialect) for part, behind in zip(parts, [*parts[1:], None], strict=True))


def _between(part: str, behind: str | None, dialect: Dialect) -> str:
    """The white space between a tag or text and the next; nothing at the end."""
    roles = dialect.roles
    if behind is None:
        return ""
    if part in roles:
        return dialect.after[roles[part]]
    return dialect.before[roles[behind]] if behind in roles else dialect.sep


def run_prompting(
    llm: LLM,
    cases: Sequence[Case],
    test: PromptingTest,
    params: SamplingParams,
    *,
    seed: int = 0,
    on_finish: Callable[[PromptingSample], None] | None = None,
) -> list[PromptingSample]:
    """Ask every question once, each with a seed of its own.

    Args:
        params: for all questions; its guard and its seed are the test's.
        on_finish: called with each answer as it is finished, in no particular order.

    Raises:
        RequestError: a question is too long for the model.
    """
    dialect = llm.tokens.dialect if llm.tokens is not None else MULTIVERSE
    each = [replace(params, guard=test.guard, seed=seed * 1_000_003 + number) for number in range(len(cases))]
    messages = [test.messages(case.question, dialect) for case in cases]

    def answer(number: int, generation: Generation) -> PromptingSample:
        case = cases[number]
        return PromptingSample(
            case.group,
            case.question,
            case.forks,
            classify(generation.text, dialect),
            generation.finish_reason,
            generation.usage.parallelism,
            generation.text,
        )

    def report(number: int, generation: Generation) -> None:
        if on_finish is not None:
            on_finish(answer(number, generation))

    if getattr(llm.tokenizer, "chat_template", None) is None:
        raw = [f"{turns[-1]['content']}\n\n" for turns in messages]
        generations = llm.generate(raw, each, on_finish=report, progress=False)
    else:
        generations = llm.chat(messages, each, mode=None, on_finish=report, progress=False)
    return [answer(number, generation) for number, generation in enumerate(generations)]


def tally(answers: Sequence[PromptingSample], test: PromptingTest, group: str) -> Tally:
    """The shares over at least one sample; `group` is their common name."""
    formed = [answer.outcome == "formed" for answer in answers]
    possible = [answer.possible for answer in answers]
    pairs = list(zip(formed, possible, strict=True))
    return Tally(
        group=group,
        mode=test.mode,
        guard=test.guard,
        n=len(answers),
        cut=sum(answer.finish_reason not in ("stop", "malformed") for answer in answers),
        possible=share(possible),
        formed=share(formed),
        broken=share([answer.outcome == "broken" for answer in answers]),
        plain=share([answer.outcome == "plain" for answer in answers]),
        formed_where_possible=share([did for did, could in pairs if could]),
        formed_where_not=share([did for did, could in pairs if not could]),
        parallelism=fmean(answer.parallelism for answer in answers),
    )


def _example(dialect: Dialect) -> Document:
    """The example, without what the dialect has no tag for."""
    before, block, answer = "Let's think in parallel.", _EXAMPLE, "Answer: 27"
    if dialect.conclusion is None:
        block = replace(block, conclusion="")
    return place((before, block), answer, dialect)
