"""The tokens of branches in order: as the document has them, and as the branches read them. Torch-free.

A stretch is a branch with its first and last token. In the document these are counted among the tokens that the branch has
generated; where it reads paths again (joins by text and message), among those that it computes.
"""

from __future__ import annotations

from collections.abc import Iterator

from .branch import Branch

Stretch = tuple[Branch, int, int]


def stretches(branch: Branch) -> Iterator[Stretch]:
    """What the branch and its descendants have generated, in document order."""
    start = 0
    for end, children in [*branch.blocks, (len(branch.token_ids), [])]:
        yield branch, start, end
        for child in children:
            yield from stretches(child)
            if child.behind is not None:
                yield child.behind, 0, len(child.behind.token_ids)
        start = end


def lines(branch: Branch, keeps_first: bool) -> Iterator[Stretch]:
    """What the branch and those that it sees compute, with a join by text or message: each token before those that see it.

    Args:
        keeps_first: whether a parent goes on from its first path (a join by text).
    """
    at = start = 0
    for number, (end, children) in enumerate(branch.blocks):
        yield branch, at, at + end - start
        at, start = at + end - start, end
        joined = number < len(branch.reread)
        for child in children[: int(keeps_first)] if joined else children:
            yield from lines(child, keeps_first)
        if joined:
            count = len(branch.reread[number])
            yield branch, at, at + count
            at += count
    yield branch, at, at + len(branch.token_ids) - start


def context(branch: Branch, keeps_first: bool) -> list[int]:
    """The tokens that a branch has read from its own beginning, in a line, with a join by text or message."""
    token_ids: list[int] = []
    start = 0
    for (end, children), reread in zip(branch.blocks, branch.reread, strict=False):
        token_ids += branch.token_ids[start:end]
        token_ids += context(children[0], keeps_first) if keeps_first else []
        token_ids += reread
        start = end
    return token_ids + branch.token_ids[start:]


def below(branch: Branch) -> Iterator[Branch]:
    """The branch and its descendants."""
    yield branch
    for _, children in branch.blocks:
        for child in children:
            yield from below(child)
