"""The tokens of a request that are still to be computed, and in what order that is safe. Torch-free."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

import numpy as np

from ..models.rope import LONG
from .branch import Branch, Span
from .computed import ComputedTokens, Ints
from .prefix_cache import Keys, make_keys
from .tree import BranchTree, ModelInfo


class TokenQueues:
    """Queues of tokens that are known but not computed.

    Args:
        tree: the request's branches.
        share_every: as in `SamplingParams`.
        model: for its positions.
        reuse: whether computed tokens may come from the prefix cache.

    Attributes:
        prefill: the prompt, or after a preemption everything that was computed before. It goes before anything else.
        cacheable: how many tokens at the front of `prefill` stand in the order of `BranchTree.reading`, as in the prefix cache.
        decode: the newest tokens of branches that go on, in a safe order: a parent's before its children's, the children's
            before those of the parent that resumes behind them.
        pending: the same for branches that have not begun; they come after `decode`, in waves if there is no room for all.
        shift: `LONG` if the text is rotated with the long factors of a longrope embedding, else 0 (see `models/rope.py`).

    Of a text that is rotated with the short factors, tokens behind their last position wait until nothing else can be computed:
    then all of it is computed again with the long ones (`outgrow`). So a token's factors depend on its own position, not on
    how far siblings have come that it cannot see.
    """

    def __init__(self, tree: BranchTree, share_every: int | None, model: ModelInfo, *, reuse: bool = True) -> None:
        self._tree, self._share_every, self._max_positions, self._reuse = tree, share_every, model.max_positions, reuse
        self._short_positions = model.short_positions
        self.prefill: deque[Span] = deque()
        self.decode: deque[Span] = deque()
        self.pending: deque[Span] = deque()
        self.cacheable = self.shift = 0
        self._keys: Keys | None = None
        self._newest: dict[Branch, Span] = {}  # newest span of each branch that has one queued

    def __len__(self) -> int:
        count = 0
        for queue in (self.prefill, self.decode, self.pending):
            for span in queue:
                count += len(span.token_ids)
        return count

    def add_prompt(self, spans: list[Span], *, sample: bool) -> None:
        """Queue the prompt.

        Args:
            sample: compute the last token by itself, since the token after it is to be sampled.
        """
        short = self._short_positions
        if short is not None and any(span.position + len(span.token_ids) > short for span in spans):
            self.shift = LONG
        self._set_prefill(spans, sum(len(span.token_ids) for span in spans))
        if sample:
            last = self.prefill.pop()
            if len(last.token_ids) > 1:
                self.prefill.append(last.cut(len(last.token_ids) - 1))
            self.cacheable = min(self.cacheable, sum(len(span.token_ids) for span in self.prefill))
            self._newest[last.branch] = last
            self.decode.append(last)

    def append(self, branch: Branch, token: int) -> None:
        """Queue a token that is about to be added to its branch; a separator behind a path waits for the join."""
        if branch.separator:
            return
        span = self._newest.get(branch)
        if span is None:
            span = self._newest[branch] = Span(branch, [], branch.next_position)
            begins = not branch.token_ids and branch.label and branch.closing is None and self._share_every is None
            (self.pending if begins else self.decode).append(span)
        span.token_ids.append(token)

    def fork(self, parent: Branch) -> None:
        """The parent has forked: what it generates after the join is queued behind its children's tokens."""
        self._newest.pop(parent, None)

    def join(self, parent: Branch) -> None:
        """All paths of the parent's newest block have closed: queue the separators that stand behind them."""
        for child in parent.children:
            if child.behind is not None and child.behind.token_ids:
                self.decode.append(Span(child.behind, list(child.behind.token_ids), child.behind.positions[0]))

    def close(self, branch: Branch) -> None:
        """The branch has closed; if that was before it began, its tokens no longer wait for room."""
        span = self._newest.get(branch)
        if span is not None and span in self.pending:
            self.pending.remove(span)
            self.decode.append(span)

    def read_again(self, branch: Branch, token_ids: list[int], gone: list[Branch]) -> None:
        """Before it goes on at its next position, the branch reads tokens of its paths again; nobody sees `gone` any more."""
        if gone:
            left = {other.index for other in gone}
            at, cacheable, kept = 0, self.cacheable, deque[Span]()
            for span in self.prefill:
                count = len(span.token_ids)
                if span.branch.index in left:
                    self.cacheable -= max(0, min(count, cacheable - at))
                else:
                    kept.append(span)
                at += count
            self.prefill, self._keys = kept, None
            self.decode = deque(span for span in self.decode if span.branch.index not in left)
            self.pending = deque(span for span in self.pending if span.branch.index not in left)
            for other in gone:
                self._newest.pop(other, None)
        if token_ids:
            span = self._newest[branch] = Span(branch, list(token_ids), branch.next_position - len(token_ids))
            self.decode.append(span)

    def waits(self, branch: Branch) -> bool:
        """Whether the branch's newest token is still queued."""
        return branch in self._newest

    def preempt(self, computed: ComputedTokens) -> None:
        """Queue all computed tokens again, and remove them from `computed`."""
        order = computed.in_order(self._tree.reading())
        lost = computed.spans(order, self._tree.branches)
        self._set_prefill([*lost, *self.prefill], len(order) + self.cacheable)
        computed.clear()

    def outgrow(self, computed: ComputedTokens) -> None:
        """Queue all computed tokens again, to be rotated with the long factors."""
        self.shift = LONG
        self.preempt(computed)

    @property
    def outgrown(self) -> bool:
        """Whether nothing can be computed any more with the short factors, and something with the long ones."""
        if self._short_positions is None or self.shift or self.prefill or not (self.decode or self.pending):
            return False
        return next(self._going_on(), None) is None

    @property
    def going(self) -> bool:
        """Whether there are tokens in `decode` that can be computed before those in `pending`."""
        return next(self._ready_spans(self.decode), None) is not None

    def _ready(self, span: Span) -> int:
        """Number of a span's tokens that can be computed with the factors in force."""
        if self._short_positions is None or self.shift:
            return len(span.token_ids)
        end = span.position + len(span.token_ids)
        if span.branch.separator:
            # It reads whole paths, and the trunk, which begins behind the longest of them, reads it: all of it or nothing.
            assert span.branch.parent is not None
            end = max(end, *(child.next_position for child in span.branch.parent.children))
            return len(span.token_ids) if end < self._short_positions else 0
        return min(len(span.token_ids), max(0, self._short_positions - span.position))

    def _ready_spans(self, queue: deque[Span]) -> Iterator[tuple[Span, int]]:
        """The spans of a queue of which tokens can be computed now, with how many."""
        for span in queue:
            if ready := self._ready(span):
                yield span, ready
            elif span.branch.separator:
                return  # what stands behind it in the queue may read it

    def _going_on(self) -> Iterator[tuple[Span, int]]:
        """The same of both queues that follow the prefill."""
        return chain(self._ready_spans(self.decode), self._ready_spans(self.pending))

    def skip(self, computed: ComputedTokens, slots: Ints) -> None:
        """The prefix cache has the first tokens of `prefill`, in these slots."""
        at = 0
        while at < len(slots):
            span = self.take_prefill(len(slots) - at)
            computed.add(span, slots[at : at + len(span.token_ids)])
            at += len(span.token_ids)

    @property
    def unfinished(self) -> bool:
        """Whether tokens of branches wait that could be computed now, but for room in a forward."""
        if self._share_every is not None:
            ready = (span for span in self.decode if self._ready(span))
            return any(self._end_of_visible(span.branch, self._share_every) > span.position for span in ready)
        return next(self._going_on(), None) is not None

    def clear(self) -> None:
        """Drop everything; breaks the references between spans and branches."""
        for queue in (self.prefill, self.decode, self.pending):
            queue.clear()
        self._newest.clear()
        self._keys = None

    @property
    def keys(self) -> Keys:
        """Prefix cache keys of the first `cacheable` tokens of `prefill`; made once, until `prefill` changes."""
        if self._keys is None:
            tokens: list[int] = []
            positions: list[int] = []
            for span in self.prefill if self._reuse else ():
                if len(tokens) >= self.cacheable:
                    break
                tokens += span.token_ids
                positions += range(span.position + self.shift, span.position + self.shift + len(span.token_ids))
            front = slice(0, self.cacheable)
            self._keys = make_keys(np.array(tokens[front], dtype=np.int64), np.array(positions[front], dtype=np.int64))
        return self._keys

    def _set_prefill(self, spans: list[Span], cacheable: int) -> None:
        """Replace `prefill`; the first `cacheable` tokens are in the order of `BranchTree.reading`."""
        self.cacheable, self._keys = cacheable, None
        if self._share_every is not None:
            # Paths depend on each other, so document order would not do: lower positions never depend on higher ones. Up to
            # the first path the two orders are the same, and only that part can be reused.
            linear = next((number for number, span in enumerate(spans) if span.branch is not self._tree.trunk), len(spans))
            self.cacheable = min(cacheable, sum(len(span.token_ids) for span in spans[:linear]))
            tokens = [(span.position + at, span.branch, token) for span in spans for at, token in enumerate(span.token_ids)]
            tokens.sort(key=lambda entry: entry[0])
            spans = []
            for position, branch, token in tokens:
                if spans and spans[-1].branch is branch:
                    spans[-1].token_ids.append(token)
                else:
                    spans.append(Span(branch, [token], position))
        self.prefill = deque(spans)

    # -- taking -------------------------------------------------------------------------------------------------------

    def take_prefill(self, budget: int) -> Span:
        """Take tokens off `prefill`, at most `budget`."""
        span = self._take(self.prefill, self.prefill[0], budget)
        self.cacheable, self._keys = max(0, self.cacheable - len(span.token_ids)), None
        return span

    def take_decode(self, budget: int) -> Span | None:
        """Take the next tokens of branches that go on, at most `budget`; `None` if none can be computed now."""
        if self._share_every is not None:
            return self._take_lowest(budget, self._share_every)
        return self._take_ready(self.decode, budget)

    def take_pending(self, budget: int) -> Span | None:
        """Take the first tokens of a branch that has not begun, at most `budget`."""
        return self._take_ready(self.pending, budget)

    def _take_ready(self, queue: deque[Span], budget: int) -> Span | None:
        span, ready = next(self._ready_spans(queue), (None, 0))
        return self._take(queue, span, min(budget, ready)) if span is not None else None

    def _take(self, queue: deque[Span], span: Span, budget: int) -> Span:
        if len(span.token_ids) > budget:
            return span.cut(budget)
        self._taken(span)
        queue.remove(span)
        return span

    def _taken(self, span: Span) -> None:
        if self._newest.get(span.branch) is span:
            del self._newest[span.branch]

    def _take_lowest(self, budget: int, share_every: int) -> Span | None:
        """With `share_every`: the lowest tokens of which all that they see of siblings has been computed."""
        for span in sorted(self.decode, key=lambda span: span.position):
            count = min(budget, self._end_of_visible(span.branch, share_every) - span.position, self._ready(span))
            if count > 0:
                if count < len(span.token_ids):
                    return span.cut(count)
                self.decode.remove(span)
                self._taken(span)
                return span
        return None

    def _end_of_visible(self, branch: Branch, share_every: int) -> int:
        """First position of a branch that depends on tokens of siblings that have not been computed."""
        frontier = {span.branch.index: span.position for span in reversed(self.decode)}
        end = self._max_positions + 1
        for other in self._tree.branches:
            start = int(self._tree.parted_at[branch.index, other.index])
            if start < 0:
                continue
            position = frontier.get(other.index, other.next_position if other.open and other.machine is not None else None)
            if position is not None:
                end = min(end, start + ((position - start) // share_every + 1) * share_every)
        return end
