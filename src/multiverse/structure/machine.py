"""Incremental state machine of the grammar: each token fed returns a transition or nothing, or raises StructureError.

One `Machine` follows one branch. Its `forced` tokens are those that the engine writes, not the model: the separators around
paths, the head of a path, and the tag with which the trunk resumes. The caller (the engine while generating, `layout` while
replaying) feeds those tokens too.

What breaks the rules is an error, unless the dialect's `malformed` says otherwise: then it goes on as the family's own engine
does, or a malformed block goes on in one line, without a fork, and its tags are text (`State.LINE`).
"""

from __future__ import annotations

from enum import Enum

from ..errors import StructureError
from .dialect import CLOSES, Role, child_label
from .tokens import TokenDialect
from .transitions import BranchEnd, Fork, Join, Stop, Transition


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
    ENDING = "the end of a path"
    ENDED = "a closed branch"
    LINE = "a block in one line"
    STOPPED = "a generation that has ended"

    __hash__ = object.__hash__


# States in which free text is allowed, and those in which only white space is, between tags.
_FREE = frozenset({State.TEXT, State.BODY, State.OUTLINE, State.CONCLUSION, State.LINE})
_BETWEEN = frozenset({State.BLOCK, State.GOAL, State.CLOSING})
# Tags that are open in each state, where the dialect has them.
_OPEN = {
    State.BLOCK: (Role.BLOCK_OPEN,),
    State.GOAL: (Role.BLOCK_OPEN, Role.GOAL_OPEN),
    State.OUTLINE: (Role.BLOCK_OPEN, Role.GOAL_OPEN, Role.OUTLINE_OPEN),
    State.CONCLUSION: (Role.BLOCK_OPEN, Role.CONCLUSION_OPEN),
    State.CLOSING: (Role.BLOCK_OPEN,),
}


class Machine:
    """Follows one branch, token by token.

    Attributes:
        label: the branch's label path, such as ``2.1``; empty for the trunk.
        number: its label as it is written; empty for the trunk.
        state: state of the branch.
        base: its state outside of blocks: `State.BODY` in a path or a thinking, else `State.TEXT`.
        forced: the next tokens, written by the engine; empty when the next token is sampled.
        labels: labels of the children of the open block.
        numbers: the same as they are written.
        outlines: number of outlines in the open block so far.
        last: the newest token; `None` before the first.
        tag: role of the newest tag; `None` before the first.
        since: tokens since that tag (since the beginning, before the first).
        label_left: what is left to write of the open outline's label, where white space is free.
        nonblank: tokens since that tag, up to and including the last that is neither separator nor space.
    """

    def __init__(self, tokens: TokenDialect, label: str = "", number: str = "") -> None:
        self.tokens = tokens
        self.label = label
        self.number = number or tokens.dialect.number(label)
        self.labels: tuple[str, ...] = ()
        self.numbers: tuple[str, ...] = ()
        self.outlines = 0
        self.forced: tuple[int, ...] = tokens.path_head(self.number) if label else ()
        self.base = State.BODY if label or self._is_thinking else State.TEXT
        self.state = self.base
        self.last: int | None = None
        self.tag: Role | None = None
        self.since = self.nonblank = 0
        self.label_left = ""
        # Where labels are read: tokens of the open outline, and the labels of those before it.
        self._outline: tuple[int, ...] = ()
        self._read: tuple[str, ...] = ()
        self._open: tuple[Role, ...] = ()  # tags that are open in a block in one line
        self._behind = 0  # tokens since the end of the goal, or of this path, as long as nothing else has followed

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
    def overlap(self) -> int:
        """How many of the newest tokens stand beside what follows them, which begins at the position of the first of them.

        This is all that the layout ``released`` changes: behind a goal and behind a path separators take no position of their
        own there. In the layout ``engine`` it is always 0.
        """
        return 0 if self.tokens.dialect.positions == "engine" else self._behind

    @property
    def beyond(self) -> bool:
        """Whether the newest token stands behind the end of this path and belongs to its parent, as in ``released``."""
        return self.state is State.ENDED and self.overlap > 0

    @property
    def complete(self) -> bool:
        """Whether a document may end here."""
        if self.label or self.forced:
            return False
        outside = self.base is State.TEXT or self._is_thinking
        return self.state is State.STOPPED or (outside and self.state in (self.base, State.LINE))

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
            self.state = self.base
            self.tag, self.since, self.nonblank, self.last = None, 0, 0, None

    def child(self, index: int) -> Machine:
        """The machine of this child of the open block."""
        return Machine(self.tokens, self.labels[index], self.numbers[index])

    def resume(self) -> None:
        """All children have ended: force the tag with which the branch resumes."""
        assert self.waiting, f"resume while in {self.state.value}"
        self.forced = self.tokens.resume_head
        dialect = self.tokens.dialect
        if dialect.conclusion is not None:
            self.state = State.CONCLUSION
        else:
            self.state = self.base if dialect.closes_block else State.CLOSING

    def end(self) -> bool:
        """The text has ended here; whether this is a path that ends with it, without its closing tag, as some engines allow."""
        if not self.label or self.forced or self.waiting or self.tokens.dialect.outcome("path") != "kept":
            return False
        self.state = State.ENDED
        return True

    def feed(self, token: int) -> Transition | None:
        """Advance by one token.

        Raises:
            StructureError: the token is not allowed here. The machine is unchanged.
        """
        joined = self.state is not State.FORKED and self.labels
        behind = self._behind + 1 if self.state in (State.FORKED, State.ENDING, State.ENDED) else 0
        transition = self._feed(token)
        self._behind = behind
        if joined:  # the first token of the trunk behind its paths
            self.labels = self.numbers = ()
            transition = Join(joined)
        self.last = token
        role = self.tokens.roles.get(token)
        if role is not None:
            self.tag, self.since, self.nonblank = role, 0, 0
        else:
            self.since += 1
            if not self.tokens.is_blank(token):
                self.nonblank = self.since
        return transition

    def _feed(self, token: int) -> Transition | None:
        if self.forced:
            if token != self.forced[0]:
                expected = f"{self.tokens.name(self.forced[0])} (forced)"
                raise StructureError(f"found {self.tokens.name(token)}", expected=expected)
            self.forced = self.forced[1:]
            return None
        role = self.tokens.roles.get(token)
        if self.state is State.LINE:
            return self._feed_line(role)
        if role is None:
            return self._feed_text(token)
        if role in self.legal_roles():
            return self._feed_tag(role)
        return self._feed_illegal(token, role)

    def _feed_text(self, token: int) -> Transition | None:
        dialect = self.tokens.dialect
        if self.state in _FREE:
            if self.state is State.OUTLINE:
                if dialect.malformed != "refuse":
                    self._outline = (*self._outline, token)
                if self.label_left:
                    self.label_left = self._without(self.tokens.decode([token]))
            return None
        white = token in self.tokens.sep if dialect.exact else self.tokens.is_white(token)
        if self.state is State.ENDING and (white or dialect.malformed != "refuse"):
            self.state = State.ENDED  # a family's own engine takes any token
        elif self.state not in _BETWEEN or not (white or dialect.malformed == "sequential"):
            raise self._error(token)
        elif not white:
            self._go_on_in_line()
        return None

    def _without(self, text: str) -> str:
        """What is left of the open outline's label behind this text; nothing, too, if that is no part of it."""
        if self.blank:  # any white space may stand before it
            text = text.lstrip()
        return self.label_left[len(text) :] if self.label_left.startswith(text) else ""

    @property
    def blank(self) -> bool:
        """Whether there is only white space since the newest tag."""
        return self.nonblank == 0

    def _feed_tag(self, role: Role) -> Transition | None:
        read = self._read
        if self._outline and (number := self.tokens.dialect.read_number(self.tokens.decode(self._outline))) is not None:
            read = (*read, number[1])
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
                if not self.tokens.dialect.exact:
                    self.label_left = self.tokens.dialect.label_text(child_label(self.label, self.outlines - 1))
            case Role.OUTLINE_CLOSE:
                self.state = State.GOAL
            case Role.GOAL_CLOSE:
                transition = self._fork(read)
                self._read, self._outline = (), ()
                return transition
            case Role.PATH_CLOSE:
                free = self.tokens.dialect.after_path == "free"
                self.state = State.ENDING if free else State.ENDED
                self.forced = () if free else self.tokens.after[role]
                return BranchEnd(self.label)
            case Role.CONCLUSION_CLOSE:
                self.state = State.CLOSING if self.tokens.dialect.block is not None else self.base
            case Role.BLOCK_CLOSE:
                self.state = self.base
            case Role.PATH_OPEN | Role.CONCLUSION_OPEN:  # only ever forced
                raise AssertionError(role)
        self._read, self._outline = read, ()
        return None

    def _fork(self, read: tuple[str, ...]) -> Transition | None:
        """The goal closes.

        Args:
            read: the labels of its outlines as they are written, unless they are only counted.
        """
        dialect = self.tokens.dialect
        numbers = counted = tuple(dialect.number(child_label(self.label, index)) for index in range(self.outlines))
        if dialect.malformed != "refuse":
            numbers = read
        if numbers != counted and dialect.outcome("labels") == "once":
            numbers = tuple(dict.fromkeys(numbers))
        fits = numbers == counted or dialect.outcome("labels") is not None
        many = len(numbers) > (dialect.max_paths or len(numbers))
        if many or not numbers:
            outcome = dialect.outcome("width")
            if outcome == "end":
                self.state = State.STOPPED
                return Stop(f"{len(numbers)} outlines end the generation: from 1 to {dialect.max_paths} fork")
            fits = fits and outcome == "kept"
        if fits and numbers:
            self.state, self.forced = State.FORKED, self.tokens.after[Role.GOAL_CLOSE]
            self.labels = tuple(child_label(self.label, index) for index in range(len(numbers)))
            self.numbers = numbers
            return Fork(self.labels)
        if not fits and dialect.malformed != "sequential":
            raise self._error(self.tokens.ids[Role.GOAL_CLOSE])
        self._go_on_in_line(Role.GOAL_CLOSE)
        return None

    def _feed_illegal(self, token: int, role: Role) -> Transition | None:
        """A tag that the rules do not allow here: by the dialect's policy."""
        dialect = self.tokens.dialect
        over = self.state in (State.FORKED, State.ENDED, State.STOPPED)
        if over or dialect.malformed == "refuse":
            raise self._error(token)
        if self.state is State.ENDING:
            self.state = State.ENDED
        elif self._in_goal and role in (Role.OUTLINE_OPEN, Role.GOAL_CLOSE):
            return self._feed_tag(role)  # too many outlines, or none: that is decided where the goal closes
        elif self.label and not dialect.nests and dialect.outcome("nesting") == "text":
            pass
        elif dialect.malformed == "sequential" or (self.state is State.BLOCK and dialect.outcome("goal") == "kept"):
            self._go_on_in_line(role)
        else:
            raise self._error(token)
        return None

    @property
    def _in_goal(self) -> bool:
        """Whether an outline may begin or the goal close, but for the number of outlines."""
        return self.state is State.GOAL or (self.state is State.OUTLINE and Role.OUTLINE_CLOSE not in self.tokens.ids)

    def _go_on_in_line(self, role: Role | None = None) -> None:
        """The open block does not fork: its tags are text from here on, beginning with this one, until all are closed."""
        self._open = tuple(tag for tag in _OPEN.get(self.state, ()) if tag in self.tokens.ids)
        self.state = State.LINE
        self._feed_line(role)

    def _feed_line(self, role: Role | None) -> Transition | None:
        """A token of a block in one line."""
        if role in CLOSES and CLOSES[role] in self._open:
            self._open = self._open[: self._open.index(CLOSES[role])]
        elif role is (Role.PATH_CLOSE if self.label else Role.THINK_CLOSE) and self.base is State.BODY:
            self.state, self._open = self.base, ()
            return self._feed_tag(role)
        elif role is not None and role in CLOSES.values() and role is not Role.THINK_OPEN:
            self._open = (*self._open, role)
        if not self._open:
            self.state = self.base
        return None

    def legal_roles(self) -> tuple[Role, ...]:
        """The tags that may be sampled here; none while tokens are forced."""
        if self.forced:
            return ()
        most = self.tokens.dialect.max_paths
        more = (Role.OUTLINE_OPEN,) if most is None or self.outlines < most else ()
        match self.state:
            case State.TEXT | State.BODY:
                return self._legal_outside()
            case State.BLOCK:
                return (Role.GOAL_OPEN,)
            case State.GOAL:
                return (*more, Role.GOAL_CLOSE) if self.outlines else more
            case State.OUTLINE:
                return (Role.OUTLINE_CLOSE,) if Role.OUTLINE_CLOSE in self.tokens.ids else (*more, Role.GOAL_CLOSE)
            case State.CONCLUSION:
                return (Role.CONCLUSION_CLOSE,)
            case State.CLOSING:
                return (Role.BLOCK_CLOSE,)
            case State.LINE:
                return tuple(self.tokens.ids)
            case State.FORKED | State.ENDING | State.ENDED | State.STOPPED:
                return ()

    def _legal_outside(self) -> tuple[Role, ...]:
        """The tags that may be sampled outside of blocks."""
        dialect = self.tokens.dialect
        begin = (dialect.begin,)
        if self.label:
            return (*begin, Role.PATH_CLOSE) if dialect.nests else (Role.PATH_CLOSE,)
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
        elif self.state is State.ENDING:
            names.insert(0, "white space")
        return " or ".join(names) if names else "nothing"

    def _error(self, token: int) -> StructureError:
        return StructureError(f"found {self.tokens.name(token)} in {self.state.value}", expected=self.expected())
