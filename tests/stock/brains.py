"""Models of the loopback server: one that writes a given document, and one that is a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiverse.structure import Document, Layout, TokenDialect, encode, layout
from tests.stock.loopback import Score


def contexts(ids: Sequence[int], where: Layout) -> list[list[int]]:
    """What is read in a text join: the whole document in one line, and for each path what comes before its block and itself."""
    owners, table = where.branches, where.table
    found = [list(ids)]
    for index, spec in enumerate(table):
        if spec.parent < 0:
            continue
        inside = {index}
        inside.update(other for other, one in enumerate(table) if _within(table, other, index))
        first = owners.index(index)
        block = next(i for i, owner in enumerate(owners) if table[owner].block == spec.block)
        own = [token for token, owner in zip(ids, owners, strict=True) if owner in inside]
        assert ids[first] == own[0]
        found.append([*before(ids[:block], owners, table, index), *own])
    return found


def before(ids: Sequence[int], owners: Sequence[int], table: Any, index: int) -> list[int]:
    """The tokens before a path's block that it reads: none of other paths of the blocks that it lies in."""
    chain = [index]
    while table[chain[-1]].parent >= 0:
        chain.append(table[chain[-1]].parent)
    blocks = {table[one].block: one for one in chain if one}
    kept = []
    for token, owner in zip(ids, owners, strict=False):
        line = [owner]
        while table[line[-1]].parent >= 0:
            line.append(table[line[-1]].parent)
        if all(table[one].block not in blocks or blocks[table[one].block] == one for one in line):
            kept.append(token)
    return kept


def _within(table: Any, branch: int, ancestor: int) -> bool:
    while branch >= 0:
        if branch == ancestor:
            return True
        branch = table[branch].parent
    return False


class Scripted:
    """Writes one document, whoever asks at whichever place of it, and then the end of the text.

    Args:
        written: the document, or its tokens.
        more: scores of tokens that are less likely, everywhere.
        prompt: tokens of the prompt.

    Attributes:
        lost: contexts that were none of the document.
    """

    def __init__(
        self,
        written: Document | Sequence[int],
        tokens: TokenDialect,
        end: int,
        more: Score | None = None,
        prompt: int = 0,
    ) -> None:
        ids, where = encode(written, tokens) if isinstance(written, Document) else (written, layout(written, tokens))
        self.lines = [*contexts(ids, where)]
        self.lines[0].append(end)
        self.more, self.end = dict(more or {}), end
        self.prompt = prompt
        self.lost: list[list[int]] = []

    def __call__(self, context: Sequence[int]) -> Score:
        own = list(context[self.prompt :])
        for line in self.lines:
            if line[: len(own)] == own and len(line) > len(own):
                return {**self.more, line[len(own)]: 10.0}
        self.lost.append(own)
        return {**self.more, self.end: 5.0}


class Network:
    """A transformers model, read in one line: logits of all tokens."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def __call__(self, context: Sequence[int]) -> Score:
        import torch

        with torch.inference_mode():
            logits = self.model(torch.tensor([list(context)]), use_cache=False).logits[0, -1].float()
        return dict(enumerate(torch.log_softmax(logits, -1).tolist()))
