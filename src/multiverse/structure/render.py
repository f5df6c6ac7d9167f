"""Renderer from tree to text: adds every separator, label and tag."""

from __future__ import annotations

from typing import NamedTuple

from .dialect import MULTIVERSE, Dialect, child_label
from .tree import Block, Body, Document

Path = tuple[tuple[int, int], ...]


class Segment(NamedTuple):
    """A piece of text that is tokenised separately.

    Attributes:
        text: the characters.
        forced: whether the engine, not the model, writes it: heads and separators around paths, and everything else that the
            grammar leaves no choice about (`guard.required_tokens`).
        path: indices from the trunk to the branch it belongs to, as (block, path) pairs; empty for the trunk.
        head: whether it is forced by a fork or a join: the head of a path, the separators around paths, the tag with which the
            trunk resumes. Who forks and joins without the guard writes these alone.
        optional: whether the text may end here instead, so that the first token of this forced piece is the model's to choose.
    """

    text: str
    forced: bool
    path: Path
    head: bool = False
    optional: bool = False


def render(document: Document, dialect: Dialect = MULTIVERSE) -> str:
    """The canonical text of a document.

    Raises:
        ValueError: a text holds one of the dialect's tags, or the dialect has no tag for what the tree holds.
    """
    return "".join(segment.text for segment in segments(document, dialect))


def segments(document: Document, dialect: Dialect, label_gap: str = "") -> list[Segment]:
    """The canonical text, split between forced and generated text (same errors as `render`).

    Args:
        label_gap: as in `TokenDialect`.
    """
    return _Renderer(dialect, label_gap).document(document)


class _Renderer:
    def __init__(self, dialect: Dialect, label_gap: str) -> None:
        self.dialect, self.label_gap = dialect, label_gap
        self.out: list[Segment] = []
        self.may_end = True  # whether the text may end after a block of the trunk: not inside the tags of the thinking

    def document(self, document: Document) -> list[Segment]:
        self.check_places(document)
        think, blocks = self.dialect.think, 0
        if document.thinking is not None:
            if think is not None:
                self.free(think.open, ())
                self.force(self.dialect.sep, ())
            self.may_end = think is None
            blocks = self.body(document.thinking, (), "")
            if think is not None:
                if document.thinking:
                    self.separate(document.thinking[-1], ())
                self.free(think.close, ())
        self.may_end = True
        if document.answer:
            if document.thinking is not None:
                self.force(self.dialect.answer_sep, (), optional=True)
            self.body(document.answer, (), "", blocks)
        return self.out

    def check_places(self, document: Document) -> None:
        """Whether the dialect has a thinking and an answer, and blocks in them, where the document has them."""
        dialect = self.dialect
        if dialect.think is None and dialect.forks_answer and document.thinking is not None:
            raise ValueError(f"dialect {dialect.name!r} has no think tag and its trunk is the answer: put the text there")
        if dialect.think is None and dialect.forks_thinking and document.answer:
            raise ValueError(
                f"dialect {dialect.name!r} has no think tag and its trunk is the thinking: put the answer there too"
            )
        if not dialect.forks_thinking and any(isinstance(item, Block) for item in document.thinking or ()):
            raise ValueError(f"dialect {dialect.name!r} has blocks in the answer alone, but the thinking holds one")
        if not dialect.forks_answer and document.plain_answer is None:
            raise ValueError(f"dialect {dialect.name!r} has blocks in the thinking alone, but the answer holds one")

    def body(self, body: Body, path: Path, label: str, blocks: int = 0) -> int:
        """Add a body whose branch has so many blocks already; returns how many it has then."""
        for index, item in enumerate(body):
            if index:
                self.separate(body[index - 1], path)
            if isinstance(item, str):
                # The space after a label belongs to the free text, where tokenizers attach it to the first word.
                self.free((" " if label and not index else "") + self.checked(item), path)
            else:
                if label and not index:
                    self.free(self.dialect.sep, path)
                self.block(item, path, label, blocks)
                blocks += 1
        return blocks

    def separate(self, last: str | Block, path: Path) -> None:
        """The separator behind an item of a body: after a text the model chooses it, after a block's last tag it must come."""
        if isinstance(last, str):
            self.free(self.dialect.sep, path)
        else:
            self.force(self.dialect.sep, path, optional=self.may_end and not path)

    def block(self, block: Block, path: Path, label: str, number: int) -> None:
        dialect, sep = self.dialect, self.dialect.sep
        if dialect.block is not None:
            self.free(dialect.block.open, path)
            self.force(sep, path)
            self.force(dialect.goal.open, path)
        else:
            self.free(dialect.goal.open, path)
        self.force(sep, path)
        for index, outline in enumerate(block.outlines):
            (self.free if index else self.force)(dialect.outline.open, path)
            self.force(dialect.outline_head(child_label(label, index)) + self.label_gap, path)
            text = f" {self.checked(outline)}".removeprefix(self.label_gap)
            self.free(text + sep + dialect.outline.close, path)
            self.force(sep, path)
        self.free(dialect.goal.close, path)
        self.force(sep, path, head=True)
        for index, body in enumerate(block.paths):
            child, child_path = child_label(label, index), (*path, (number, index))
            self.force(dialect.path_head(child), child_path, head=True)
            self.body(body, child_path, child)
            if body:
                self.separate(body[-1], child_path)
            self.free(dialect.path.close if body else sep + dialect.path.close, child_path)
            self.force(sep, child_path, head=True)
        self.force(dialect.resume_head(), path, head=True)
        if dialect.conclusion is None:
            if block.conclusion:
                raise ValueError(f"dialect {dialect.name!r} has no conclusion tag, but a block has a conclusion")
            return
        self.free(self.checked(block.conclusion) + sep + dialect.conclusion.close, path)
        if dialect.block is not None:
            self.force(sep, path)
            self.force(dialect.block.close, path)

    def free(self, text: str, path: Path) -> None:
        last = self.out[-1] if self.out else None
        if last is not None and not last.forced and last.path == path:
            self.out[-1] = last._replace(text=last.text + text)
        elif text:
            self.out.append(Segment(text, False, path))

    def force(self, text: str, path: Path, *, head: bool = False, optional: bool = False) -> None:
        if text:
            self.out.append(Segment(text, True, path, head, optional))

    def checked(self, text: str) -> str:
        for tag in self.dialect.tags:
            if tag in text:
                raise ValueError(f"text may not hold the tag {tag}: {text[:60]!r}")
        return text
