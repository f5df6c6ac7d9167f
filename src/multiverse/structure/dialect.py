"""The notation of a family of models that fork and join, as a value.

A `Dialect` says everything that one family writes, forks and joins differently from another: tags, white space by place,
labels, what is forced, what a block may hold, and what becomes of a block that breaks the rules. No tag is spelled out outside
this package. The known ones are in `dialects`; `tokens.resolve` binds one to a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import cached_property
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
WhiteSpace = Literal["exact", "free"]
"""Whether texts are read and generated with exactly the white space that is written, or with any white space beside tags."""
AfterPath = Literal["forced", "free", "absent"]
"""Who writes what stands behind a path: the engine, the model (one token, with white space), or nobody."""
Joins = Literal["kv", "text", "message"]
"""What a parent gets of its paths at a join: their keys and values, their text to read, or a message of each to read."""
CutOff = Literal["continue", "end"]
"""What follows a block of which a path was cut off by a limit: its parent goes on, or the whole answer ends there."""
AnswerForm = Literal["text", "boxed"]
"""Whether the answer is the whole text behind the reasoning, or what that text has in its last ``\\boxed{}``."""
Malformed = Literal["refuse", "as-released", "sequential"]
"""What becomes of a block that breaks the rules: an error; what the family's own code makes of it (and an error otherwise); or
text in one line, tags included."""
Fault = Literal["labels", "counts", "goal", "conclusion", "nesting", "width", "space", "path", "thinking"]
"""Rules that a block may break: its labels are not 1, 2, 3, ...; it has more or fewer paths than outlines; no goal; no
conclusion; it stands in a path and blocks do not nest; it has more outlines than `max_paths`; white space between paths where
nothing stands; the text of a path ends without its closing tag; the whole text ends within the thinking."""
Outcome = Literal["kept", "once", "text", "end"]
"""What the family's own code makes of a fault: it goes on as if nothing were wrong (and uses labels as they are written); the
same, but a label that comes twice counts once; a tag is text; the generation ends as if it were complete."""
Positions = Literal["engine", "released"]
"""The layouts: which positions tokens get, and whose the separators around paths are; see `layout`."""


_NUMBER = re.compile(r"[\d.]*\s*")  # of a label, as anybody may write it, as far as it has come


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

    __hash__ = object.__hash__  # members are what they are; Enum's own hash takes a call for every look-up


CLOSES = {
    Role.THINK_CLOSE: Role.THINK_OPEN,
    Role.BLOCK_CLOSE: Role.BLOCK_OPEN,
    Role.GOAL_CLOSE: Role.GOAL_OPEN,
    Role.OUTLINE_CLOSE: Role.OUTLINE_OPEN,
    Role.PATH_CLOSE: Role.PATH_OPEN,
    Role.CONCLUSION_CLOSE: Role.CONCLUSION_OPEN,
}
"""The opening tag of each closing one."""


@dataclass(frozen=True)
class Dialect:
    """Tags, separators and labels of one notation of fork and join.

    A block is one goal holding outlines, then as many paths, then a conclusion. `think`, `block` and `conclusion` may be
    `None` where a dialect has no such tag; at least one of `block` and `conclusion` is required, to mark where the trunk
    resumes.

    The trunk is the thinking, between its tags, and the answer after it. Without `think` tags there is one trunk, which is the
    thinking or the answer, as `blocks` says.

    White space is a separator between a tag and its neighbour. It is `sep` everywhere except in the places that have a field of
    their own (`None` stands for `sep`); `before` and `after` have it tag by tag.

    Attributes:
        name: name of the dialect in files and messages.
        outline: its closing may be empty: then the next outline or the end of the goal closes it.
        sep: the separator between a tag and the text or tag next to it; may be empty.
        label_end: the text after a label, as in ``2.1:``; may be empty.
        labels: a label is the ``path`` from the trunk, as in ``2.1``, or the ``number`` within its block, as in ``1``.
        answer_sep: the separator between the closing think tag and the answer.
        blocks: where the trunk may fork: in the ``thinking``, in the ``answer``, or in ``both``. Paths may fork anywhere.
        goal_sep: before, between and behind the outlines of a goal.
        outline_sep: between the tags of an outline and its label and text.
        fork_sep: behind a goal; forced at the fork.
        path_sep: behind a path, and part of it.
        join_sep: what the trunk begins with when it resumes, before the tag with which it does; forced at the join.
        conclusion_sep: between the tags of a conclusion and its text.
        block_sep: behind a block.
        white_space: whether white space is ``exact`` or ``free``. Where it is free, only heads of forks and joins are forced.
        after_path: what stands behind a path is ``forced``, ``free`` or ``absent`` (then `path_sep` is empty).
        closes_block: in a dialect without conclusions, whether the join forces the tag that closes the block; if not, the model
            writes it behind `join_sep`.
        optional_conclusion: whether a block without a conclusion is read as one whose conclusion is empty.
        nests: whether blocks may stand in paths.
        max_paths: most paths of a block; `None` if there is no limit.
        answer_form: what the answer is.
        join: what the parent gets of its paths at a join: their keys and values (``kv``), their ``text``, which it reads in a
            line, or the last clause of each (``message``); see `joins`.
        cut_off: what follows a block of which a limit cut off a path: its parent goes on (``continue``), or the block is closed
            by force and the whole answer ends there (``end``, as ThreadWeaver's orchestrator has it).
        malformed: what becomes of a block that breaks the rules.
        released: what the family's own code makes of such faults, for ``as-released``; it stops at those that are not listed.
        positions: the layout of its tokens, ``engine`` or ``released`` (see `layout`).
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
    goal_sep: str | None = None
    outline_sep: str | None = None
    fork_sep: str | None = None
    path_sep: str | None = None
    join_sep: str = ""
    conclusion_sep: str | None = None
    block_sep: str | None = None
    white_space: WhiteSpace = "exact"
    after_path: AfterPath = "forced"
    closes_block: bool = True
    optional_conclusion: bool = False
    nests: bool = True
    max_paths: int | None = None
    answer_form: AnswerForm = "text"
    join: Joins = "kv"
    cut_off: CutOff = "continue"
    malformed: Malformed = "refuse"
    released: tuple[tuple[Fault, Outcome], ...] = ()
    positions: Positions = "engine"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices):
                raise ValueError(f"dialect {self.name!r} has {name}={value!r}: use one of {', '.join(get_args(choices))}")
        self._check_tags()
        self._check_rules()

    def _check_tags(self) -> None:
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

    def _check_rules(self) -> None:
        spaces = [item.name for item in fields(self) if item.name == "sep" or item.name.endswith("_sep")]
        for name in spaces:
            value = getattr(self, name)
            if value and value.strip() and not self.exact:
                raise ValueError(
                    f"dialect {self.name!r} has {name}={value!r}: where white space is free it must be white space"
                )
        if self.after_path == "absent" and self.path_sep:
            raise ValueError(f"dialect {self.name!r} has nothing behind a path, but path_sep={self.path_sep!r}: leave it empty")
        if self.after_path == "free" and (self.exact or not self.after[Role.PATH_CLOSE]):
            raise ValueError(
                f"dialect {self.name!r} has after_path='free': white space must be free, too, and path_sep must not be empty"
            )
        if self.max_paths is not None and self.max_paths < 1:
            raise ValueError(f"dialect {self.name!r} has max_paths={self.max_paths!r}: it must be 1 or more, or None")
        for fault, outcome in self.released:
            if fault not in get_args(Fault) or outcome not in get_args(Outcome):
                raise ValueError(
                    f"dialect {self.name!r} has released={(fault, outcome)!r}: pairs of a fault ({', '.join(get_args(Fault))}) "
                    f"and what becomes of it ({', '.join(get_args(Outcome))})"
                )

    # -- white space --------------------------------------------------------------------------------------------------

    def _at(self, place: str | None) -> str:
        return self.sep if place is None else place

    @cached_property
    def after(self) -> Mapping[Role, str]:
        """The white space behind each tag, whatever stands there."""
        inner = self._at(self.conclusion_sep)
        return {
            Role.THINK_OPEN: self.sep,
            Role.THINK_CLOSE: self.answer_sep,
            Role.BLOCK_OPEN: self.sep,
            Role.BLOCK_CLOSE: self._at(self.block_sep),
            Role.GOAL_OPEN: self._at(self.goal_sep),
            Role.GOAL_CLOSE: self._at(self.fork_sep),
            Role.OUTLINE_OPEN: self._at(self.outline_sep),
            Role.OUTLINE_CLOSE: self._at(self.goal_sep),
            Role.PATH_OPEN: self.sep,
            Role.PATH_CLOSE: "" if self.after_path == "absent" else self._at(self.path_sep),
            Role.CONCLUSION_OPEN: inner,
            Role.CONCLUSION_CLOSE: self.sep if self.block is not None else self._at(self.block_sep),
        }

    @cached_property
    def before(self) -> Mapping[Role, str]:
        """The white space between a text and the tag behind it; a tag behind a tag has only what `after` says."""
        inner, outline = self._at(self.conclusion_sep), self._at(self.outline_sep)
        unclosed = "" if self.outline.close else outline
        return {
            **dict.fromkeys(Role, self.sep),
            Role.OUTLINE_CLOSE: outline,
            Role.OUTLINE_OPEN: unclosed,
            Role.GOAL_CLOSE: unclosed,
            Role.CONCLUSION_CLOSE: inner,
        }

    @cached_property
    def exact(self) -> bool:
        """Whether white space is exact."""
        return self.white_space == "exact"

    @cached_property
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

    @cached_property
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

    @cached_property
    def begin(self) -> Role:
        """The tag that begins a block."""
        return Role.BLOCK_OPEN if self.block is not None else Role.GOAL_OPEN

    @cached_property
    def end(self) -> Role:
        """The tag that ends a block."""
        return Role.BLOCK_CLOSE if self.block is not None else Role.CONCLUSION_CLOSE

    @property
    def resume(self) -> str:
        """The tag with which the trunk resumes after a join; empty where the model writes it."""
        if self.conclusion is not None:
            return self.conclusion.open
        assert self.block is not None
        return self.block.close if self.closes_block else ""

    def outcome(self, fault: Fault) -> Outcome | None:
        """What becomes of a fault, if the policy is to do as the family's own code does; `None` if it is an error."""
        return dict(self.released).get(fault) if self.malformed == "as-released" else None

    def number(self, label: str) -> str:
        """A label path as this dialect writes it."""
        return label if self.labels == "path" else label.rpartition(".")[2]

    def label_text(self, label: str) -> str:
        """A label path as this dialect writes it, with what ends it."""
        return f"{self.number(label)}{self.label_end}"

    def without_label(self, text: str, label: str) -> str:
        """The text of an outline or a path, without the label that it begins with."""
        found = self.read_number(text) if self.malformed != "refuse" else None
        return text[found.end() :] if found is not None else text.lstrip().removeprefix(self.label_text(label))

    def begins_label(self, text: str, label: str) -> bool:
        """Whether a text is a label as far as it has come, or all of one, without white space before it."""
        return self.label_text(label).startswith(text) or (self.malformed != "refuse" and _NUMBER.fullmatch(text) is not None)

    def read_number(self, text: str) -> re.Match[str] | None:
        """A label as anybody may have written it, at the beginning of a text; its number is group 1."""
        return re.match(rf"\s*(\d+(?:\.\d+)*)\s*{re.escape(self.label_end)}", text)

    def outline_head(self, number: str) -> str:
        """The text between the tag that opens the outline with this number and the outline's own text."""
        return f"{self.after[Role.OUTLINE_OPEN]}{number}{self.label_end}"

    def path_head(self, number: str) -> str:
        """The text that opens the path with this number; always forced by the engine."""
        return f"{self.path.open}{self.after[Role.PATH_OPEN]}{number}{self.label_end}"

    def resume_head(self) -> str:
        """The text with which the trunk resumes after a join; always forced by the engine."""
        inner = "" if self.conclusion is None else self.after[Role.CONCLUSION_OPEN]
        return f"{self.join_sep}{self.resume}{inner}"


_CHOICES = {
    "blocks": Blocks,
    "labels": Labels,
    "white_space": WhiteSpace,
    "after_path": AfterPath,
    "answer_form": AnswerForm,
    "join": Joins,
    "cut_off": CutOff,
    "malformed": Malformed,
    "positions": Positions,
}


def child_label(parent: str, index: int) -> str:
    """Label of child `index` (from 0) of the branch labelled `parent`; the trunk's label is the empty string."""
    return f"{parent}.{index + 1}" if parent else str(index + 1)


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
        values: dict[str, Any] = dict(saved)
        for name, value in values.items():
            if isinstance(value, list | tuple):
                values[name] = tuple(map(tuple, value)) if name == "released" else Tag(*value)
        return Dialect(**values)
    except (TypeError, ValueError) as error:
        raise DialectError(f"{_SAVED_AS} in the model's config.json is not valid: {error}") from None
