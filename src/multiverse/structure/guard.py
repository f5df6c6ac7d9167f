"""The tokens that a branch may write next, the tokens that close it, and what closing it costs.

The machine accepts what the grammar allows; the guard is stricter, so that what is written under it is canonical too: one
separator around every tag, a label in every outline.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import NamedTuple

from .dialect import Role, child_label
from .machine import Fork, Machine, State
from .tokens import TokenDialect

_NOTHING: tuple[int, ...] = ()
_TEXT = -1  # stands for any token that does not end in a separator
_LONGEST_HEAD = 256  # no separator or label has more tokens


class AllowedTokens(NamedTuple):
    """The tokens that may come next.

    Attributes:
        only: the allowed tokens, if they are few; `None` if it is every token but `banned`.
        banned: the tags that are not allowed.
        may_end: whether the text may end here.
    """

    only: tuple[int, ...] | None
    banned: tuple[int, ...]
    may_end: bool


class ClosingCost(NamedTuple):
    """What it costs to close a branch from its present state.

    Attributes:
        tokens: tokens in all, over the branches of a block that has to be completed.
        positions: how far the branch's next position moves.
    """

    tokens: int
    positions: int


def due(machine: Machine) -> tuple[int, ...]:
    """The tokens that have to follow the newest tag before anything else, as far as they have not been written."""
    tokens = machine.tokens
    match machine.tag:
        case None | Role.PATH_OPEN | Role.PATH_CLOSE | Role.CONCLUSION_OPEN | Role.GOAL_CLOSE:  # what follows is forced
            return _NOTHING
        case Role.OUTLINE_OPEN:
            head = tokens.outline_head(child_label(machine.label, machine.outlines - 1))
        case Role.THINK_CLOSE:
            head = tokens.answer_sep
        case _:
            head = tokens.sep
    return head[machine.since :]


def allowed_tokens(machine: Machine) -> AllowedTokens:
    """The tokens that may come next in a branch that is neither forced nor waiting."""
    tokens = machine.tokens
    head = due(machine)
    if head:
        # The text may end right behind its last tag, but not in the middle of a separator.
        return AllowedTokens(head[:1], _NOTHING, machine.complete and machine.since == 0)
    legal = machine.legal_roles()
    if machine.state in (State.BLOCK, State.GOAL, State.CLOSING):
        return AllowedTokens(tuple(tokens.ids[role] for role in legal), _NOTHING, may_end=False)
    behind_label = _behind_label(machine)
    if behind_label == 0 and tokens.spaced:
        return AllowedTokens(tokens.spaced if machine.state is State.OUTLINE else _text_or_sep(tokens), _NOTHING, may_end=False)
    if behind_label == 1 and machine.last in tokens.sep and machine.state is State.BODY:
        return AllowedTokens(
            tuple(tokens.ids[role] for role in legal), _NOTHING, may_end=False
        )  # a path without a text before this tag
    if machine.state is State.TEXT:
        legal = legal if machine.tag is None and not machine.since else ()  # the thinking begins a text, or there is none
    elif not _apart(machine) or _settle(machine) or (machine.tag is None and machine.ink == 0 < machine.since):
        legal = ()
    allowed = {tokens.ids[role] for role in legal}
    # Nor may the text end when what stands between its last tag and what follows has just been written, and nothing follows.
    hangs = machine.tag is not None and machine.ink == 0 < machine.since
    return AllowedTokens(None, tuple(token for token in tokens.roles if token not in allowed), machine.complete and not hangs)


def _behind_label(machine: Machine) -> int:
    """Tokens since the label of an outline or a path, as long as no other tag has come; -1 elsewhere."""
    tokens = machine.tokens
    if machine.tag is Role.OUTLINE_OPEN:
        return machine.since - len(tokens.outline_head(child_label(machine.label, machine.outlines - 1)))
    if machine.tag is Role.PATH_OPEN:
        return machine.since + 1 - len(tokens.path_head(machine.label))
    return -1


@lru_cache(maxsize=16)
def _text_or_sep(tokens: TokenDialect) -> tuple[int, ...]:
    return (*tokens.spaced, tokens.sep[0])


def _apart(machine: Machine) -> bool:
    """Whether a tag may follow directly: a separator has just been written, and it is not the one of the tag before."""
    if machine.state is State.CONCLUSION and machine.since < len(machine.tokens.resume_head):
        return False
    return machine.last is None or (machine.last != _TEXT and machine.tokens.ends_with_sep(machine.last))


def closing_tokens(machine: Machine) -> tuple[int, ...]:
    """The next tokens on the shortest way to the branch's end, up to and including the next tag.

    Empty where the branch may stay: outside the thinking, waiting for its children, or closed.
    """
    tokens = machine.tokens
    match machine.state:
        case State.TEXT | State.FORKED | State.ENDED:
            return _NOTHING
        case State.BODY:
            role = Role.PATH_CLOSE if machine.label else Role.THINK_CLOSE
            if role not in tokens.ids:
                return _NOTHING
        case State.BLOCK:
            role = Role.GOAL_OPEN
        case State.GOAL:
            role = Role.GOAL_CLOSE if machine.outlines else Role.OUTLINE_OPEN
        case State.OUTLINE:
            role = Role.OUTLINE_CLOSE
        case State.CONCLUSION:
            role = Role.CONCLUSION_CLOSE
        case State.CLOSING:
            role = Role.BLOCK_CLOSE
    head = due(machine)
    if machine.state in (State.BLOCK, State.GOAL, State.CLOSING):
        return (*head, tokens.ids[role])
    if machine.state is State.OUTLINE:
        label = tokens.outline_head(child_label(machine.label, machine.outlines - 1))
        if machine.since <= len(label):  # an outline without a text
            return (*head, *tokens.encode(" "), *tokens.sep, tokens.ids[role])
    between = _NOTHING if head or _apart(machine) else tokens.sep
    return (*head, *_settle(machine), *between, tokens.ids[role])


def _settle(machine: Machine) -> tuple[int, ...]:
    """What a blank text lacks before it can be closed: one space or separator belongs to the tags, two are a text."""
    if machine.state is not State.BODY or machine.last is None or machine.tag is None:
        return _NOTHING
    head = len(machine.tokens.path_head(machine.label)) - 1 if machine.tag is Role.PATH_OPEN else len(machine.tokens.sep)
    beyond = machine.since - head
    nothing_yet = machine.tag is Role.PATH_OPEN and beyond == 1 and machine.last in machine.tokens.sep
    return (machine.last,) if machine.ink <= head and beyond in (1, 2) and not nothing_yet else _NOTHING


def closing_cost(machine: Machine) -> ClosingCost:
    """Cost of closing: to the end of a path, or to the end of the trunk's thinking.

    For a waiting branch, what is left once its children have closed. It may count one separator too many, so that it does
    not grow when another token of text is written. A text of a single space or separator takes one token more than this.
    """
    since = min(machine.since, _LONGEST_HEAD)
    return _closing_cost(machine.tokens, machine.label, machine.state, machine.outlines, machine.forced, since, machine.tag)


@lru_cache(maxsize=16384)
def _closing_cost(
    tokens: TokenDialect, label: str, state: State, outlines: int, forced: tuple[int, ...], since: int, tag: Role | None
) -> ClosingCost:
    machine = Machine(tokens, label)
    machine.state, machine.outlines, machine.forced, machine.since, machine.tag = state, outlines, forced, since, tag
    machine.labels = tuple(child_label(label, index) for index in range(outlines)) if state is State.FORKED else ()
    machine.last, machine.ink = _TEXT, _LONGEST_HEAD
    total = positions = 0
    if machine.waiting:
        machine.resume()
    while True:
        written = machine.forced or closing_tokens(machine)
        if not written:
            return ClosingCost(total, positions)
        for token in written:
            event = machine.feed(token)
            if isinstance(event, Fork):
                children = [closing_cost(Machine(tokens, child)) for child in event.labels]
                total += sum(child.tokens for child in children)
                positions += max(child.positions for child in children)
        total += len(written)
        positions += len(written)
        if machine.waiting:
            machine.resume()


def growth(machine: Machine, tag: Role) -> ClosingCost:
    """By how much the closing cost grows when this tag is written next, the tag itself included."""
    after = copy.copy(machine)
    before = closing_cost(machine)
    after.feed(machine.tokens.ids[tag])
    then = closing_cost(after)
    return ClosingCost(then.tokens - before.tokens + 1, then.positions - before.positions + 1)
