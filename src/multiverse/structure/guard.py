"""The tokens that must or may come next in a branch, the tokens that close it, and what closing it costs.

The machine accepts what the grammar allows. The guard is stricter, so that guarded text can be read back: a label in every
outline and, where the dialect's white space is exact, one separator around every tag. Where it is free the guard leaves it to
the model, and nothing is forced but the heads of forks and joins.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import NamedTuple

from .dialect import Role, child_label
from .machine import Machine, State
from .tokens import TokenDialect
from .transitions import Fork

_NOTHING: tuple[int, ...] = ()
_TEXT = -1  # any token that does not end in a separator
_TAGS_ONLY = frozenset({State.BLOCK, State.GOAL, State.CLOSING, State.ENDING})  # states in which no text may stand
_LONGEST_HEAD = 256  # no separator or label has more tokens


class AllowedTokens(NamedTuple):
    """The tokens that may come next.

    Attributes:
        only: the allowed tokens, if they can be listed; `None` if every token but `banned` is allowed.
        banned: the tags that are not allowed.
        may_end: whether the text may end here.
    """

    only: tuple[int, ...] | None
    banned: tuple[int, ...]
    may_end: bool


class ClosingCost(NamedTuple):
    """Cost of closing a branch from its present state.

    Attributes:
        tokens: number of tokens, those of all branches of a block that has to be completed included.
        positions: number of positions by which the branch's next position advances.
    """

    tokens: int
    positions: int


def _required(machine: Machine) -> tuple[int, ...]:
    """The tokens required after the newest tag (separator, label) that have not been written yet."""
    tokens = machine.tokens
    match machine.tag:
        case None | Role.PATH_OPEN | Role.PATH_CLOSE | Role.CONCLUSION_OPEN | Role.GOAL_CLOSE:  # what follows is forced
            return _NOTHING
        case Role.OUTLINE_OPEN:
            head = tokens.outline_head(_number(machine))
        case _:
            head = tokens.after[machine.tag]
    return head[machine.since :]


def _number(machine: Machine) -> str:
    """The label of the open outline."""
    return machine.tokens.dialect.number(child_label(machine.label, machine.outlines - 1))


def required_tokens(machine: Machine) -> tuple[int, ...]:
    """The tokens that must come next: a head that the grammar forces, or the only token that is allowed and what follows it.

    Empty where there is a choice, where the text may end, and in a branch that waits for its children or has closed. The engine
    writes these tokens without asking the model (jump forward), and training takes no loss on them. More may be required after
    them: feed them to the machine and ask again.
    """
    if machine.forced or machine.state in (State.FORKED, State.ENDED) or not machine.tokens.dialect.exact:
        return machine.forced
    head = _required(machine)
    if head:
        # The text may end directly after its last tag, but not in the middle of a separator.
        return head if machine.since or not machine.complete else _NOTHING
    if machine.state not in _TAGS_ONLY:
        return _NOTHING
    legal = machine.legal_roles()
    return (machine.tokens.ids[legal[0]],) if len(legal) == 1 else _NOTHING


def allowed_tokens(machine: Machine) -> AllowedTokens:
    """The tokens that may come next in a branch that is neither forced nor waiting."""
    tokens = machine.tokens
    if machine.state in (State.LINE, State.STOPPED):
        return AllowedTokens(None, _NOTHING, machine.complete)
    if not tokens.dialect.exact:
        return _allowed_freely(machine)
    head = _required(machine)
    if head:
        # The text may end directly after its last tag, but not in the middle of a separator.
        return AllowedTokens(head[:1], _NOTHING, machine.complete and machine.since == 0)
    legal = machine.legal_roles()
    if machine.state in _TAGS_ONLY:
        return AllowedTokens(tuple(tokens.ids[role] for role in legal), _NOTHING, may_end=False)
    after_label = _after_label(machine)
    if after_label == 0 and tokens.spaced and not (tokens.label_gap and machine.state is State.OUTLINE):
        return AllowedTokens(tokens.spaced if machine.state is State.OUTLINE else _path_begins(tokens), _NOTHING, may_end=False)
    if after_label == 1 and machine.last in tokens.sep and machine.state is State.BODY:
        # A path that begins with a tag.
        return AllowedTokens(tuple(tokens.ids[role] for role in legal), _NOTHING, may_end=False)
    blank = machine.nonblank == 0 < machine.since
    if machine.tag is not None or machine.since:
        # The thinking is at the beginning of a text or absent.
        legal = tuple(role for role in legal if role is not Role.THINK_OPEN)
    apart = () if _blank_text(machine) or (machine.tag is None and blank) else legal
    legal = tuple(role for role in apart if _after_separator(machine, role))
    allowed = {tokens.ids[role] for role in legal}
    banned = tuple(token for token in tokens.roles if token not in allowed)
    # The text may not end directly after the separator of its last tag.
    after_tag = machine.tag is not None and (blank or len(tokens.after[machine.tag]) == machine.since > 0)
    return AllowedTokens(None, banned, machine.complete and not after_tag)


def _allowed_freely(machine: Machine) -> AllowedTokens:
    """The tokens that may come next where white space is free."""
    tokens, state = machine.tokens, machine.state
    legal = tuple(tokens.ids[role] for role in machine.legal_roles())
    if state in _TAGS_ONLY:
        return AllowedTokens(_with_white(tokens, legal), _NOTHING, may_end=False)
    if state is State.OUTLINE and machine.label_left:
        return AllowedTokens(tokens.beginning(machine.label_left, machine.blank), _NOTHING, may_end=False)
    if machine.tag is not None or not machine.blank:
        # The thinking is at the beginning of a text or absent.
        legal = tuple(token for token in legal if token != tokens.ids.get(Role.THINK_OPEN))
    return AllowedTokens(None, tuple(token for token in tokens.roles if token not in legal), machine.complete)


@lru_cache(maxsize=256)
def _with_white(tokens: TokenDialect, token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """These tokens, and those of white space."""
    return (*token_ids, *(token for token in tokens.white if token not in token_ids))


def in_answer(machine: Machine) -> bool:
    """Whether the next token is text of the answer: outside of a thinking that has tags, behind the separator that follows it.

    Without tags for the thinking all of the trunk outside of blocks is the answer.
    """
    required = _required(machine) if machine.tokens.dialect.exact else _NOTHING
    return not (machine.label or machine.thinking or machine.forced or required) and machine.state is machine.base


def _after_label(machine: Machine) -> int:
    """Tokens since the label of an outline or a path, as long as no other tag has come; -1 elsewhere."""
    tokens = machine.tokens
    if machine.tag is Role.OUTLINE_OPEN:
        return machine.since - len(tokens.outline_head(_number(machine)))
    if machine.tag is Role.PATH_OPEN:
        return machine.since + 1 - len(tokens.path_head(machine.number))
    return -1


@lru_cache(maxsize=16)
def _path_begins(tokens: TokenDialect) -> tuple[int, ...]:
    """What may follow the label of a path: a text, or a tag behind its separator."""
    tags = tokens.sep[:1] if tokens.sep else (tokens.fork_tag, tokens.ids[Role.PATH_CLOSE])
    return (*tokens.spaced, *tags)


def _after_separator(machine: Machine, role: Role) -> bool:
    """Whether a tag may follow directly: the newest token ends in its separator, which does not belong to the previous tag."""
    tokens = machine.tokens
    space = tokens.dialect.before[role]
    if space and machine.state is State.CONCLUSION and machine.since <= len(tokens.after[Role.CONCLUSION_OPEN]):
        return False
    return not space or machine.last is None or (machine.last != _TEXT and tokens.ends_with(machine.last, space))


def closing_tokens(machine: Machine) -> tuple[int, ...]:
    """The next tokens of the shortest sequence that closes the branch, up to and including the next tag.

    Empty where there is nothing to close: outside of thinking and blocks, waiting for its children, or closed.
    """
    tokens = machine.tokens
    match machine.state:
        case State.TEXT | State.FORKED | State.ENDED | State.STOPPED:
            return _NOTHING
        case State.BODY | State.LINE:
            role = Role.PATH_CLOSE if machine.label else Role.THINK_CLOSE
            if role not in tokens.ids or machine.base is State.TEXT:
                return _NOTHING
        case State.ENDING:
            return tokens.after[Role.PATH_CLOSE]
        case State.BLOCK:
            role = Role.GOAL_OPEN
        case State.GOAL:
            role = Role.GOAL_CLOSE if machine.outlines else Role.OUTLINE_OPEN
        case State.OUTLINE:
            role = Role.OUTLINE_CLOSE if Role.OUTLINE_CLOSE in tokens.ids else Role.GOAL_CLOSE
        case State.CONCLUSION:
            role = Role.CONCLUSION_CLOSE
        case State.CLOSING:
            role = Role.BLOCK_CLOSE
    if not tokens.dialect.exact:
        return _closing_freely(machine, role)
    head = _required(machine)
    if machine.state in _TAGS_ONLY:
        return (*head, tokens.ids[role])
    if machine.state is State.OUTLINE:
        label = tokens.outline_head(_number(machine))
        if machine.since <= len(label):  # an outline without a text
            gap = () if tokens.label_gap else tokens.encode(" ")
            return (*head, *gap, *tokens.before[role], tokens.ids[role])
    between = _NOTHING if head or _after_separator(machine, role) else tokens.before[role]
    return (*head, *_blank_text(machine), *between, tokens.ids[role])


def _closing_freely(machine: Machine, role: Role) -> tuple[int, ...]:
    """`closing_tokens` where white space is free: that of the dialect, unless there is some already."""
    tokens = machine.tokens
    head = tokens.after[machine.tag] if machine.tag is not None and machine.since == 0 else _NOTHING
    if machine.state in _TAGS_ONLY:
        return (*head, tokens.ids[role])
    label = tokens.encode(machine.label_left) if machine.state is State.OUTLINE else _NOTHING
    white = head if machine.since == 0 else machine.since > machine.nonblank
    between = _NOTHING if white and not label else tokens.before[role]
    return (*head, *label, *between, tokens.ids[role])


def _blank_text(machine: Machine) -> tuple[int, ...]:
    """The token that completes a blank text before a tag: one space or separator belongs to the tags, two are a text."""
    if machine.state is not machine.base or machine.last is None or machine.tag is None:
        return _NOTHING
    if not machine.tokens.sep:  # only the space after a label is no text
        alone = machine.tag is Role.PATH_OPEN and _after_label(machine) == 1 and machine.last in machine.tokens.blanks
        return (machine.last,) if alone else _NOTHING
    match machine.tag:
        case Role.PATH_OPEN:
            head = len(machine.tokens.path_head(machine.number)) - 1
        case _:
            head = len(machine.tokens.after[machine.tag])
    beyond = machine.since - head
    nothing_yet = machine.tag is Role.PATH_OPEN and beyond == 1 and machine.last in machine.tokens.sep
    return (machine.last,) if machine.nonblank <= head and beyond in (1, 2) and not nothing_yet else _NOTHING


def closing_cost(machine: Machine) -> ClosingCost:
    """Cost of closing: to the end of a path, to the end of the trunk's thinking, or to that of a block in its answer.

    For a waiting branch, the cost after its children have closed. An upper bound that may count one separator too many, so that
    it does not grow with another token of text. Only a text of a single space or separator takes one token more.
    """
    if machine.state is State.TEXT and not machine.forced:
        return ClosingCost(0, 0)
    return _closing_cost(
        machine.tokens,
        (machine.label, machine.number, *machine.numbers),
        (machine.state, machine.base),
        machine.outlines,
        machine.forced,
        (min(machine.since, _LONGEST_HEAD), machine.label_left),
        machine.tag,
    )


@lru_cache(maxsize=16384)
def _closing_cost(
    tokens: TokenDialect,
    labels: tuple[str, ...],
    states: tuple[State, State],
    outlines: int,
    forced: tuple[int, ...],
    since: tuple[int, str],
    tag: Role | None,
) -> ClosingCost:
    label, number, *numbers = labels
    machine = Machine(tokens, label, number)
    machine.state, machine.base = states
    machine.outlines, machine.forced, machine.tag = outlines, forced, tag
    machine.since, machine.label_left = since
    machine.numbers = tuple(numbers)
    machine.labels = tuple(child_label(label, index) for index in range(len(numbers)))
    machine.last, machine.nonblank = _TEXT, _LONGEST_HEAD
    total = positions = 0
    if machine.waiting:
        machine.resume()
    while True:
        written = machine.forced or closing_tokens(machine)
        if not written:
            return ClosingCost(total, max(0, positions - machine.overlap))
        for token in written:
            event = machine.feed(token)
            if isinstance(event, Fork):
                children = [closing_cost(machine.child(index)) for index in range(len(event.labels))]
                total += sum(child.tokens for child in children)
                positions += max(child.positions for child in children)
        total += len(written)
        positions += len(written)
        if machine.waiting:
            positions -= machine.overlap
            machine.resume()


def growth(machine: Machine, tag: Role) -> ClosingCost:
    """Increase of the closing cost if this tag comes next, the tag itself included."""
    after = copy.copy(machine)
    before = closing_cost(machine)
    after.feed(machine.tokens.ids[tag])
    then = closing_cost(after)
    return ClosingCost(then.tokens - before.tokens + 1, then.positions - before.positions + 1)
