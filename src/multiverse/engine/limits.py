"""The limits of one request: the tokens they allow, and the forced close before one is exceeded. Torch-free.

Before every step `update` computes the cost of closing all open branches. When no more than this cost, the reserved tokens and
the most that one step can add is left before a limit, open branches are closed by force (`next_closing`), so that no limit is
ever exceeded.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..structure import ClosingCost, Role, State, allowed_tokens, closing_cost, closing_tokens, growth, in_answer
from .branch import Branch
from .grammar import GrammarMatcher
from .params import SamplingParams
from .tree import BranchTree, ModelInfo

# A text token costs itself and the separator that a tag needs after a text.
_STEP = 2


class Choices(NamedTuple):
    """The tokens that may be sampled: `only` these, or all if it is `None`; none of `banned`; none that `mask` leaves out."""

    only: tuple[int, ...] | None
    banned: tuple[int, ...]
    mask: NDArray[np.bool_] | None = None


class Limits:
    """The limits of a request and the state of its forced close.

    Attributes:
        closing: the limit for which all that is open is being closed, as in `finish_reason`; `None` if nothing is.
        met: the last such limit, also if the text goes on after what was closed; `None` without one.
        headroom: the most by which a branch may increase its closing cost in the next step.
        max_generated, end_position: hard limits: number of tokens, position along the longest chain (`Branch.chain`).
        matcher: of the grammar that the answer has to follow; `None` without one.
    """

    def __init__(self, tree: BranchTree, params: SamplingParams, model: ModelInfo) -> None:
        self._tree, self._params, self._model = tree, params, model
        self.closing: str | None = None
        self.met: str | None = None
        self.max_generated = params.max_tokens
        self.end_position = model.max_positions
        if not tree.kv_join:
            # What is generated is read in a line, so positions are bounded by the number of tokens.
            self.max_generated = min(self.max_generated, model.max_positions - tree.prompt_positions)
            self.end_position = max(self.end_position, tree.prompt_positions + params.max_tokens + 1)
        if params.max_critical_path_tokens is not None:
            self.end_position = min(self.end_position, tree.prompt_positions + params.max_critical_path_tokens)
        self.headroom = ClosingCost(self.max_generated, self.end_position)
        self._closing_branches = False  # whether branches were closed for a limit of their own
        self._closing_thinking = False  # whether only the thinking is being closed, for its budget
        self.matcher: GrammarMatcher | None = None
        if params.answer_format is not None:
            assert model.grammar_compiler is not None
            self.matcher = model.grammar_compiler.matcher(params.answer_format)
        self._conclusion_end: int | None = None  # number of trunk tokens at which the last conclusion is closed

    def reached(self, branch: Branch) -> str | None:
        """The finish reason if the newest token of this branch has reached a hard limit."""
        if self._tree.num_generated >= self.max_generated:
            return self.met or "length"
        if branch.chain >= self.end_position:
            return self.met or ("length" if self.end_position == self._model.max_positions else "budget")
        return None

    # -- what may be sampled ------------------------------------------------------------------------------------------

    def choices(self, branch: Branch) -> Choices:
        """The tokens that a branch may sample next: by the grammar (unless ``guard=False``) and by the limits."""
        machine, tokens = branch.machine, self._model.tokens
        early = self._ends if self._tree.num_generated < self._params.min_tokens else frozenset()
        if machine is None or tokens is None:
            return Choices(None, tuple(early)) if self.matcher is None else self._within(self.matcher, early)
        banned = set(self.over_limit(branch))
        if not self._params.guard:
            return Choices(None, (*banned, *early))
        only, illegal, may_end = allowed_tokens(machine)
        banned.update(illegal)
        ends = self._ends
        may_end = may_end and not (early and only != ())
        if self.matcher is not None and not branch.label:
            if self.in_answer(branch):
                return self._within(self.matcher, early, banned)
            may_end = False
        if only is not None:
            if len(only) > len(tokens.roles):
                # Passed on unchanged, so that the sampler finds its mask of them by identity.
                return Choices((*only, *ends) if may_end else only, tuple(banned))
            kept = tuple(token for token in only if token not in banned) or only
            return Choices((*kept, *ends) if may_end else kept, ())
        return Choices(None, tuple(banned if may_end else banned | ends))

    @property
    def _ends(self) -> frozenset[int]:
        """Tokens that end the text."""
        return self._model.stop_ids if not self._params.ignore_eos else frozenset()

    def in_answer(self, branch: Branch) -> bool:
        """Whether the next token of a branch is text of the answer."""
        return branch.machine is None or in_answer(branch.machine)

    def _within(self, matcher: GrammarMatcher, early: frozenset[int], banned: Container[int] = ()) -> Choices:
        """What may come next in an answer that has to have a certain form: no tag, but a thinking may come before it.

        Args:
            early: tokens that end the text, where it is too early for that; allowed all the same if nothing else is.
            banned: tags that are not allowed.
        """
        mask, tokens = matcher.allowed, self._model.tokens
        if tokens is not None:
            mask = mask.copy()
            mask[list(tokens.roles)] = False
            if (think := tokens.ids.get(Role.THINK_OPEN)) is not None:
                mask[think] = think not in banned
        goes_on = bool(early) and np.count_nonzero(mask) > np.count_nonzero(mask[list(early)])
        return Choices(None, tuple(early) if goes_on else (), mask)

    def over_limit(self, branch: Branch) -> Iterator[int]:
        """Tags that would exceed a limit."""
        machine, tokens, params = branch.machine, self._model.tokens, self._params
        assert machine is not None
        assert tokens is not None
        legal = machine.legal_roles()
        fork_role = tokens.roles[tokens.fork_tag]
        if fork_role in legal and (
            machine.depth >= params.max_depth or branch.allowance < 1 or self.closing or not self._affordable(branch, fork_role)
        ):
            yield tokens.fork_tag
        if machine.outlines and Role.OUTLINE_OPEN in legal:
            widest = min(branch.allowance, params.max_width)
            if machine.outlines >= widest or not self._affordable(branch, Role.OUTLINE_OPEN):
                yield tokens.outline_tag
        if Role.THINK_OPEN in legal and (self.closing or not self._affordable(branch, Role.THINK_OPEN)):
            yield tokens.ids[Role.THINK_OPEN]

    def _affordable(self, branch: Branch, tag: Role) -> bool:
        """Whether there is headroom to open and close this tag, even if every other branch opens as much."""
        params = self._params
        if not params.guard:
            return True
        assert branch.machine is not None
        more = growth(branch.machine, tag)
        if tag is Role.THINK_OPEN:
            return params.thinking_budget is None or more.positions <= params.thinking_budget
        if branch.label:
            left = params.max_branch_tokens - len(branch.token_ids) - closing_cost(branch.machine).positions - _STEP
            if more.positions > left:
                return False
        return more.tokens <= self.headroom.tokens and more.positions <= self.headroom.positions

    # -- forced close -------------------------------------------------------------------------------------------------

    def update(self, seconds: float, *, prompt_computed: bool) -> str | None:
        """Before a step: decide which branches have to be closed.

        Args:
            seconds: since the request was submitted.

        Returns:
            The finish reason, if the request ends at once.
        """
        closable = self._model.tokens is not None and self._params.guard and self._params.max_tokens > 0
        if seconds >= self._params.max_seconds and self.met != "deadline":
            self._begin_closing("deadline")
            if not closable or not prompt_computed:
                return "deadline"
            left = self.remaining(self._tree.trunk).tokens + self.reserved
            self.max_generated = min(self.max_generated, self._tree.num_generated + left)
        if not closable:
            return None
        if self._closing_thinking and not self._in_thinking:
            self._end_closing()
        if self.closing is None:
            self._look_ahead()
        for branch in self._tree.open_branches:
            if branch.closing is None and branch.label and self._too_long(branch):
                branch.closing = "length"
                self._closing_branches = True
        return None

    def next_closing(self) -> tuple[Branch, tuple[int, ...]] | None:
        """The next branch to close by force and its closing tokens up to the next tag; `None` if there is none."""
        if self.closing is None and not self._closing_branches:
            return None
        for branch in self._tree.open_branches:
            if (self.closing or branch.closing) and (tokens := self._next_tokens(branch)):
                branch.closing = branch.closing or self.closing
                return branch, tokens
        return None

    @property
    def _in_thinking(self) -> bool:
        """Whether the thinking is open: there its budget holds. In a dialect without think tags it may be the whole trunk."""
        machine = self._tree.trunk.machine
        return machine is not None and machine.base is State.BODY

    def _begin_closing(self, reason: str, *, thinking: bool = False) -> None:
        self.closing = self.met = reason
        self._closing_thinking = thinking

    def _end_closing(self) -> None:
        """The thinking was closed for its budget, which does not hold for the answer: that may fork again."""
        self.closing = self._tree.trunk.closing = self._conclusion_end = None
        self._closing_thinking = False

    def _look_ahead(self) -> None:
        """Begin to close if the next step might leave too few tokens for it; otherwise update the headroom."""
        trunk, params = self._tree.trunk, self._params
        cost, rows = self.remaining(trunk), len(self._tree.open_branches)
        reserved = self.reserved
        free = self.max_generated - self._tree.num_generated - cost.tokens - reserved
        end = trunk.chain + cost.positions
        ahead = self.end_position - end - reserved
        thinking = ahead
        if params.thinking_budget is not None and self._in_thinking:
            # The answer does not count towards this budget, so only the conclusion's half is reserved.
            thinking = self._tree.prompt_positions + params.thinking_budget - end - reserved // 2
        if cost.tokens:  # something is open
            if free < _STEP * rows:
                self._begin_closing("length")
            elif ahead < _STEP:
                self._begin_closing("length" if self.end_position == self._model.max_positions else "budget")
            elif thinking < _STEP:
                self._begin_closing("budget", thinking=True)
        # Shared evenly among the open branches.
        self.headroom = ClosingCost(free // max(1, rows), min(ahead, thinking))

    @property
    def reserved(self) -> int:
        """Tokens reserved for the conclusion and the answer."""
        params = self._params
        if params.reserved_tokens is not None:
            return params.reserved_tokens
        limits = [params.max_tokens, self.end_position - self._tree.prompt_positions]
        if params.thinking_budget is not None and self._in_thinking:
            limits.append(params.thinking_budget)
        return max(8, min(256, min(limits) // 8))

    def remaining(self, branch: Branch) -> ClosingCost:
        """Cost of closing a branch and its descendants; positions are relative to the end of the branch's chain."""
        assert branch.machine is not None
        if branch.closed:
            return ClosingCost(0, 0)
        own = closing_cost(branch.machine)
        if not branch.waiting:
            return own
        below = [(child, self.remaining(child)) for child in branch.children]
        furthest = max(child.chain + cost.positions for child, cost in below)
        return ClosingCost(own.tokens + sum(cost.tokens for _, cost in below), own.positions + furthest - branch.chain)

    def _too_long(self, branch: Branch) -> bool:
        assert branch.machine is not None
        return len(branch.token_ids) + closing_cost(branch.machine).positions + _STEP > self._params.max_branch_tokens

    def _next_tokens(self, branch: Branch) -> tuple[int, ...]:
        """Closing tokens of the branch up to the next tag; none if it may go on sampling."""
        machine = branch.machine
        assert machine is not None
        if not branch.label and machine.state is State.CONCLUSION:
            # The model writes the outermost conclusion (of thinking or answer), within half of the reserved tokens.
            if self._conclusion_end is None:
                self._conclusion_end = len(branch.token_ids) + self.reserved // 2
            if len(branch.token_ids) < self._conclusion_end:
                return ()
        return closing_tokens(machine)
