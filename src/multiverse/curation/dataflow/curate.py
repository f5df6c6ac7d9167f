"""One solution to its outcome: arithmetic, graph, blocks, document, checks."""

from __future__ import annotations

from ...structure import Document
from ..config import DataflowConfig
from ..errors import ValidationError
from ..types import Ask, Curated, Outcome, Rejected, Trace
from .blocks import Series, forks
from .document import make_document
from .graph import Graph, build
from .solution import Solution, statements
from .verify import verify

STAGE = "data flow"
SEQUENTIAL = "nothing parallel"
"""Reason of solutions that hold no block, where these are not kept."""


class Ordered:
    """A solution with the order of its statements and its document.

    Attributes:
        graph: its statements and what they need.
        series: their order.
        document: the document.
    """

    def __init__(self, solution: Solution, config: DataflowConfig) -> None:
        steps = statements(solution)
        self.graph: Graph = build(solution.question, steps)
        self.series: Series = self.graph.series(config.min_gain)
        needs = self.graph.plausible_needs
        self.document: Document = make_document(solution, self.graph, self.series, needs, config.tags, config.phrase)
        verify(solution, steps, self.series, needs, self.document)

    @property
    def forked(self) -> bool:
        """Whether there is a block."""
        return bool(forks(self.series))


class DataflowCurator:
    """The `curate` of `Job.start`: rows are solutions, and no model is asked."""

    def __init__(self, config: DataflowConfig) -> None:
        self.config = config

    async def curate(self, trace: Trace, ask: Ask) -> Outcome:  # noqa: ARG002
        """The outcome of a solution."""
        assert isinstance(trace, Solution)
        try:
            found = Ordered(trace, self.config)
            if not found.forked and not self.config.keep_sequential:
                raise ValidationError(SEQUENTIAL, "every statement needs the one before it")
        except ValidationError as error:
            return Rejected(trace, STAGE, error.reason, error.detail)
        return Curated(trace, found.document, found.document, {})
