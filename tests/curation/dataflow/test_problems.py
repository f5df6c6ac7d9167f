"""Whole solutions: the structure that each has, and the traps."""

from __future__ import annotations

import pytest

from multiverse.curation.config import DataflowConfig
from multiverse.curation.dataflow.curate import Ordered
from multiverse.curation.errors import ValidationError
from multiverse.structure import DIALECTS, Document, parse, render
from tests.curation.dataflow.problems import CASES, solved

ORDERED = [name for name, case in CASES.items() if not isinstance(case.wanted, str)]
REJECTED = [name for name in CASES if name not in ORDERED]


@pytest.mark.parametrize("name", ORDERED)
def test_structure(name: str) -> None:
    case = CASES[name]
    assert Ordered(solved(case), DataflowConfig()).series == case.wanted


@pytest.mark.parametrize("name", REJECTED)
def test_rejected(name: str) -> None:
    case = CASES[name]
    with pytest.raises(ValidationError) as failed:
        Ordered(solved(case), DataflowConfig())
    assert failed.value.reason == case.wanted


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("name", ORDERED)
def test_documents_in_every_dialect(name: str, dialect: str) -> None:
    config = DataflowConfig(dialect=dialect)  # type: ignore[arg-type]
    solution = solved(CASES[name])
    document = Ordered(solution, config).document
    assert parse(render(document, config.tags), config.tags) == document
    assert render(document, config.tags).endswith(solution.answer)


def document_of(name: str, **options: object) -> Document:
    return Ordered(solved(CASES[name]), DataflowConfig(**options)).document  # type: ignore[arg-type]


def test_a_document() -> None:
    assert render(document_of("two chains")) == (
        "<Think>\n"
        "Let's think in parallel.\n"
        "<Parallel>\n"
        "<Goal>\n"
        "<Outline>\n1: Rosa bakes rolls\n</Outline>\n"
        "<Outline>\n2: After burning some, buns are good\n</Outline>\n"
        "</Goal>\n"
        "<Path>\n1: Rosa bakes 4*12 = 48 rolls.\n</Path>\n"
        "<Path>\n2: Her brother bakes 3*15 = 45 buns.\nAfter burning some, 45-5 = 40 buns are good.\n</Path>\n"
        "<Conclusion>\nTogether there are 48+40 = 88 good pieces.\n</Conclusion>\n"
        "</Parallel>\n"
        "</Think>\n\n"
        "Answer: 88"
    )


def test_small_blocks_can_be_left_out() -> None:
    assert list(document_of("two chains", min_gain=5).blocks())
    assert not list(document_of("two chains", min_gain=6).blocks())  # the shorter path has six words
