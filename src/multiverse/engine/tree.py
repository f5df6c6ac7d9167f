"""The branches of one request: visibility, fork and join, positions, document order. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, StructureError
from ..structure import Contexts, Machine, Replay, RoleTracker, TokenDialect, merge, partings, visibility
from .branch import NOT_DRAWN, Branch, Drawn, SeenTokens, Span
from .characters import EndsInside, count_unfinished
from .grammar import GrammarCompiler
from .lines import below, context, lines, stretches
from .params import SamplingParams
from .text import TextStream

_BEHIND = 1 << 30
"""In paths of branches: stands behind all blocks of a path."""


class ModelInfo(NamedTuple):
    """What a request has to know of the model.

    Attributes:
        tokens: the dialect bound to its tokenizer; `None` for a plain autoregressive model.
        decode: token ids to text.
        max_positions: longest chain of positions that the model was made for.
        stop_ids: tokens that end a text.
        short_positions: as in `Backend`.
        unused: as in `LoadedModel`.
        ends_inside: tells a part of a character at the end of a text; `None` if that is not known of its tokenizer.
        grammar_compiler: compiles grammars for answers of a certain form; `None` if there can be none.
        read_answer: finds the answer in what follows the thinking, as the model's family writes it; `None` without one.
    """

    tokens: TokenDialect | None
    decode: Callable[[list[int]], str]
    max_positions: int
    stop_ids: frozenset[int] = frozenset()
    short_positions: int | None = None
    unused: tuple[int, ...] = ()
    ends_inside: EndsInside | None = None
    grammar_compiler: GrammarCompiler | None = None
    read_answer: Callable[[str], str | None] | None = None


class BranchTree:
    """The branches of one request, and what was generated on each.

    A branch sees a token if it was computed earlier and its owner does not lie in another path of one block. So a fork copies
    no list and a join appends to none: both only change who sees whom.

    With a join by text, every branch reads in a line: what it wrote is followed by its first path as it stands, since that was
    computed behind the same tokens, and by the other paths, which it reads again at its own positions. With a join by message
    it reads the messages of all paths. Nobody sees the paths themselves any more.

    Args:
        prompt: token ids, which may hold finished blocks (earlier turns of a chat).
        sample: number of this request among those of one prompt; each has random streams of its own.
        listening: classify tokens and decode them as they come.
        may_end_in_block: whether the prompt may end inside a block.
        trained: the prompt's paths see what they see in training (`layout`), not what they see when they are decoded.
        whole: lay out every path of the prompt, to be scored; otherwise, with a join by text or message, only the trunk as it
            reads on.

    Attributes:
        branches: in the order in which they were opened, the trunk first.
        visible: for each pair of branches, whether tokens of the one may attend to earlier tokens of the other [B, B].
        parted_at: position at which the paths begin that keep two branches apart; -1 where nothing does [B, B].
        segments: the prompt in document order, as stretches of branches: first and last of their tokens in `prompt_ids`.
        positions: position of each token of the prompt in document order.
        prompt_spans: the prompt as it is to be computed.
        kv_join: whether parents get the keys and values of their paths.
        prompt_positions: position of the first generated token.
        prompt_thinking: whether the prompt has opened the thinking and not closed it.
        num_generated: tokens generated on all branches.
        ended_by: the branch whose last token is an end-of-text token; `None` without one.
        furthest: end of the longest chain of generated tokens: with a join of keys and values, the highest position + 1.
        num_reread: tokens of paths that their parents read again.
        steps: most forwards on any chain.

    Raises:
        RequestError: the prompt breaks the grammar of its own tags.
    """

    def __init__(
        self,
        prompt: list[int],
        params: SamplingParams,
        model: ModelInfo,
        *,
        sample: int = 0,
        listening: bool = False,
        may_end_in_block: bool = False,
        trained: bool = False,
        whole: bool = False,
    ) -> None:
        seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(6), "little")
        self.seed = (seed, sample) if sample else (seed,)
        self.branches: list[Branch] = []
        self.visible: NDArray[np.bool_] = np.ones((0, 0), dtype=bool)
        self.parted_at: NDArray[np.int64] = np.full((0, 0), -1, dtype=np.int64)
        self._ranks: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._model, self._params, self._listening = model, params, listening
        self.kv_join = model.tokens is None or model.tokens.dialect.join == "kv"
        self.segments: list[tuple[Branch, int, int]] = []
        self.positions: list[int] = []
        if model.tokens is None:
            self.positions += range(len(prompt))
            self.prompt_spans = [Span(self._add(None, "", (), None), list(prompt), 0)]
            self.trunk.next_position = len(prompt)
        else:
            replay = self._replay(prompt, model.tokens, may_end_in_block=may_end_in_block)
            if self.kv_join:
                self.prompt_spans = self._lay_out(prompt, replay, trained=trained)
            else:
                self.prompt_spans = self._in_lines(prompt, replay, whole=whole)
        self._prompt_branches = len(self.branches)
        self._prompt_order: list[tuple[Branch, int, int]] = []
        for span in self.prompt_spans:
            start = len(span.branch.prompt_ids)
            span.branch.prompt_ids += span.token_ids
            self._prompt_order.append((span.branch, start, start + len(span.token_ids)))
        self.segments = self.segments or self._prompt_order
        self.trunk.allowance = params.max_branches
        if params.penalises:
            self.trunk.seen = SeenTokens()
            for token in prompt:
                self.trunk.seen.add(token, times=0)
        self.prompt_positions = self.furthest = self.trunk.next_position
        self.prompt_thinking = self.trunk.machine is not None and self.trunk.machine.thinking
        self.num_generated = self.num_reread = self.steps = 0
        self.ended_by: Branch | None = None

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Number of each branch in document order: parents before their children, and these in the order of their labels."""
        if len(self._ranks) != len(self.branches):
            # Branches of the prompt come first, in document order; the others are numbered in the order in which they forked.
            keys = [(branch.path, branch.index) for branch in self.branches]
            self._ranks = np.empty(len(keys), dtype=np.int64)
            self._ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
        return self._ranks

    @property
    def overlaps(self) -> bool:
        """Whether tokens that see each other may have one position: the order of positions is then not that of the text."""
        return self._model.tokens is not None and self._model.tokens.dialect.positions == "released"

    @property
    def trunk(self) -> Branch:
        """The branch that the request begins with."""
        return self.branches[0]

    @property
    def open_branches(self) -> list[Branch]:
        """Branches whose next token is the model's to choose."""
        generated = [self.trunk, *self.branches[self._prompt_branches :]]
        return [branch for branch in generated if branch.open]

    @property
    def num_open(self) -> int:
        """Number of open branches."""
        if len(self.branches) == self._prompt_branches:
            return int(self.trunk.open)
        return len(self.open_branches)

    def _replay(self, prompt: list[int], tokens: TokenDialect, *, may_end_in_block: bool) -> Replay:
        """Check a prompt against the grammar of its own tags."""
        replay = Replay(tokens, mark_forced=False, decoded=self.kv_join)
        try:
            for token in tokens.structural(prompt):
                replay.feed(token)
        except StructureError as error:
            raise RequestError(f"the prompt breaks the grammar of its own tags: {error}") from None
        if not may_end_in_block and (replay.trunk.forced or not replay.at_trunk):
            raise RequestError("the prompt ends inside a parallel block: close the block, or end the prompt before it begins")
        replay.trunk.begin_turn()
        return replay

    def _open(self, replay: Replay) -> None:
        """Add the branches of a prompt."""
        for spec in replay.table:
            parent = self.branches[spec.parent] if spec.parent >= 0 else None
            self._add(parent, spec.label, (), None if parent is not None else replay.trunk).separator = spec.separator

    def _lay_out(self, prompt: list[int], replay: Replay, *, trained: bool) -> list[Span]:
        """The prompt as it was generated with a join of keys and values."""
        self._open(replay)
        for owner, writer in dict.fromkeys(zip(replay.branches, replay.writers, strict=True)):
            if owner != writer:
                self.branches[writer].behind = self.branches[owner]
        self.visible = np.array(visibility(replay.table, trained=trained))
        self.parted_at = np.array(partings(replay.table, replay.layout().starts))
        owners = replay.branches
        self.positions += replay.positions
        starts = [0, *(i for i in range(1, len(owners)) if owners[i] != owners[i - 1]), len(owners)]
        self.trunk.next_position = replay.positions[-1] + 1
        return [
            Span(self.branches[owners[start]], prompt[start:end], replay.positions[start]) for start, end in pairwise(starts)
        ]

    def _in_lines(self, prompt: list[int], replay: Replay, *, whole: bool) -> list[Span]:
        """The prompt as it was generated with a join by text or message: its trunk, and if `whole` each path on its own."""
        contexts = Contexts.of(prompt, replay.layout(), replay.tokens)
        if whole:
            self._open(replay)
            self.visible = np.array(contexts.visibility)
        else:
            self._add(None, "", (), replay.trunk)
        at = [0] * len(self.branches)
        spans: list[Span] = []
        for token, branch, position, own in contexts:
            if branch >= len(at):
                continue
            if not spans or spans[-1].branch.index != branch or spans[-1].position + len(spans[-1].token_ids) != position:
                spans.append(Span(self.branches[branch], [], position))
            spans[-1].token_ids.append(token)
            if own and whole:
                self.segments.append((self.branches[branch], at[branch], at[branch] + 1))
                self.positions.append(position)
            at[branch] += 1
        self.trunk.next_position = at[0]
        return spans

    def _add(self, parent: Branch | None, label: str, path: tuple[int, ...], machine: Machine | None) -> Branch:
        params = self._params
        branch = Branch(
            index=len(self.branches),
            parent=parent,
            label=label,
            path=path,
            machine=machine,
            next_position=parent.next_position if parent is not None else 0,
            seed=self.seed,
            read_again=parent.read_again if parent is not None else 0,
            steps=parent.steps if parent is not None else 0,
            stream=self._stream() if self._listening or params.stop or params.stop_token_ids else None,
            roles=RoleTracker(machine) if self._listening else None,
            seen=parent.seen.copy() if parent is not None and parent.seen is not None else None,
        )
        self.branches.append(branch)
        size = len(self.branches)
        visible, parted_at = np.ones((size, size), dtype=bool), np.full((size, size), -1, dtype=np.int64)
        visible[:-1, :-1], parted_at[:-1, :-1] = self.visible, self.parted_at
        if parent is not None:
            # A child sees what its parent sees; `fork` parts siblings from each other.
            visible[-1, :-1] = visible[:-1, -1] = self.visible[parent.index]
            parted_at[-1, :-1] = parted_at[:-1, -1] = self.parted_at[parent.index]
        self.visible, self.parted_at = visible, parted_at
        return branch

    def _stream(self) -> TextStream:
        params, tokens = self._params, self._model.tokens
        stops, answer_stops = params.stop_strings, params.stop_strings[:0]
        if params.stop_in == "answer":
            tags = tokens.dialect.tags if tokens is not None else ()
            answer_stops = tuple(stop for stop in stops if not any(tag in stop for tag in tags))
            # One that is a tag and nothing else goes by its token (`Request`): the model may speak of tags.
            stops = tuple(stop for stop in stops if stop not in (*answer_stops, *tags))
        return TextStream(
            self._model.decode,
            stops,
            self._model.ends_inside,
            answer_stops=answer_stops,
            include=params.include_stop_str_in_output,
            skip_blank=tokens is not None,
        )

    def append(self, branch: Branch, token: int, *, forced: bool = False, drawn: Drawn = NOT_DRAWN) -> None:
        """A token was generated on a branch, or behind it."""
        path, branch = branch, branch.holder
        if branch is not path and not branch.token_ids:
            branch.next_position, branch.steps, branch.first_piece = path.next_position, path.steps, len(path.token_ids)
        branch.token_ids.append(token)
        branch.positions.append(branch.next_position)
        branch.forced.append(forced)
        branch.drawn.append(drawn)
        branch.next_position += 1
        branch.steps += not forced
        if branch.seen is not None:
            branch.seen.add(token)
        self.num_generated += 1
        self.furthest = max(self.furthest, branch.chain)
        self.steps = max(self.steps, branch.steps)

    def fork(self, parent: Branch, labels: tuple[str, ...]) -> list[Branch]:
        """Open a block behind what the parent has generated; returns its children."""
        assert parent.machine is not None
        number = len(parent.blocks)
        children: list[Branch] = []
        parent.blocks.append((len(parent.token_ids), children))
        # The allowance left is divided among the children, and what they leave comes back at the join: branches that fork in
        # the same step need not know of each other.
        share, parent.allowance = divmod(max(0, parent.allowance - len(labels)), len(labels))
        assert parent.machine is not None
        start = parent.next_position - parent.machine.overlap
        for index, label in enumerate(labels):
            child = self._add(parent, label, (*parent.path, number, index), parent.machine.child(index))
            for sibling in children:
                self.visible[child.index, sibling.index] = self.visible[sibling.index, child.index] = False
                self.parted_at[child.index, sibling.index] = self.parted_at[sibling.index, child.index] = start
            child.next_position, child.allowance, child.closing = start, share, parent.closing
            children.append(child)
        if self.overlaps:
            self._add_separators(parent, children)
        return children

    def _add_separators(self, parent: Branch, children: list[Branch]) -> None:
        """A branch for the separator behind each path, which sees this path and those before it."""
        for number, child in enumerate(children):
            behind = child.behind = self._add(parent, parent.label, (*child.path, _BEHIND), None)
            behind.separator, behind.stream, behind.roles, behind.seen = True, child.stream, None, child.seen
            for sibling in children[number + 1 :]:
                self.visible[behind.index, sibling.index] = self.visible[sibling.index, behind.index] = False

    def join(self, parent: Branch) -> list[int]:
        """All children of the newest block have closed: the parent goes on behind them.

        Returns:
            Tokens of its paths that the parent has to read again, up to its new position: none with a join of keys and values.
        """
        assert parent.machine is not None
        children = parent.children
        parent.next_position = max(child.next_position for child in children) if self.kv_join else self._merge(parent)
        parent.read_again = parent.next_position - max(child.chain for child in children)
        parent.steps = max(child.holder.steps for child in children)
        parent.allowance += sum(child.allowance for child in children)
        if parent.seen is not None:
            parent.seen.join([child.seen for child in children if child.seen is not None])
        parent.machine.resume()
        return [] if self.kv_join else parent.reread[-1]

    def _merge(self, parent: Branch) -> int:
        """The parent reads its paths in a line; returns its position behind them."""
        assert self._model.tokens is not None
        children = parent.children
        merged = merge([context(child, self._keeps_first) for child in children], self._model.tokens)
        kept = len(context(children[0], self._keeps_first)) if self._keeps_first else 0
        parent.reread.append(merged[kept:])
        self.num_reread += len(merged) - kept
        start = children[0].next_position if kept else parent.next_position
        return start + len(merged) - kept

    @property
    def _keeps_first(self) -> bool:
        """Whether a parent goes on from its first path as that was computed."""
        return self._model.tokens is not None and self._model.tokens.dialect.join == "text"

    def left_behind(self, parent: Branch) -> list[Branch]:
        """The branches of the newest block that nobody sees any more once it is joined by text or message."""
        return [branch for child in parent.children[int(self._keeps_first) :] for branch in below(child)]

    def drop_unfinished(self, branch: Branch) -> None:
        """The branch goes on with other text, or is over: tokens at its end that hold no whole character have no text."""
        if self._model.ends_inside is None:
            return
        end = len(branch.token_ids) - (branch is self.ended_by)
        count = count_unfinished(branch.token_ids[:end], self._model.ends_inside)
        branch.textless.update(range(end - count, end))
        if branch.stream is not None and count:
            branch.stream.drop_unfinished()

    def end(self, branch: Branch) -> None:
        """The newest token of this branch ends the text, and is no part of it."""
        self.ended_by = branch

    def reading(self) -> Iterator[tuple[Branch, int, int]]:
        """What is to be computed so far, each token before those that see it, as stretches of branches.

        The first and last token of a stretch are counted among those that the branch computes: its tokens of the prompt, and
        those that it generates and reads again. With a join of keys and values this is the document; otherwise what nobody sees
        any more is left out, and the trunk reads in a line.
        """
        yield from self._prompt_order
        for branch, start, end in self.generated() if self.kv_join else lines(self.trunk, self._keeps_first):
            offset = len(branch.prompt_ids)
            yield branch, offset + start, offset + end

    @property
    def prompt_length(self) -> int:
        """Number of tokens that the trunk of the prompt reads, or the whole prompt with a join of keys and values."""
        return sum(end - start for _, start, end in self._prompt_order)

    def generated(self) -> Iterator[tuple[Branch, int, int]]:
        """What was generated, in document order, as stretches of branches: first and last generated token."""
        return stretches(self.trunk)

    def release(self) -> None:
        """Take the references from children to parents apart.

        In such circles a finished request would stay in memory until Python's collector runs, which beside a large model is
        seldom.
        """
        for branch in self.branches:
            branch.parent = None
