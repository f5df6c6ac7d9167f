"""Frozen tree types of a structured document, without tags, separators and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

Body = tuple["str | Block", ...]
"""Text and blocks in order. Two neighbouring texts are not allowed, nor is an empty text."""


class AsWritten(NamedTuple):
    """What a block that breaks the rules was written with, in the place of what the rules say.

    Attributes:
        outlines, paths: the number of each label, such as ``3`` or ``1.2``.
        conclusion: whether it has one.
    """

    outlines: tuple[str, ...]
    paths: tuple[str, ...]
    conclusion: bool = True


@dataclass(frozen=True)
class Block:
    """One fork and join.

    Attributes:
        outlines: the description of each path, without its label; at least one.
        paths: one body per outline, without its label.
        conclusion: the text of the trunk after the join; empty in dialects without a conclusion tag.
        as_written: of a block that breaks the rules and was read all the same (`Dialect.malformed`); then there may be more or
            fewer paths than outlines. `None` for all others, whose labels are counted.
    """

    outlines: tuple[str, ...]
    paths: tuple[Body, ...]
    conclusion: str
    as_written: AsWritten | None = None

    def __post_init__(self) -> None:
        labels = self.as_written
        if labels is None:
            if not self.outlines:
                raise ValueError("a block needs at least one outline")
            if len(self.paths) != len(self.outlines):
                counts = f"{len(self.paths)} paths, {len(self.outlines)} outlines"
                raise ValueError(f"a block needs as many paths as outlines: {counts}")
        elif (len(labels.outlines), len(labels.paths)) != (len(self.outlines), len(self.paths)):
            raise ValueError("a block that is kept as it was written needs the label of every outline and every path")
        for path in self.paths:
            _check_body(path)

    def titled(self) -> list[tuple[str, str, Body]]:
        """Each path behind its label, where that is not counted but as it was written (else empty), and its outline."""
        labels = self.as_written
        if labels is None:
            return [("", outline, path) for outline, path in zip(self.outlines, self.paths, strict=True)]
        outlines = dict(zip(labels.outlines, self.outlines, strict=True))
        return [(label, outlines.get(label, ""), path) for label, path in zip(labels.paths, self.paths, strict=True)]


@dataclass(frozen=True)
class Document:
    """A whole generation: the thinking and the answer. Which of them may hold blocks is said by the dialect.

    Attributes:
        thinking: the trunk between the think tags, or `None` when there are no think tags at all.
        answer: the trunk after the thinking. A text alone may be given as a string.
        cut: whether the text ends within the thinking, which was read all the same (`Dialect.malformed`).
    """

    thinking: Body | None
    answer: Body
    cut: bool

    def __init__(self, thinking: Body | None, answer: Body | str = (), *, cut: bool = False) -> None:
        if isinstance(answer, str):
            answer = (answer,) if answer else ()
        for body in (thinking or (), answer):
            _check_body(body)
        object.__setattr__(self, "thinking", thinking)
        object.__setattr__(self, "answer", answer)
        object.__setattr__(self, "cut", cut)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Every block with its depth (1 for a block of the trunk), in document order."""
        yield from _blocks(self.thinking or (), 1)
        yield from _blocks(self.answer, 1)

    @property
    def trunk(self) -> Body:
        """The trunk that holds the reasoning: the thinking, or without one the answer."""
        return self.answer if self.thinking is None else self.thinking

    @property
    def plain_answer(self) -> str | None:
        """The answer as a text; `None` if it forks."""
        if any(isinstance(item, Block) for item in self.answer):
            return None
        return "".join(item for item in self.answer if isinstance(item, str))

    @property
    def depth(self) -> int:
        """Depth of the deepest block; 0 when nothing forks."""
        return max((depth for depth, _ in self.blocks()), default=0)

    @property
    def branches(self) -> int:
        """Number of paths in the whole document."""
        return sum(len(block.paths) for _, block in self.blocks())

    def to_json(self) -> dict[str, Any]:
        """As nested objects: texts are strings, blocks are objects of outlines, paths and a conclusion.

        A body is a list; an answer without a block is a string.
        """
        thinking, answer = (None if body is None else _body_json(body) for body in (self.thinking, self.answer))
        whole = {"thinking": thinking, "answer": answer if self.plain_answer is None else self.plain_answer}
        return {**whole, "cut": True} if self.cut else whole


def _body_json(body: Body) -> list[Any]:
    return [_block_json(item) if isinstance(item, Block) else item for item in body]


def _block_json(block: Block) -> dict[str, Any]:
    paths = [_body_json(path) for path in block.paths]
    found = {"outlines": list(block.outlines), "paths": paths, "conclusion": block.conclusion}
    if (labels := block.as_written) is not None:
        found["as_written"] = {"outlines": list(labels.outlines), "paths": list(labels.paths), "conclusion": labels.conclusion}
    return found


def _blocks(body: Body, depth: int) -> Iterator[tuple[int, Block]]:
    for item in body:
        if isinstance(item, Block):
            yield depth, item
            for path in item.paths:
                yield from _blocks(path, depth + 1)


def _check_body(body: Body) -> None:
    previous: str | Block | None = None
    for item in body:
        if item == "":
            raise ValueError("a body may not hold an empty text")
        if isinstance(item, str) and isinstance(previous, str):
            raise ValueError(f"two neighbouring texts in a body, join them: {previous!r}, {item!r}")
        previous = item
