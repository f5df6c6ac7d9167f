"""A problem: a question, its answer, two complete solutions, and a check that needs nothing else.

The checker is a value inside the problem, not a function looked up by family, so that a problem can be pickled, sent to a
worker and judged there.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from multiverse.structure.sequential import sequential_baseline
from multiverse.structure.tree import Block, Body, Document

IN_PARALLEL = "Let's think in parallel."
IN_A_LINE = "Let's think step by step."

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

TEST_SHARE = 20
"""One instance in this many belongs to the test split."""


@dataclass(frozen=True)
class IntegerRule:
    """The answer is this number."""

    value: int

    def accepts(self, answer: str) -> bool:
        return re.fullmatch(r"[0-9]{1,9}", answer) is not None and int(answer) == self.value


@dataclass(frozen=True)
class ExpressionRule:
    """The answer is any expression that uses each number once, only the given operators, and has the target as its value."""

    numbers: tuple[int, ...]
    operators: str
    target: int

    def accepts(self, answer: str) -> bool:
        # Checked before parsing: only short arithmetic expressions reach the parser.
        if re.fullmatch(r"[0-9+*() \-]{1,100}", answer) is None:
            return False
        try:
            tree = ast.parse(answer, mode="eval").body
        except SyntaxError:
            return False
        used: list[int] = []
        return self._value(tree, used) == self.target and sorted(used) == sorted(self.numbers)

    def _value(self, node: ast.expr, used: list[int]) -> int | None:
        """The value of an expression, or `None` when it holds something that is not allowed."""
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return node.value
        if not isinstance(node, ast.BinOp):
            return None
        left, right = self._value(node.left, used), self._value(node.right, used)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Add) and "+" in self.operators:
            return left + right
        if isinstance(node.op, ast.Sub) and "-" in self.operators:
            return left - right
        if isinstance(node.op, ast.Mult) and "*" in self.operators:
            return left * right
        return None


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
    """

    family: str
    question: str
    answer: str
    structured: Document
    sequential: Document
    rule: IntegerRule | ExpressionRule

    def check(self, answer: str) -> bool:
        """Whether this answer is right; ``Answer:`` before it, a dot after it and blanks around it are ignored."""
        text = re.sub(r"^answer:", "", answer.strip(), flags=re.IGNORECASE).strip()
        return self.rule.accepts(text.removesuffix(".").rstrip())


def forked(family: str, question: str, answer: str, block: Block, rule: IntegerRule | ExpressionRule) -> Problem:
    """A problem whose solution is one block."""
    return problem(family, question, answer, (IN_PARALLEL, block), rule)


def problem(family: str, question: str, answer: str, thinking: Body, rule: IntegerRule | ExpressionRule) -> Problem:
    """A problem with its solution; the sequential one is derived from it."""
    structured = Document(thinking, f"Answer: {answer}")
    return Problem(family, question, answer, structured, flatten(structured), rule)


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
    numbers = ",".join(sorted(re.findall(r"[0-9]+", question)))
    digest = hashlib.blake2b(numbers.encode(), digest_size=8).digest()
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
