"""Renderer from tree to text: adds every separator, label and tag."""

from __future__ import annotations

from typing import NamedTuple

from .dialect import MULTIVERSE, Dialect, child_label
from .tree import Block, Body, Document


class Segment(NamedTuple):
    """A piece of text that is tokenised separately.

    Attributes:
        text: the characters.
        forced: whether the engine, not the model, writes it (separators around paths, heads).
        path: indices from the trunk to the branch it belongs to, as (block, path) pairs; empty for the trunk.
    """

    text: str
    forced: bool
    path: tuple[tuple[int, int], ...]


def render(document: Document, dialect: Dialect = MULTIVERSE) -> str:
    """The canonical text of a document.

    Raises:
        ValueError: a text holds one of the dialect's tags, or the dialect has no tag for what the tree holds.
    """
    return "".join(segment.text for segment in segments(document, dialect))


def segments(document: Document, dialect: Dialect = MULTIVERSE) -> list[Segment]:
    """The canonical text, split between forced and generated text (same errors as `render`)."""
    return _Renderer(dialect).document(document)


class _Renderer:
    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.out: list[Segment] = []

    def document(self, document: Document) -> list[Segment]:
        self.check_places(document)
        think, blocks = self.dialect.think, 0
        if document.thinking is not None:
            if think is not None:
                self.free(think.open + self.dialect.sep, ())
            blocks = self.body(document.thinking, (), "")
            if think is not None:
                self.free(self.dialect.sep + think.close if document.thinking else think.close, ())
        if document.answer:
            if document.thinking is not None:
                self.free(self.dialect.answer_sep, ())
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

    def body(self, body: Body, path: tuple[tuple[int, int], ...], label: str, blocks: int = 0) -> int:
        """Add a body whose branch has so many blocks already; returns how many it has then."""
        for index, item in enumerate(body):
            if index:
                self.free(self.dialect.sep, path)
            if isinstance(item, str):
                # The space after a label belongs to the free text, where tokenizers attach it to the first word.
                self.free((" " if label and not index else "") + self.checked(item), path)
            else:
                if label and not index:
                    self.free(self.dialect.sep, path)
                self.block(item, path, label, blocks)
                blocks += 1
        return blocks

    def block(self, block: Block, path: tuple[tuple[int, int], ...], label: str, number: int) -> None:
        dialect, sep = self.dialect, self.dialect.sep
        if dialect.block is not None:
            self.free(dialect.block.open + sep, path)
        self.free(dialect.goal.open + sep, path)
        for index, outline in enumerate(block.outlines):
            text = f"{child_label(label, index)}{dialect.label_end} {self.checked(outline)}"
            self.free(f"{dialect.outline.open}{sep}{text}{sep}{dialect.outline.close}{sep}", path)
        self.free(dialect.goal.close, path)
        self.force(sep, path)
        for index, body in enumerate(block.paths):
            child, child_path = child_label(label, index), (*path, (number, index))
            self.force(dialect.path_head(child), child_path)
            self.body(body, child_path, child)
            self.free(sep + dialect.path.close, child_path)
            self.force(sep, child_path)
        self.force(dialect.resume_head(), path)
        if dialect.conclusion is None:
            if block.conclusion:
                raise ValueError(f"dialect {dialect.name!r} has no conclusion tag, but a block has a conclusion")
            return
        self.free(self.checked(block.conclusion) + sep + dialect.conclusion.close, path)
        if dialect.block is not None:
            self.free(sep + dialect.block.close, path)

    def free(self, text: str, path: tuple[tuple[int, int], ...]) -> None:
        self.add(text, False, path)

    def force(self, text: str, path: tuple[tuple[int, int], ...]) -> None:
        self.add(text, True, path)

    def add(self, text: str, forced: bool, path: tuple[tuple[int, int], ...]) -> None:
        if self.out and (self.out[-1].forced, self.out[-1].path) == (forced, path):
            self.out[-1] = self.out[-1]._replace(text=self.out[-1].text + text)
        elif text:
            self.out.append(Segment(text, forced, path))

    def checked(self, text: str) -> str:
        for tag in self.dialect.tags:
            if tag in text:
                raise ValueError(f"text may not hold the tag {tag}: {text[:60]!r}")
        return text
