"""A sampler that writes a given document, whatever the model thinks of it.

Logits are computed and log-probabilities reported as always; only the choice is scripted. This makes fork and join work on any
weights, so that the engine can be proved (against a dense forward) and timed (on real shapes with random weights).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..structure import Document, TokenDialect, encode
from .request import Branch, Request
from .sampler import Choice, Sampler

Path = tuple[int, ...]


class Script:
    """The tokens that each branch of one document is to write, keyed by the branch's path of (block, child) steps."""

    def __init__(self, document: Document, tokens: TokenDialect, end: int | None = None) -> None:
        """Take the script from a document; `end` is an end-of-text token to close with."""
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
        for token, index in zip(encoded.token_ids, encoded.layout.branches, strict=True):
            self.by_path.setdefault(paths[index], []).append(token)
        if end is not None:
            self.by_path.setdefault((), []).append(end)

    def next(self, branch: Branch) -> int:
        """The token that the branch writes next."""
        return self.by_path[branch.path][len(branch.token_ids)]


class ScriptedSampler(Sampler):
    """Samples as usual, except for requests that have a script.

    Attributes:
        scripts: script of each request id.
    """

    def __init__(self) -> None:
        self.scripts: dict[int, Script] = {}

    def sample(self, logits_BV: Tensor, rows: list[tuple[Request, Branch]]) -> Choice:
        """Choose a token per row, from its script where it has one."""
        choice = super().sample(logits_BV, rows)
        tokens = list(choice.tokens)
        for index, (request, branch) in enumerate(rows):
            script = self.scripts.get(request.id)
            if script is not None:
                tokens[index] = script.next(branch)
        logprobs = self.logprobs(logits_BV, torch.tensor(tokens, device=logits_BV.device), rows)
        return Choice(tokens, logprobs)
