"""A problem: a question, its answer, two complete solutions, and a check that needs nothing else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from multiverse.structure.sequential import sequential_baseline
from multiverse.structure.tree import Block, Body, Document

from .rules import Rule

IN_PARALLEL = "Let's think in parallel."
IN_A_LINE = "Let's think step by step."

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

TEST_SHARE = 20
"""One instance in this many belongs to the test split."""


@dataclass(frozen=True)
class Problem:
    """One verifiable problem with both ways of solving it.

    Attributes:
        family: which generator it comes from.
        question: short English, without the sentence that asks for a way of thinking.
        answer: what stands after ``Answer: ``.
        structured: the solution that forks where the question does.
        sequential: the same reasoning without blocks.
        rule: what makes an answer right.
        instance: what makes it the same instance in other words, in any order; `None` for the numbers in the question.
    """

    family: str
    question: str
    answer: str
    structured: Document
    sequential: Document
    rule: Rule
    instance: tuple[str, ...] | None = None

    @property
    def split(self) -> Split:
        """The split it belongs to, the same for all wordings of an instance."""
        return split_of(self.question) if self.instance is None else _side(self.instance)

    def check(self, answer: str) -> bool:
        """Whether this answer is right.

        What stands before a last line that begins with ``Answer:`` is left out, as are a dot at the end and blanks around it.
        """
        return self.rule.accepts(final_answer(answer))


def final_answer(text: str) -> str:
    """What follows the last ``Answer:`` at the begin of a line, or all of a text without one; without a dot at its end."""
    *_, last = re.split(r"^\s*answer:", text, flags=re.IGNORECASE | re.MULTILINE)
    return last.strip().removesuffix(".").rstrip()


def forked(
    family: str, question: str, answer: str, block: Block, rule: Rule, instance: tuple[str, ...] | None = None
) -> Problem:
    """A problem whose solution is one block."""
    return problem(family, question, answer, (IN_PARALLEL, block), rule, instance)


def problem(
    family: str, question: str, answer: str, thinking: Body, rule: Rule, instance: tuple[str, ...] | None = None
) -> Problem:
    """A problem with its solution; the sequential one is derived from it."""
    structured = Document(thinking, f"Answer: {answer}")
    return Problem(family, question, answer, structured, flatten(structured), rule, instance)


def flatten(document: Document) -> Document:
    """The document with every block written path after path, each on its own line, then its conclusion.

    The same for all families, so that sequential and parallel data differ in their structure only.
    """
    flat = sequential_baseline(document, conclusions=True)
    if flat.thinking is None:
        return document
    texts = (text.replace(IN_PARALLEL, IN_A_LINE) for text in flat.thinking if isinstance(text, str))
    return Document(tuple(texts), flat.answer)


def split_of(question: str) -> Split:
    """The split a question belongs to, decided by the numbers in it whatever their order.

    Hashing the numbers and not the wording keeps the same instance, worded with other names, in another order or
    through another template, on one side. That matters where there are few instances, as in countdown.
    """
    return _side(re.findall(r"[0-9]+", question))


def _side(instance: Iterable[str]) -> Split:
    digest = hashlib.blake2b(",".join(sorted(instance)).encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_SHARE == 0 else "train"


def listing(items: Sequence[object], last: str = "and") -> str:
    """``a, b and c``."""
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def running_sum(values: Sequence[int]) -> tuple[str, int]:
    """``21+15=36, 36+8=44.`` with the total: one easy addition at a time."""
    total, parts = values[0], []
    for value in values[1:]:
        parts.append(f"{total}+{value}={total + value}")
        total += value
    return ", ".join(parts) + ".", total
