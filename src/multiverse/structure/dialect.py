"""The tag set of a structured document, as a value.

A `Dialect` defines the tags, the separators and the form of labels. No tag is spelled out outside this package.
`tokens.resolve` binds a dialect to a tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args

from ..errors import DialectError


class Tag(NamedTuple):
    """An opening tag and its closing; the closing is empty where what follows ends it."""

    open: str
    close: str


Blocks = Literal["thinking", "answer", "both"]
"""Where the blocks of the trunk stand."""
Labels = Literal["path", "number"]
"""How paths and outlines are numbered."""
Joins = Literal["kv", "text", "message"]
"""What a parent gets of its paths at a join: their keys and values, their text to read, or a message of each to read."""


class Role(Enum):
    """The grammatical role of a tag, independent of its text in a dialect."""

    THINK_OPEN = "think open"
    THINK_CLOSE = "think close"
    BLOCK_OPEN = "block open"
    BLOCK_CLOSE = "block close"
    GOAL_OPEN = "goal open"
    GOAL_CLOSE = "goal close"
    OUTLINE_OPEN = "outline open"
    OUTLINE_CLOSE = "outline close"
    PATH_OPEN = "path open"
    PATH_CLOSE = "path close"
    CONCLUSION_OPEN = "conclusion open"
    CONCLUSION_CLOSE = "conclusion close"


@dataclass(frozen=True)
class Dialect:
    """Tags, separators and labels of one notation of fork and join.

    A block is one goal holding outlines, then as many paths, then a conclusion. `think`, `block` and `conclusion` may be
    `None` where a dialect has no such tag; at least one of `block` and `conclusion` is required, to mark where the trunk
    resumes.

    The trunk is the thinking, between its tags, and the answer after it. Without `think` tags there is one trunk, which is the
    thinking or the answer, as `blocks` says.

    Attributes:
        name: name of the dialect in files and messages.
        outline: its closing may be empty: then the next outline or the end of the goal closes it.
        sep: the separator between a tag and the text or tag next to it; may be empty.
        label_end: the text after a label, as in ``2.1:``; may be empty.
        labels: a label is the ``path`` from the trunk, as in ``2.1``, or the ``number`` within its block, as in ``1``.
        answer_sep: the separator between the closing think tag and the answer.
        blocks: where the trunk may fork: in the ``thinking``, in the ``answer``, or in ``both``. Paths may fork anywhere.
        join: what the parent gets of its paths at a join: their keys and values (``kv``), their ``text``, which it reads in a
            line, or the last clause of each (``message``); see `joins`.
    """

    name: str
    think: Tag | None
    block: Tag | None
    goal: Tag
    outline: Tag
    path: Tag
    conclusion: Tag | None
    sep: str = "\n"
    label_end: str = ":"
    labels: Labels = "path"
    answer_sep: str = "\n\n"
    blocks: Blocks = "thinking"
    join: Joins = "kv"

    def __post_init__(self) -> None:
        if self.blocks not in get_args(Blocks):
            raise ValueError(f"dialect {self.name!r} has blocks={self.blocks!r}: use one of {', '.join(get_args(Blocks))}")
        if self.labels not in get_args(Labels):
            raise ValueError(f"dialect {self.name!r} has labels={self.labels!r}: use one of {', '.join(get_args(Labels))}")
        if self.join not in get_args(Joins):
            raise ValueError(f"dialect {self.name!r} has join={self.join!r}: use one of {', '.join(get_args(Joins))}")
        for name in ("think", "block", "goal", "path", "conclusion"):
            tag = getattr(self, name)
            if tag is not None and not (tag.open and tag.close):
                raise ValueError(f"dialect {self.name!r} needs both tags of {name}: only the closing of outline may be empty")
        if self.blocks == "both" and self.think is None:
            raise ValueError(f"dialect {self.name!r} has no think tag, so blocks must be 'thinking' or 'answer', not 'both'")
        if self.block is None and self.conclusion is None:
            raise ValueError(f"dialect {self.name!r} needs a block tag or a conclusion tag to mark where the trunk resumes")
        tags = self.tags
        if len(set(tags)) != len(tags):
            raise ValueError(f"dialect {self.name!r} uses one tag for two roles: {', '.join(tags)}")

    @property
    def roles(self) -> dict[str, Role]:
        """Every tag of the dialect with its role, in document order."""
        pairs = (
            (self.think, Role.THINK_OPEN, Role.THINK_CLOSE),
            (self.block, Role.BLOCK_OPEN, Role.BLOCK_CLOSE),
            (self.goal, Role.GOAL_OPEN, Role.GOAL_CLOSE),
            (self.outline, Role.OUTLINE_OPEN, Role.OUTLINE_CLOSE),
            (self.path, Role.PATH_OPEN, Role.PATH_CLOSE),
            (self.conclusion, Role.CONCLUSION_OPEN, Role.CONCLUSION_CLOSE),
        )
        return {text: role for tag, *roles in pairs if tag is not None for text, role in zip(tag, roles, strict=True) if text}

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag of the dialect, each opening before its closing."""
        pairs = (self.think, self.block, self.goal, self.outline, self.path, self.conclusion)
        return tuple(text for tag in pairs if tag is not None for text in tag if text)

    @property
    def apart(self) -> bool:
        """Whether reasoning that forks and the answer to it are apart, by think tags; otherwise they are one trunk."""
        return self.think is not None and self.forks_thinking

    @property
    def forks_thinking(self) -> bool:
        """Whether blocks may stand in the thinking."""
        return self.blocks != "answer"

    @property
    def forks_answer(self) -> bool:
        """Whether blocks may stand in the answer."""
        return self.blocks != "thinking"

    @property
    def resume(self) -> str:
        """The tag with which the trunk resumes after a join."""
        if self.conclusion is not None:
            return self.conclusion.open
        assert self.block is not None
        return self.block.close

    def label_text(self, label: str) -> str:
        """A label path as this dialect writes it, with what ends it."""
        return f"{label if self.labels == 'path' else label.rpartition('.')[2]}{self.label_end}"

    def outline_head(self, label: str) -> str:
        """The text between the tag that opens the outline with this label and the outline's own text."""
        return f"{self.sep}{self.label_text(label)}"

    def path_head(self, label: str) -> str:
        """The text that opens the path with this label; always forced by the engine."""
        return f"{self.path.open}{self.sep}{self.label_text(label)}"

    def resume_head(self) -> str:
        """The text with which the trunk resumes after a join; always forced by the engine."""
        return self.resume if self.conclusion is None else self.resume + self.sep


def child_label(parent: str, index: int) -> str:
    """Label of child `index` (from 0) of the branch labelled `parent`; the trunk's label is the empty string."""
    return f"{parent}.{index + 1}" if parent else str(index + 1)


MULTIVERSE = Dialect(
    name="multiverse",
    think=Tag("<Think>", "</Think>"),
    block=Tag("<Parallel>", "</Parallel>"),
    goal=Tag("<Goal>", "</Goal>"),
    outline=Tag("<Outline>", "</Outline>"),
    path=Tag("<Path>", "</Path>"),
    conclusion=Tag("<Conclusion>", "</Conclusion>"),
)
"""The paper's twelve tags (arXiv 2506.09991); the default everywhere."""

MULTIVERSE_ANSWER = replace(MULTIVERSE, name="multiverse-answer", blocks="answer")
"""The paper's twelve tags, with blocks in the answer: its paths are what the user reads."""

NPR = Dialect(
    name="npr",
    think=None,
    block=None,
    goal=Tag("<guideline>", "</guideline>"),
    outline=Tag("<plan>", "</plan>"),
    path=Tag("<step>", "</step>"),
    conclusion=Tag("<takeaway>", "</takeaway>"),
)
"""Native Parallel Reasoner: no outer tag."""

THREADWEAVER = Dialect(
    name="threadweaver",
    think=Tag("<think>", "</think>"),
    block=Tag("<Parallel>", "</Parallel>"),
    goal=Tag("<Outlines>", "</Outlines>"),
    outline=Tag("<Outline>", "</Outline>"),
    path=Tag("<Thread>", "</Thread>"),
    conclusion=None,
)
"""ThreadWeaver: no conclusion tag, the trunk resumes at the closing of the block."""

MULTIVERSE_COMPACT = Dialect(
    name="multiverse-compact",
    think=Tag("<Think>", "</Think>"),
    block=None,
    goal=Tag("<fork>", "<run>"),
    outline=Tag("<part>", ""),
    path=Tag("<path>", "</path>"),
    conclusion=Tag("<join>", "</join>"),
    sep="",
    label_end="",
    labels="number",
    blocks="answer",
)
"""As few tokens a block as can be: a path refers to its outline by number alone, and nothing stands between tags and texts.

    Two questions.<fork><part>1 Bread<part>2 Magnets<run><path>1 It is baked.</path><path>2 They pull.</path><join>Done.</join>

The model chooses one tag for each outline, one that forks, one at the end of each path and one at the end of the conclusion;
the rest is forced.
"""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (MULTIVERSE, MULTIVERSE_ANSWER, MULTIVERSE_COMPACT, NPR, THREADWEAVER)
}

_SAVED_AS = "multiverse_dialect"


def write_dialect(config: Any, dialect: Dialect) -> None:
    """Store the dialect, tag by tag, in a transformers model configuration, which is saved with the model."""
    setattr(config, _SAVED_AS, asdict(dialect))


def read_dialect(config: Any) -> Dialect | None:
    """The dialect stored in a transformers model configuration; `None` if there is none.

    Raises:
        DialectError: the stored value is not a valid dialect.
    """
    saved = getattr(config, _SAVED_AS, None)
    if saved is None:
        return None
    try:
        if not isinstance(saved, Mapping) or not set(saved) <= {item.name for item in fields(Dialect)}:
            raise ValueError("it must hold the fields of a dialect and no others")
        tags: dict[str, Any] = {
            name: Tag(*value) if isinstance(value, list | tuple) else value for name, value in saved.items()
        }
        return Dialect(**tags)
    except (TypeError, ValueError) as error:
        raise DialectError(f"{_SAVED_AS} in the model's config.json is not valid: {error}") from None
