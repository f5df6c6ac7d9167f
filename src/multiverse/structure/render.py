"""Renderer from tree to text: adds every separator, label and tag."""

from __future__ import annotations

from typing import NamedTuple

from .dialect import Dialect, Role, child_label
from .dialects import MULTIVERSE
from .tree import AsWritten, Block, Body, Document

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
        check_places(document, self.dialect)
        think, blocks = self.dialect.think, 0
        if document.thinking is not None:
            if think is not None:
                self.tag(Role.THINK_OPEN, ())
            self.may_end = think is None
            blocks = self.body(document.thinking, (), "")
            if think is not None and not document.cut:
                if document.thinking:
                    self.separate(document.thinking[-1], Role.THINK_CLOSE, ())
                self.free(think.close, ())
        self.may_end = True
        if document.answer:
            if document.thinking is not None:
                self.force(self.dialect.answer_sep, (), optional=True)
            self.body(document.answer, (), "", blocks)
        return self.out

    def body(self, body: Body, path: Path, label: str, blocks: int = 0) -> int:
        """Add a body whose branch has so many blocks already; returns how many it has then."""
        for index, item in enumerate(body):
            if index:
                self.separate(body[index - 1], self.dialect.begin, path)
            if isinstance(item, str):
                # The space after a label belongs to the free text, where tokenizers attach it to the first word.
                self.free((" " if label and not index else "") + self.checked(item), path)
            else:
                if label and not index:
                    self.free(self.dialect.before[self.dialect.begin], path)
                self.block(item, path, label, blocks)
                blocks += 1
        return blocks

    def separate(self, last: str | Block, tag: Role, path: Path) -> None:
        """The separator behind an item of a body: after a text the model chooses it, after a block's last tag it must come."""
        if isinstance(last, str):
            self.free(self.dialect.before[tag], path)
        else:
            self.force(self.dialect.after[self.dialect.end], path, optional=self.may_end and not path)

    def block(self, block: Block, path: Path, label: str, number: int) -> None:
        dialect = self.dialect
        check_block(block, dialect, len(path))
        counted = [dialect.number(child_label(label, index)) for index in range(max(len(block.outlines), len(block.paths)))]
        outlines, paths, concludes = block.as_written or AsWritten(tuple(counted), tuple(counted))
        if dialect.block is not None:
            self.tag(Role.BLOCK_OPEN, path)
        if block.outlines:
            self.goal(block, outlines, path)
        for index, body in enumerate(block.paths):
            child_path = (*path, (number, index))
            self.force(dialect.path_head(paths[index]), child_path, head=True)
            self.body(body, child_path, child_label(label, index))
            if body:
                self.separate(body[-1], Role.PATH_CLOSE, child_path)
            self.free(dialect.path.close if body else dialect.before[Role.PATH_CLOSE] + dialect.path.close, child_path)
            space = dialect.after[Role.PATH_CLOSE]
            if dialect.after_path == "free":
                self.free(space, child_path)
            else:
                self.force(space, child_path, head=True)
        if concludes:
            self.force(dialect.resume_head(), path, head=True)
        if dialect.conclusion is not None and concludes:
            self.free(self.checked(block.conclusion) + dialect.before[Role.CONCLUSION_CLOSE] + dialect.conclusion.close, path)
            if dialect.block is not None:
                self.force(dialect.after[Role.CONCLUSION_CLOSE], path)
        if dialect.block is not None and not (dialect.conclusion is None and dialect.closes_block):
            self.force(dialect.block.close, path)

    def goal(self, block: Block, numbers: tuple[str, ...], path: Path) -> None:
        dialect = self.dialect
        forced = dialect.block is not None
        (self.force if forced else self.free)(dialect.goal.open, path)
        self.force(dialect.after[Role.GOAL_OPEN], path)
        for index, outline in enumerate(block.outlines):
            (self.free if index else self.force)(dialect.outline.open, path)
            self.force(dialect.outline_head(numbers[index]) + self.label_gap, path)
            text = f" {self.checked(outline)}".removeprefix(self.label_gap)
            self.free(text + dialect.before[Role.OUTLINE_CLOSE] + dialect.outline.close, path)
            if dialect.outline.close:
                self.force(dialect.after[Role.OUTLINE_CLOSE], path)
        self.free(dialect.goal.close, path)
        self.force(dialect.after[Role.GOAL_CLOSE], path, head=True)

    def tag(self, role: Role, path: Path) -> None:
        """A tag that the model chooses, and what must follow it."""
        self.free(next(tag for tag, r in self.dialect.roles.items() if r is role), path)
        self.force(self.dialect.after[role], path)

    def free(self, text: str, path: Path) -> None:
        last = self.out[-1] if self.out else None
        if last is not None and not last.forced and last.path == path:
            self.out[-1] = last._replace(text=last.text + text)
        elif text:
            self.out.append(Segment(text, False, path))

    def force(self, text: str, path: Path, *, head: bool = False, optional: bool = False) -> None:
        """A text that must come. Where white space is free, that is only the heads of forks and joins."""
        if not head and not self.dialect.exact:
            self.free(text, path)
        elif text:
            self.out.append(Segment(text, True, path, head, optional))

    def checked(self, text: str) -> str:
        if self.dialect.malformed == "refuse":  # otherwise a text may hold tags that are no structure
            for tag in self.dialect.tags:
                if tag in text:
                    raise ValueError(f"text may not hold the tag {tag}: {text[:60]!r}")
        return text


def check_places(document: Document, dialect: Dialect) -> None:
    """Raise `ValueError` unless the dialect has a thinking and an answer, and blocks in them, where the document has them."""
    if dialect.think is None and dialect.forks_answer and document.thinking is not None:
        raise ValueError(f"dialect {dialect.name!r} has no think tag and its trunk is the answer: put the text there")
    if dialect.think is None and dialect.forks_thinking and document.answer:
        raise ValueError(f"dialect {dialect.name!r} has no think tag and its trunk is the thinking: put the answer there too")
    if not dialect.forks_thinking and any(isinstance(item, Block) for item in document.thinking or ()):
        raise ValueError(f"dialect {dialect.name!r} has blocks in the answer alone, but the thinking holds one")
    if not dialect.forks_answer and document.plain_answer is None:
        raise ValueError(f"dialect {dialect.name!r} has blocks in the thinking alone, but the answer holds one")
    if document.cut and dialect.outcome("thinking") is None:
        raise ValueError(f"dialect {dialect.name!r} has no text that ends within the thinking")


def check_block(block: Block, dialect: Dialect, depth: int) -> None:
    """Raise `ValueError` unless the dialect can write a block that stands in so many paths."""
    if depth and not dialect.nests:
        raise ValueError(f"dialect {dialect.name!r} does not nest: a block stands in a path")
    most = max(len(block.outlines), len(block.paths))
    if dialect.max_paths is not None and most > dialect.max_paths and dialect.outcome("width") is None:
        raise ValueError(f"dialect {dialect.name!r} has at most {dialect.max_paths} paths in a block, and this one has {most}")
    if dialect.conclusion is None and block.conclusion:
        raise ValueError(f"dialect {dialect.name!r} has no conclusion tag, but a block has a conclusion")
    if block.as_written is not None and dialect.malformed != "as-released":
        raise ValueError(f"dialect {dialect.name!r} does not keep a block as it was written: its labels are counted")
