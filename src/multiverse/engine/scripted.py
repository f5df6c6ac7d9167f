"""A sampler that generates a given document, whatever the model's logits are.

Logits are computed and log-probabilities reported as usual; only the choice of tokens is scripted. So fork and join work with
any weights, to compare the engine with a dense forward and to time it on real shapes with random weights.
"""

from __future__ import annotations

from torch import Tensor

from ..structure import Document, TokenDialect, encode
from .branch import Branch
from .sampler import Row, Sampler, dictate

Path = tuple[int, ...]


class Script:
    """The tokens of each branch of one document, keyed by the branch's path of (block, child) steps."""

    def __init__(self, document: Document, tokens: TokenDialect, end: int | None = None) -> None:
        """Read the script from a document.

        Args:
            end: end-of-text token that closes the trunk.
        """
        encoded = encode(document, tokens)
        self.by_path: dict[Path, list[int]] = {}
        paths: dict[int, Path] = {0: ()}
        blocks: dict[int, dict[int, int]] = {}
        for index, branch in enumerate(encoded.layout.table):
            if branch.parent >= 0:
                numbers = blocks.setdefault(branch.parent, {})
                number = numbers.setdefault(branch.block, len(numbers))
                child = int(branch.label.rpartition(".")[2]) - 1
                paths[index] = (*paths[branch.parent], number, child)
        for token, index in zip(encoded.token_ids, encoded.layout.writers, strict=True):
            self.by_path.setdefault(paths[index], []).append(token)
        if end is not None:
            self.by_path.setdefault((), []).append(end)

    def next(self, branch: Branch) -> int:
        """The next token of the branch."""
        return self.by_path[branch.path][len(branch.token_ids)]


class ScriptedSampler(Sampler):
    """Samples as usual, except for requests that have a script, until the engine force-closes them.

    Attributes:
        scripts: script of each request id.
    """

    def __init__(self) -> None:
        self.scripts: dict[int, Script] = {}

    def choose(self, logits_BV: Tensor, rows: list[Row]) -> Tensor:
        """A token per row, from its script where it has one."""
        written = {
            index: script.next(branch)
            for index, (request, branch) in enumerate(rows)
            if (script := self.scripts.get(request.id)) is not None and not (request.limits.met or branch.closing)
        }
        return dictate(super().choose(logits_BV, rows), written)
