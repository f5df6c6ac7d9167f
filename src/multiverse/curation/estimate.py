"""What a run will take, before it begins: from the lengths of the traces, at four characters a token.

Nothing is known yet of how a trace will fork, so a typical document is assumed. It is a number to decide by, not a bound;
bounds are the budget's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import CurationConfig
from .prompting import PROMPTS
from .store import Usage
from .types import Trace

_CHARACTERS = 4
_PATH = 12
"""Sentences of a typical path."""

_WIDTH = 3
"""Paths of a typical block."""

_NUMBERS = 2
"""Tokens that the number of a sentence takes in a prompt."""


@dataclass
class Estimate:
    """Calls and tokens by stage, over all traces that were added."""

    settings: CurationConfig
    rows: int = 0
    stages: dict[str, Usage] = field(default_factory=dict)
    _prompts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._prompts = {path.stem: path.stat().st_size // _CHARACTERS for path in PROMPTS.glob("*.md")}

    def add(self, trace: Trace) -> None:
        """Count one trace more."""
        self.rows += 1
        own = sum(map(len, trace.sentences)) // _CHARACTERS
        asked, sentences = len(trace.question) // _CHARACTERS, len(trace.sentences)
        listed = own + _NUMBERS * sentences
        told = own // 3 + 20  # a summary
        paths = max(2, sentences // _PATH)
        blocks = max(1, paths // _WIDTH)
        self._stage("summary", 1, asked + listed, told)
        self._stage("groups", 1, asked + told + listed, 60 * blocks)
        self._stage("outline", 1, asked + told, 20 * paths)
        self._stage("refill", 1, asked + listed + 20 * paths, 10 * (paths + blocks))
        if self.settings.rewrite:
            # Each path is shown what comes before it, itself, and its pieces.
            self._stage("rewrite", paths, paths * (asked + own // 8) + 2 * own, own)
            self._stage("conclude", blocks, blocks * asked + own, 20 * paths + 60 * blocks)
        if self.settings.judge:
            self._stage("judge", blocks, blocks * (asked + own // 8) + own, 30 * blocks)

    @property
    def usage(self) -> Usage:
        """All stages together."""
        return Usage(*(sum(values) for values in zip(*self.stages.values(), strict=True))) if self.stages else Usage()

    def _stage(self, name: str, calls: int, prompt: int, completion: int) -> None:
        had = self.stages.get(name, Usage())
        prompt += calls * self._prompts.get(name, 0)
        self.stages[name] = Usage(had.calls + calls, had.prompt_tokens + prompt, had.completion_tokens + completion)
