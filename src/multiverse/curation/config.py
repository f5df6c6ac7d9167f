"""What a user can set about curation itself; what concerns the endpoint is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from ..structure import DIALECTS, Dialect


@dataclass(frozen=True)
class CurationConfig:
    """How a trace is turned into a document.

    Attributes:
        attempts: how often a stage may ask, the first time included.
        refilled_distance: largest normalised edit distance to the trace once its sentences are put back.
        final_distance: the same after rewriting, for every path on its own and for the whole. Texts that have nothing
            to do with each other lie at about 0.75, so anything above that would bound nothing.
        judge: whether the model is also asked if paths depend on each other.
        rewrite: whether paths are rewritten to stand alone; without, goals are those of the outline and conclusions
            repeat the last sentence of each path.
        dialect: name of the dialect of the documents.
        depth: how deep blocks may nest.
        max_tokens: longest answer of the model, in its tokens.
        max_answer: longest answer that is read, in characters.
        quoted: how much of a faulty answer is shown to the model when it is asked again, in characters.
        phrase: what a text says last before a block; empty for nothing.
    """

    attempts: int = 3
    refilled_distance: float = 0.2
    final_distance: float = 0.7
    judge: bool = False
    rewrite: bool = True
    dialect: str = "multiverse"
    depth: int = 3
    max_tokens: int = 4096
    max_answer: int = 100_000
    quoted: int = 2000
    phrase: str = "Let's think in parallel."

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise ValueError(f"dialect {self.dialect!r} is not known: choose one of {', '.join(DIALECTS)}")
        for name in ("attempts", "depth", "max_tokens", "max_answer", "quoted"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not valid: it must be at least 1")
        for name in ("refilled_distance", "final_distance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not valid: it must lie between 0 and 1")

    @property
    def tags(self) -> Dialect:
        """The dialect itself."""
        return DIALECTS[self.dialect]
