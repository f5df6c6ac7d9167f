"""Checks of finished documents refuse what is wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest

from multiverse.curation.config import DataflowConfig
from multiverse.curation.dataflow.blocks import Fork, Series
from multiverse.curation.dataflow.curate import Ordered
from multiverse.curation.dataflow.verify import check_numbers, verify
from multiverse.curation.errors import ValidationError
from multiverse.structure import Block
from tests.curation.dataflow.problems import CASES, solved


def reason(series: Series) -> str:
    """Why another order of "two chains" is refused."""
    solution = solved(CASES["two chains"])
    right = Ordered(solution, DataflowConfig())
    verify(solution, tuple(right.graph.statements), right.series, right.graph.plausible_needs, right.document)
    with pytest.raises(ValidationError) as failed:
        verify(solution, tuple(right.graph.statements), series, right.graph.plausible_needs, right.document)
    return failed.value.reason


def test_a_path_that_needs_its_sibling() -> None:
    assert reason((Fork(((0,), (1,), (2,))), 3)) == "not independent"


def test_a_step_before_what_it_needs() -> None:
    assert reason((0, 2, 1, 3)) == "not independent"


def test_a_lost_statement() -> None:
    assert reason((0, 1)) == "lost statements"


def test_a_statement_that_stands_twice() -> None:
    assert reason((Fork(((0,), (1, 2))), 1, 3)) == "lost statements"


def block(second: str) -> tuple[str | Block, ...]:
    return ("There are 60 eggs.", Block(("a", "b"), (("Tom has 60/4 = 15.",), (second,)), "All have 15+20 = 35."))


def test_a_siblings_result_in_the_text() -> None:
    check_numbers(block("Ben has 60/3 = 20."), {Fraction(4), Fraction(3)})
    with pytest.raises(ValidationError, match="15, a result of a path beside it"):
        check_numbers(block("Ben has 15+5 = 20."), {Fraction(4), Fraction(3)})


@pytest.mark.parametrize(("number", "right"), [("20", True), ("15", False)])
def test_a_siblings_result_in_the_conclusion_of_a_nested_block(number: str, right: bool) -> None:
    inner = Block(("c", "d"), (("She takes 12.",), ("She takes 8.",)), f"She has {number} in all.")
    body = (Block(("a", "b"), (("Tom has 60/4 = 15.",), (inner,)), "Done."),)
    known = {Fraction(value) for value in (60, 4, 12, 8)}
    if right:
        check_numbers(body, known)
    else:
        with pytest.raises(ValidationError, match="15, a result of a path beside it"):
            check_numbers(body, known)


def test_a_conclusions_result_is_not_known_beside_its_path() -> None:
    inner = Block(("c", "d"), (("She takes 12.",), ("She takes 8.",)), "She has 12+8 = 20.")
    body = (Block(("a", "b"), ((inner,), ("Ben needs 20.",)), "Done."),)
    with pytest.raises(ValidationError, match="20, a result of a path beside it"):
        check_numbers(body, {Fraction(12), Fraction(8)})


def test_a_number_of_the_question_may_be_a_siblings_result() -> None:
    check_numbers(block("Ben has 15+5 = 20."), {Fraction(15)})
