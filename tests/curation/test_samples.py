"""The published documents as sequential traces: their structure is recovered from the numbers of their sentences."""

from __future__ import annotations

import asyncio

import pytest

from multiverse.curation.checks import check_grammar
from multiverse.curation.config import CurationConfig
from multiverse.curation.curator import curate
from multiverse.curation.types import Completion, Curated, Outcome, Request
from multiverse.structure import MULTIVERSE

from .annotator import SAMPLES, Planted, answer, planted_samples, recovered, whole

pytestmark = pytest.mark.skipif(not SAMPLES, reason="the published documents are not here")


def curated(planted: Planted, config: CurationConfig) -> Outcome:
    async def ask(request: Request) -> Completion:
        return Completion(answer(request.stage, request.messages, planted))

    return asyncio.run(curate(planted.trace, ask, config))


@pytest.mark.parametrize("planted", planted_samples(), ids=lambda planted: planted.trace.id)
def test_structure_is_recovered(planted: Planted) -> None:
    outcome = curated(planted, CurationConfig(rewrite=False))
    assert isinstance(outcome, Curated)
    assert recovered(outcome.refilled, planted)
    shape = [(depth, len(block.paths)) for depth, block in planted.document.blocks()]
    assert [(depth, len(block.paths)) for depth, block in outcome.refilled.blocks()] == shape
    check_grammar(outcome.refilled, MULTIVERSE)
    assert whole(outcome.refilled, planted.trace)
    assert outcome.distances["refilled"] == 0


def test_published_paths_pass_most_rules_of_rewriting() -> None:
    """Given back as they are, they fall short only of the connectives, which a few of them still open with."""
    notes = []
    for planted in planted_samples():
        outcome = curated(planted, CurationConfig())
        assert isinstance(outcome, Curated)
        notes += [note for note in outcome.notes if "kept its refilled text" in note]
    branches = sum(planted.document.branches for planted in planted_samples())
    assert all("forbidden connective" in note for note in notes)
    assert len(notes) < 0.1 * branches
