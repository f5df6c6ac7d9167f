"""What a branch may write next, and the winding up of a request that comes near one of its bounds. Torch-free.

Before every step `check` works out what it would take to close everything that is open. When that, and the tail kept for the
conclusion and the answer, is all that is left before a bound, open branches are closed by force. What the next step could
add at most is kept in reserve, so that a bound is never passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..structure import Exit, Role, State, exit_of, growth, rule, way_out
from .branch import Branch
from .request import Request

# A text token adds itself, and with it the separator that a tag needs behind a text.
_STEP = 2


class Choices(NamedTuple):
    """What may be sampled: `only` these tokens, or everything but `banned`."""

    only: tuple[int, ...] | None
    banned: tuple[int, ...]


def choices(request: Request, branch: Branch) -> Choices:
    """What a branch may write next: by the grammar (unless ``guard=False``), and by the bounds on depth, width and branches."""
    machine, tokens = branch.machine, request.tokens
    if machine is None or tokens is None:
        return Choices(None, ())
    banned = set(_over_bounds(request, branch))
    if not request.params.guard:
        return Choices(None, tuple(banned))
    only, illegal, may_end = rule(machine)
    banned.update(illegal)
    ends = request.stop_ids if not request.params.ignore_eos else frozenset()
    if only is not None:
        # Long lists hold no tags. They are handed on as they are, so that the sampler knows them again.
        kept = only if len(only) > len(tokens.roles) else tuple(token for token in only if token not in banned) or only
        return Choices((*kept, *ends) if may_end else kept, ())
    return Choices(None, tuple(banned if may_end else banned | ends))


def _over_bounds(request: Request, branch: Branch) -> Iterator[int]:
    """Tags that would lead past a bound."""
    machine, tokens, params = branch.machine, request.tokens, request.params
    assert machine is not None
    assert tokens is not None
    legal = machine.legal_roles()
    fork_role = tokens.roles[tokens.fork_tag]
    if fork_role in legal and (
        machine.depth >= params.max_depth
        or branch.allowance < 1
        or request.closing
        or not _affordable(request, branch, fork_role)
    ):
        yield tokens.fork_tag
    if machine.outlines and Role.OUTLINE_OPEN in legal:
        widest = min(branch.allowance, params.max_width)
        if machine.outlines >= widest or not _affordable(request, branch, Role.OUTLINE_OPEN):
            yield tokens.outline_tag
    if Role.THINK_OPEN in legal and (request.closing or not _affordable(request, branch, Role.THINK_OPEN)):
        yield tokens.ids[Role.THINK_OPEN]


def _affordable(request: Request, branch: Branch, tag: Role) -> bool:
    """Whether what this tag opens can still be closed, even if every other branch opens as much."""
    if not request.params.guard:
        return True
    assert branch.machine is not None
    more, params = growth(branch.machine, tag), request.params
    if tag is Role.THINK_OPEN:
        return params.thinking_budget is None or more.positions <= params.thinking_budget
    if branch.label:
        room = params.max_branch_tokens - len(branch.token_ids) - exit_of(branch.machine).positions - _STEP
        if more.positions > room:
            return False
    return more.tokens <= request.room.tokens and more.positions <= request.room.positions


def check(request: Request, now: float) -> None:
    """Before a step: wind up, or end, a request that comes near a bound."""
    if request.scoring:
        return
    if now - request.started_at >= request.params.max_seconds:
        _at_deadline(request)
    if request.finish_reason is not None or request.tokens is None or not request.params.guard:
        return
    if request.closing is None:
        _look_ahead(request)
    for branch in request.open_branches:
        if branch.closing is None and branch.label and _too_long(request, branch):
            branch.closing = "length"
            request.closing_branches = True
    if request.closing is not None or request.closing_branches:
        _wind_up(request)


def _at_deadline(request: Request) -> None:
    if request.closing == "deadline":
        return
    request.closing = "deadline"
    if request.tokens is None or not request.params.guard or not request.prompt_read:
        request.finish_reason = "deadline"
    else:
        request.max_written = min(
            request.max_written, request.written + remaining(request, request.trunk).tokens + tail(request)
        )


def _look_ahead(request: Request) -> None:
    """Begin to wind up if the next step might leave too little room for it; else note how much room there is."""
    trunk, params = request.trunk, request.params
    way, rows = remaining(request, trunk), len(request.open_branches)
    kept = tail(request)
    free = request.max_written - request.written - way.tokens - kept
    end = trunk.next_position + way.positions
    bounds = [(request.end_position - end - kept, "length" if request.end_position == request.max_positions else "budget")]
    if params.thinking_budget is not None:
        # The answer is not counted, so only the conclusion's half is kept.
        bounds.append((request.prompt_positions + params.thinking_budget - end - kept // 2, "budget"))
    ahead, reason = min(bounds)
    if way.tokens:  # something is open
        if free < _STEP * rows:
            request.closing = "length"
        elif ahead < _STEP:
            request.closing = reason
    # What is over after every branch has written one more token of text may be spent on opening something.
    request.room = Exit(free // max(1, rows), ahead)


def tail(request: Request) -> int:
    """Tokens kept for the conclusion and the answer."""
    params = request.params
    if params.reserved_tokens is not None:
        return params.reserved_tokens
    bounds = [params.max_tokens, request.end_position - request.prompt_positions]
    if params.thinking_budget is not None:
        bounds.append(params.thinking_budget)
    return max(8, min(256, min(bounds) // 8))


def remaining(request: Request, branch: Branch) -> Exit:
    """What it takes to close a branch and everything below; positions are counted from its own next one."""
    assert branch.machine is not None
    if branch.ended:
        return Exit(0, 0)
    own = exit_of(branch.machine)
    if not branch.waiting:
        return own
    below = [(child, remaining(request, child)) for child in branch.children]
    furthest = max(child.next_position + way.positions for child, way in below)
    return Exit(own.tokens + sum(way.tokens for _, way in below), own.positions + furthest - branch.next_position)


def _too_long(request: Request, branch: Branch) -> bool:
    assert branch.machine is not None
    return len(branch.token_ids) + exit_of(branch.machine).positions + _STEP > request.params.max_branch_tokens


def _wind_up(request: Request) -> None:
    """Close what is to be closed: all open branches, or those that are over their own bound."""
    while request.finish_reason is None:
        closing = [branch for branch in request.open_branches if request.closing or branch.closing]
        branch, ahead = next(((branch, out) for branch in closing if (out := _ahead(request, branch))), (None, ()))
        if branch is None:
            return
        branch.closing = branch.closing or request.closing
        request.force(branch, ahead)


def _ahead(request: Request, branch: Branch) -> tuple[int, ...]:
    """Tokens that close the branch a little further; none if it is to go on by itself."""
    machine = branch.machine
    assert machine is not None
    if not branch.label and machine.state is State.CONCLUSION:
        # The outermost conclusion is the model's to write, within half of the tail.
        if request.conclude_by is None:
            request.conclude_by = len(branch.token_ids) + tail(request) // 2
        if len(branch.token_ids) < request.conclude_by:
            return ()
    return way_out(machine)
