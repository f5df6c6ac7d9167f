"""Estimate of calls and tokens before a run, from the lengths of the traces at four characters a token.

How a trace will fork is not known beforehand, so a typical document is assumed. Hard limits are those of `budget`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import CurationConfig
from .prompting import PROMPTS
from .types import Trace, Usage

_CHARACTERS = 4  # a token
_SENTENCES = 12  # a path
_WIDTH = 3  # paths of a block
_NUMBERS = 2  # tokens of a sentence's number in a prompt


@dataclass
class CostEstimate:
    """Calls and tokens by stage, over all traces that were added."""

    config: CurationConfig
    rows: int = 0
    stages: dict[str, Usage] = field(default_factory=dict)
    _prompts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._prompts = {path.stem: path.stat().st_size // _CHARACTERS for path in PROMPTS.glob("*.md")}

    def add(self, trace: Trace) -> None:
        """Add one trace."""
        self.rows += 1
        own = sum(map(len, trace.sentences)) // _CHARACTERS
        question, sentences = len(trace.question) // _CHARACTERS, len(trace.sentences)
        listed = own + _NUMBERS * sentences
        summary = own // 3 + 20
        paths = max(2, sentences // _SENTENCES)
        blocks = max(1, paths // _WIDTH)
        self._stage("summary", 1, question + listed, summary)
        self._stage("groups", 1, question + summary + listed, 60 * blocks)
        self._stage("outline", 1, question + summary, 20 * paths)
        self._stage("refill", 1, question + listed + 20 * paths, 10 * (paths + blocks))
        if self.config.rewrite:
            # The prompt of a path has the text before it, the path and its pieces.
            self._stage("rewrite", paths, paths * (question + own // 8) + 2 * own, own)
            self._stage("conclude", blocks, blocks * question + own, 20 * paths + 60 * blocks)
        if self.config.judge:
            self._stage("judge", blocks, blocks * (question + own // 8) + own, 30 * blocks)

    @property
    def usage(self) -> Usage:
        """All stages together."""
        total = Usage()
        for stage in self.stages.values():
            total = total.add(stage)
        return total

    def _stage(self, name: str, calls: int, prompt: int, completion: int) -> None:
        usage = Usage(calls, prompt + calls * self._prompts.get(name, 0), completion)
        self.stages[name] = self.stages.get(name, Usage()).add(usage)
