"""Layout: a pure function from a token sequence to positions and branches.

Siblings start at the same position; the trunk resumes after the longest of them; a token attends to the tokens before it that
are not in another path of the same block. `share_every` is an ablation: paths of a block also attend to each other's earlier
chunks of k positions.

There are two layouts (`Dialect.positions`). They differ in the separators behind a goal and behind a path:

- ``engine``: they take positions like all tokens. The separator behind a path belongs to that path.
- ``released``: the paths begin beside the separator of the goal, at the same position, and the trunk resumes beside that of the
  longest path. The separator behind a path belongs to its parent: it attends to this path and all earlier ones of the block,
  and, as models with this layout are trained, later paths attend to it. Paths that are decoded in parallel cannot: earlier ones
  are not finished then. That form of the layout (``decoded=True``) makes each of these separators a branch of its own, to which
  only later separators and the resumed trunk attend; everything else is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import StructureError
from .guard import required_tokens
from .machine import Machine
from .tokens import TokenDialect


class BranchSpec(NamedTuple):
    """One branch of a layout, as a row of its table.

    Attributes:
        parent: index of the parent branch; -1 for the trunk, which is branch 0.
        block: number of the block (counted over the document) that the path belongs to; -1 for the trunk.
        label: label path such as ``2.1``; empty for the trunk. Two blocks of one trunk use the same labels.
        separator: whether it is no path, but the separator behind one (the path before it in the table), computed at the join.
            It has its parent's label.
    """

    parent: int
    block: int
    label: str
    separator: bool = False


TRUNK = BranchSpec(parent=-1, block=-1, label="")


@dataclass(frozen=True)
class Layout:
    """Positions, branches and forced flags of a token sequence in document order.

    Attributes:
        positions: position of each token, as the model sees it.
        branches: index into `table` of each token's branch, which decides what it attends to.
        forced: whether the grammar left no choice about the token (`guard.required_tokens`): the engine writes it.
        table: the branches, parents before children.
        writers: index into `table` of the trunk or path in whose text each token stands: its branch, except for separators
            behind a path that belong to the parent.
    """

    positions: tuple[int, ...]
    branches: tuple[int, ...]
    forced: tuple[bool, ...]
    table: tuple[BranchSpec, ...] = (TRUNK,)
    writers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.writers) != len(self.branches):
            object.__setattr__(self, "writers", self.branches)

    def __len__(self) -> int:
        return len(self.positions)

    def visible(self, i: int, j: int, share_every: int | None = None) -> bool:
        """Whether token `i` may attend to token `j`.

        Args:
            share_every: with k, token `i` may attend to tokens of other paths of its block that lie in an earlier chunk of k
                positions, counted from the start of the paths. With `None`, paths do not attend to each other.
        """
        pair = parting(self.table, self.branches[i], self.branches[j])
        if pair is None:
            return j <= i
        if share_every is None:
            return False
        start = self.starts[pair[0]]
        return (self.positions[j] - start) // share_every < (self.positions[i] - start) // share_every

    @property
    def starts(self) -> list[int]:
        """Position of each branch's first token."""
        starts = [0] * len(self.table)
        for position, branch in zip(reversed(self.positions), reversed(self.branches), strict=True):
            starts[branch] = position
        return starts

    def visibility(self) -> list[list[bool]]:
        """For every pair of branches, whether tokens of one may attend to earlier tokens of the other."""
        return visibility(self.table)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label path of each token's branch."""
        return tuple(self.table[branch].label for branch in self.branches)

    def critical_path(self, prompt_tokens: int = 0) -> int:
        """Length of the longest chain of generated tokens: highest position + 1 - positions of the prompt."""
        start = max(self.positions[:prompt_tokens], default=-1) + 1
        return max(self.positions[prompt_tokens:], default=start - 1) + 1 - start

    def critical_path_steps(self, prompt_tokens: int = 0) -> int:
        """Forwards on the longest chain: its tokens that are not forced.

        Each token that the model chooses takes a forward; forced tokens are computed with the token before them. So no engine
        generates this in fewer forwards, however many branches it advances at once.
        """
        steps, last = [0] * len(self.table), 0
        for token, (branch, forced) in enumerate(zip(self.writers, self.forced, strict=True)):
            if branch > last:  # a path begins
                steps[branch] = steps[self.table[branch].parent]
            elif branch < last:  # its paths have joined
                steps[branch] = max(steps[child] for child, spec in enumerate(self.table) if spec.parent == branch)
            last = branch
            steps[branch] += token >= prompt_tokens and not forced
        return max(steps)

    def parallelism(self, prompt_tokens: int = 0) -> float:
        """Generated tokens over critical path; 1.0 when nothing forks."""
        critical = self.critical_path(prompt_tokens)
        return (len(self) - prompt_tokens) / critical if critical else 1.0


def ancestry(table: Sequence[BranchSpec], branch: int) -> list[int]:
    """The branch and its ancestors, trunk last."""
    chain = [branch]
    while table[chain[-1]].parent >= 0:
        chain.append(table[chain[-1]].parent)
    return chain


def parting(table: Sequence[BranchSpec], a: int, b: int) -> tuple[int, int] | None:
    """The two paths of one block that contain the two branches and part them; `None` if there is no such block.

    A separator with a branch of its own is parted from the paths that come after it.
    """
    paths = {table[x].block: x for x in ancestry(table, a)}
    for y in ancestry(table, b):
        x = paths.get(table[y].block, y)
        if x != y:
            return None if table[max(x, y)].separator else (x, y)
    return None


def visibility(table: Sequence[BranchSpec], *, trained: bool = False) -> list[list[bool]]:
    """Symmetric table over branches: true unless the two are in different paths of one block.

    Args:
        trained: separators with branches of their own are seen by all paths that come after them, as in training.
    """
    size = len(table)
    apart = [[parting(table, a, b) is not None for b in range(size)] for a in range(size)]
    if not trained:
        return [[not value for value in row] for row in apart]
    # A separator is apart from what its parent is apart from.
    own = [spec.parent if spec.separator else index for index, spec in enumerate(table)]
    return [[not apart[own[a]][own[b]] for b in range(size)] for a in range(size)]


def partings(table: Sequence[BranchSpec], starts: Sequence[int]) -> list[list[int]]:
    """Symmetric table over branches: start position of the sibling paths that contain the two; -1 if there are none.

    Args:
        starts: position of each branch's first token.
    """
    size = len(table)
    pairs = [[parting(table, a, b) for b in range(size)] for a in range(size)]
    return [[-1 if pair is None else starts[pair[0]] for pair in row] for row in pairs]


def check_share_every(share_every: int | None) -> None:
    """Raise `ValueError` unless it is a number of positions, or `None`."""
    if share_every is not None and share_every < 1:
        raise ValueError(f"share_every={share_every!r} is not valid: it must be 1 or more, or None (paths stay apart)")


@dataclass
class _Frame:
    machine: Machine
    branch: int
    next_position: int
    # The open block: its number, where its paths start, how many have begun, highest next position among them.
    block: int = -1
    start: int = 0
    begun: int = 0
    furthest: int = 0
    separator: int = -1  # the branch of the separator behind this path, if it has one


@dataclass
class Replay:
    """Feeds a sequence in document order to the machines of its branches; `layout` replays a whole sequence.

    Attributes:
        table: branches so far.
        positions, branches, forced, writers: per token so far, as in `Layout`.
        mark_forced: find out which tokens are forced; otherwise `forced` is false for all.
        decoded: lay out as parallel decoding computes; otherwise as models are trained. They differ in ``released`` alone.
    """

    tokens: TokenDialect
    mark_forced: bool = True
    decoded: bool = False
    table: list[BranchSpec] = field(default_factory=lambda: [TRUNK])
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    writers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._blocks = 0
        self._stack = [_Frame(Machine(self.tokens), branch=0, next_position=0)]

    @property
    def trunk(self) -> Machine:
        """The trunk's machine."""
        return self._stack[0].machine

    @property
    def at_trunk(self) -> bool:
        """Whether no path is open and the trunk has resumed: the next token belongs to the trunk."""
        return len(self._stack) == 1 and not self.trunk.waiting

    def feed(self, token: int) -> None:
        """Advance by one token.

        Raises:
            StructureError: with the token's index as offset.
        """
        frame = self._turn()
        self.forced.append(self.mark_forced and required_tokens(frame.machine)[:1] == (token,))
        try:
            frame.machine.feed(token)
        except StructureError as error:
            self.forced.pop()
            raise StructureError(error.problem, expected=error.expected, offset=len(self.positions)) from None
        self.positions.append(frame.next_position)
        self.branches.append(self._behind(frame) if frame.machine.beyond else frame.branch)
        self.writers.append(frame.branch)
        frame.next_position += 1

    def _behind(self, frame: _Frame) -> int:
        """The branch of a token behind the end of a path that belongs to its parent."""
        parent = self._stack[-2]
        if not self.decoded:
            return parent.branch
        if frame.separator < 0:
            frame.separator = len(self.table)
            self.table.append(BranchSpec(parent.branch, parent.block, parent.machine.label, separator=True))
        return frame.separator

    def _turn(self) -> _Frame:
        """The frame of the next token: begins the next path or resumes the parent where needed."""
        frame = self._stack[-1]
        if frame.machine.waiting:
            frame.block, frame.begun, frame.furthest = self._blocks, 0, 0
            frame.start = frame.next_position - frame.machine.overlap
            self._blocks += 1
            return self._begin(frame)
        if not frame.machine.ended:
            return frame
        self._stack.pop()
        parent = self._stack[-1]
        parent.furthest = max(parent.furthest, frame.next_position - frame.machine.overlap)
        if parent.begun < len(parent.machine.labels):
            return self._begin(parent)
        parent.next_position = parent.furthest
        parent.machine.resume()
        return parent

    def _begin(self, parent: _Frame) -> _Frame:
        machine = parent.machine.child(parent.begun)
        parent.begun += 1
        self.table.append(BranchSpec(parent.branch, parent.block, machine.label))
        child = _Frame(machine, branch=len(self.table) - 1, next_position=parent.start)
        self._stack.append(child)
        return child

    def layout(self) -> Layout:
        """The layout of the tokens fed so far."""
        table, writers = tuple(self.table), tuple(self.writers)
        return Layout(tuple(self.positions), tuple(self.branches), tuple(self.forced), table, writers)


def layout(token_ids: Sequence[int], tokens: TokenDialect, *, decoded: bool = False) -> Layout:
    """Layout of a token sequence, which need not be a complete document.

    Args:
        decoded: as parallel decoding computes, which in the layout ``released`` is not all that models are trained with.

    Raises:
        StructureError: the sequence breaks the grammar; `offset` is the token's index.
    """
    replay = Replay(tokens, decoded=decoded)
    for token in tokens.structural(token_ids):
        replay.feed(token)
    return replay.layout()
