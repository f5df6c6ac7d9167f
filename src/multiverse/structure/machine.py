"""Incremental state machine of the grammar: each token fed returns a transition or nothing, or raises StructureError.

One `Machine` follows one branch. Its `forced` tokens are those that the engine writes, not the model: the separators around
paths, the head of a path, and the tag with which the trunk resumes. The caller (the engine while generating, `layout` while
replaying) feeds those tokens too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import StructureError
from .dialect import Role, child_label
from .tokens import TokenDialect


@dataclass(frozen=True)
class Fork:
    """The goal has closed: one child per label begins after the forced separator."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class BranchEnd:
    """This branch has closed; its forced separator follows."""

    label: str


@dataclass(frozen=True)
class Join:
    """The trunk has resumed: everything in the block is visible from this token on."""

    labels: tuple[str, ...]


Transition = Fork | BranchEnd | Join


class State(Enum):
    """State of a branch in the grammar; the values are used in error messages."""

    TEXT = "text outside the thinking"
    BODY = "thinking"
    BLOCK = "the opening of a block"
    GOAL = "a goal"
    OUTLINE = "an outline"
    FORKED = "a fork"
    CONCLUSION = "a conclusion"
    CLOSING = "the closing of a block"
    ENDED = "a closed branch"


# States in which free text is allowed; in the others only the separator is allowed between tags.
_FREE = frozenset({State.TEXT, State.BODY, State.OUTLINE, State.CONCLUSION})


class Machine:
    """Follows one branch, token by token.

    Attributes:
        label: the branch's label path, such as ``2.1``; empty for the trunk.
        state: state of the branch.
        base: its state outside of blocks: `State.BODY` in a path or a thinking, else `State.TEXT`.
        forced: the next tokens, written by the engine; empty when the next token is sampled.
        labels: labels of the children of the open block.
        outlines: number of outlines in the open block so far.
        last: the newest token; `None` before the first.
        tag: role of the newest tag; `None` before the first.
        since: tokens since that tag (since the beginning, before the first).
        nonblank: tokens since that tag, up to and including the last that is neither separator nor space.
    """

    def __init__(self, tokens: TokenDialect, label: str = "") -> None:
        self.tokens = tokens
        self.label = label
        self.labels: tuple[str, ...] = ()
        self.outlines = 0
        self.forced: tuple[int, ...] = tokens.path_head(label) if label else ()
        self.base = State.BODY if label or self._is_thinking else State.TEXT
        self.state = self.base
        self.last: int | None = None
        self.tag: Role | None = None
        self.since = self.nonblank = 0

    @property
    def depth(self) -> int:
        """Depth of the branch: 0 for the trunk."""
        return self.label.count(".") + 1 if self.label else 0

    @property
    def waiting(self) -> bool:
        """Whether the branch has forked and waits for its children."""
        return self.state is State.FORKED and not self.forced

    @property
    def ended(self) -> bool:
        """Whether the branch has closed and its last separator is written."""
        return self.state is State.ENDED and not self.forced

    @property
    def complete(self) -> bool:
        """Whether a document may end here."""
        return (
            not self.label and not self.forced and (self.state is State.TEXT or (self._is_thinking and self.state is self.base))
        )

    @property
    def thinking(self) -> bool:
        """Whether the thinking is open, in a dialect that has think tags."""
        return self.tokens.dialect.think is not None and self.base is not State.TEXT

    @property
    def _is_thinking(self) -> bool:
        """Whether the whole trunk is the thinking, since the dialect has no tags for it."""
        return self.tokens.dialect.think is None and self.tokens.dialect.forks_thinking

    def begin_turn(self) -> None:
        """Begin a new text: what precedes it in the prompt, such as an earlier thinking, is ignored from here on."""
        if self.complete:
            self.tag, self.since, self.nonblank, self.last = None, 0, 0, None

    def resume(self) -> None:
        """All children have ended: force the tag with which the branch resumes."""
        assert self.waiting, f"resume while in {self.state.value}"
        self.forced = self.tokens.resume_head
        self.state = State.CONCLUSION if self.tokens.dialect.conclusion is not None else self.base

    def feed(self, token: int) -> Transition | None:
        """Advance by one token.

        Raises:
            StructureError: the token is not allowed here. The machine is unchanged.
        """
        transition = self._feed(token)
        self.last = token
        role = self.tokens.roles.get(token)
        if role is not None:
            self.tag, self.since, self.nonblank = role, 0, 0
        else:
            self.since += 1
            self.nonblank = self.nonblank if token in self.tokens.blanks else self.since
        return transition

    def _feed(self, token: int) -> Transition | None:
        if self.forced:
            return self._feed_forced(token)
        role = self.tokens.roles.get(token)
        if role is None:
            if self.state in _FREE or (token in self.tokens.sep and self.state not in (State.FORKED, State.ENDED)):
                return None
            raise self._error(token)
        return self._feed_tag(token, role)

    def _feed_forced(self, token: int) -> Transition | None:
        if token != self.forced[0]:
            raise StructureError(f"found {self.tokens.name(token)}", expected=f"{self.tokens.name(self.forced[0])} (forced)")
        self.forced = self.forced[1:]
        if self.labels and self.state is not State.FORKED:  # the first token of the resuming head
            labels, self.labels = self.labels, ()
            return Join(labels)
        return None

    def _feed_tag(self, token: int, role: Role) -> Transition | None:
        if role not in self.legal_roles():
            raise self._error(token)
        match role:
            case Role.THINK_OPEN:
                self.state = self.base = State.BODY
            case Role.THINK_CLOSE:
                self.state = self.base = State.TEXT
            case Role.BLOCK_OPEN:
                self.state, self.outlines = State.BLOCK, 0
            case Role.GOAL_OPEN:
                self.state, self.outlines = State.GOAL, 0
            case Role.OUTLINE_OPEN:
                self.state = State.OUTLINE
                self.outlines += 1
            case Role.OUTLINE_CLOSE:
                self.state = State.GOAL
            case Role.GOAL_CLOSE:
                self.state, self.forced = State.FORKED, self.tokens.sep
                self.labels = tuple(child_label(self.label, index) for index in range(self.outlines))
                return Fork(self.labels)
            case Role.PATH_CLOSE:
                self.state, self.forced = State.ENDED, self.tokens.sep
                return BranchEnd(self.label)
            case Role.CONCLUSION_CLOSE:
                self.state = State.CLOSING if self.tokens.dialect.block is not None else self.base
            case Role.BLOCK_CLOSE:
                self.state = self.base
            case Role.PATH_OPEN | Role.CONCLUSION_OPEN:  # only ever forced
                raise AssertionError(role)
        return None

    def legal_roles(self) -> tuple[Role, ...]:
        """The tags that may be sampled here; none while tokens are forced."""
        if self.forced:
            return ()
        match self.state:
            case State.TEXT | State.BODY:
                return self._legal_outside()
            case State.BLOCK:
                return (Role.GOAL_OPEN,)
            case State.GOAL:
                return (Role.OUTLINE_OPEN, Role.GOAL_CLOSE) if self.outlines else (Role.OUTLINE_OPEN,)
            case State.OUTLINE:
                return (Role.OUTLINE_CLOSE,) if Role.OUTLINE_CLOSE in self.tokens.ids else (Role.OUTLINE_OPEN, Role.GOAL_CLOSE)
            case State.CONCLUSION:
                return (Role.CONCLUSION_CLOSE,)
            case State.CLOSING:
                return (Role.BLOCK_CLOSE,)
            case State.FORKED | State.ENDED:
                return ()

    def _legal_outside(self) -> tuple[Role, ...]:
        """The tags that may be sampled outside of blocks."""
        dialect = self.tokens.dialect
        begin = (Role.BLOCK_OPEN if dialect.block is not None else Role.GOAL_OPEN,)
        if self.label:
            return (*begin, Role.PATH_CLOSE)
        if self.state is State.TEXT:
            think = (Role.THINK_OPEN,) if dialect.think is not None else ()
            return (*think, *begin) if dialect.forks_answer else think
        close = (Role.THINK_CLOSE,) if dialect.think is not None else ()
        return (*begin, *close) if dialect.forks_thinking else close

    def expected(self) -> str:
        """What is allowed here, for error messages."""
        names = [self.tokens.tag(role) for role in self.legal_roles()]
        if self.state in _FREE:
            names.insert(0, "text")
        return " or ".join(names) if names else "nothing"

    def _error(self, token: int) -> StructureError:
        return StructureError(f"found {self.tokens.name(token)} in {self.state.value}", expected=self.expected())
