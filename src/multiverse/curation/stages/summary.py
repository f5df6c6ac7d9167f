"""Stage 1, summary: steps and sub-steps that cover every sentence."""

from __future__ import annotations

from typing import Any

from ..completions import check_cover, fields, items, sentence_text, span
from ..outline import Step, Substep
from ..prompting import numbered
from .base import Stage


class Summary(Stage[tuple[Step, ...]]):
    """A trace as a tree of two levels."""

    name = "summary"
    field = "steps"

    def inputs(self) -> dict[str, Any]:
        return {"sentences": numbered(self.trace.sentences)}

    def read(self, value: Any) -> tuple[Step, ...]:
        last = len(self.trace.sentences)
        steps, spans = [], []
        for number, step in enumerate(items(value, "'steps'"), 1):
            summary, below = fields(step, f"step {number}", "summary", "substeps")
            substeps = []
            for sub, substep in enumerate(items(below, f"the substeps of step {number}"), 1):
                what = f"step {number}.{sub}"
                text, pair = fields(substep, what, "summary", "sentences")
                substeps.append(Substep(sentence_text(text, f"the summary of {what}"), span(pair, what, last)))
                spans.append((what, substeps[-1].span))
            # A step without sub-steps covers nothing, so `check_cover` below reports it.
            if substeps:
                steps.append(Step(sentence_text(summary, f"the summary of step {number}"), tuple(substeps)))
        check_cover(spans, last)
        return tuple(steps)
