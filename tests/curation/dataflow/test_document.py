"""Outlines, conclusions and texts of paths."""

from __future__ import annotations

from fractions import Fraction

import pytest

from multiverse.curation.config import DataflowConfig
from multiverse.curation.dataflow.curate import Ordered
from multiverse.curation.dataflow.outlines import LONGEST_OUTLINE, outline, result_text, weak
from multiverse.curation.dataflow.solution import Solution, Statement, solution_of, statements
from multiverse.structure import Block, Document


def solution(text: str, question: str, answer: int) -> Solution:
    found = solution_of({"question": question, "answer": f"{text}\n#### {answer}"}, "x", 1)
    assert isinstance(found, Solution), found
    return found


def step(text: str) -> Statement:
    (found,) = statements(solution(text, "How many?", 1))
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Nora sold 48/2 = <<48/2=24>>24 clips in May.", "Nora sold clips in May"),
        ("The cost of the mangoes is 3*4 = $<<3*4=12>>12.", "The cost of the mangoes"),
        ("The length of the garden is 50/2 = <<50/2=25>>25 feet", "The length of the garden"),
        ("Then find the number of rings: 2 rings + 4 rings = <<2+4=6>>6 rings", "Find the number of rings"),
        ("Shelby = 1/2 * 60 = $<<1/2*60=30>>30", "Shelby"),
        ("The tank has 10 gallons in it because 20 x .5 = <<20*.5=10>>10", "The tank has gallons in it"),
        (
            "If a floor has 12 units, the 21 floors of the house have 12*21 = <<12*21=252>>252 units",
            "The 21 floors of the house have units",
        ),
        ("There are 9 tables * 10 chairs = <<9*10=90>>90 chairs.", "9 tables * 10 chairs"),
        ("Then add that to the rest to find the distance it flew: 6 + 18 = <<6+18=24>>24 feet", "Find the distance it flew"),
        ("The third group asked 7 * 2 + 6 = 14 + 6 = <<7*2+6=20>>20 questions.", "The third group asked questions"),
        ("He will sell each apple at $10/5 = $<<10/5=2>>2 each.", "He will sell each apple"),
        (
            "If there are 3 fish, and each has ten balls, then the number of balls is 3*10 = <<3*10=30>>30",
            "The number of balls",
        ),
        ("That means that each haircut costs 45+9 = $<<45+9=54>>54.", "Each haircut costs"),
        ("The storm drops half of that inch so 5/2 = <<5/2=2.5>>2.5 inches", "The storm drops half of that inch"),
        ("Half of them have red hats, so 28/2 = <<28/2=14>>14 gnomes have red hats.", "Half of them have red hats"),
        ("There are 6 blue hats, so there are 14 - 6 = <<14-6=8>>8 red hats.", "There are 6 blue hats"),
        ("It takes ten tickets to win, or 10*100 = <<10*100=1000>>1000 points.", "It takes ten tickets to win"),
        ("In the house there are 1+1 = <<1+1=2>>2 people in bed (Tom and Mia).", "In the house there are people in bed"),
        ("If you answer all, the possible marks are 50*2 = <<50*2=100>>100 marks.", "The possible marks"),
        ("13 + 5 = <<13+5=18>>18 cars went in at lunchtime.", "Cars went in at lunchtime"),
    ],
)
def test_outlines(text: str, wanted: str) -> None:
    made = step(text)
    assert outline(made.text, made, {equation.value for equation in made.equations}) == wanted


def test_an_outline_is_short_and_tells_no_result() -> None:
    made = step("She " + "walks and " * 12 + "pays 3*4 = $<<3*4=12>>12 for it.")
    found = outline(made.text, made, {Fraction(12)})
    assert len(found.split()) <= LONGEST_OUTLINE
    assert "12" not in found


def test_weak_outlines() -> None:
    assert [
        weak(text) for text in ("He gets hours", "Add that to the rest", "There are eggs", "Malik", "The eggs of the farm")
    ] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_result_text() -> None:
    assert result_text(step("It is 3*4 = $<<3*4=12>>12.")) == "$12"
    assert result_text(step("It is 12/60*100 = <<12/60*100=20>>20%.")) == "20%"
    assert result_text(step("It is 3-4 = <<3-4=-1>>-1 degree.")) == "-1"


def document(text: str, question: str, answer: int) -> Document:
    return Ordered(solution(text, question, answer), DataflowConfig(phrase="")).document


def only_block(found: Document) -> Block:
    ((_, block),) = found.blocks()
    return block


def test_the_joining_step_is_the_conclusion() -> None:
    found = document(
        "Tom has 2*7 = <<2*7=14>>14 eggs.\nBen has 3*8 = <<3*8=24>>24 eggs.\nThey have 14+24 = <<14+24=38>>38.\n"
        "Half of them are 38/2 = <<38/2=19>>19.",
        "How many?",
        19,
    )
    assert only_block(found).conclusion == "They have 14+24 = 38."
    assert found.thinking is not None
    assert found.thinking[1:] == ("Half of them are 38/2 = 19.",)


def test_without_a_joining_step_the_results_are_summed_up() -> None:
    # Two forks in a row: nothing stands between them that could join the paths of the first.
    found = document(
        "Find the area of the floor: 7*7 = <<7*7=49>>49 tiles.\n"
        "Find the width of the hall: 77-8 = <<77-8=69>>69 tiles.\n"
        "Find the area of the hall: 69*69 = <<69*69=4761>>4761 tiles.\n"
        "Find the length of the yard: 69-10 = <<69-10=59>>59 tiles.\n"
        "All of this is 49+4761+59 = <<49+4761+59=4869>>4869 tiles.",
        "A floor is 7 by 7, a hall 77 less 8 and a yard 10 shorter. How many tiles are needed?",
        4869,
    )
    first, second = (block for _, block in found.blocks())
    assert first.conclusion == "The area of the floor: 49; the width of the hall: 69."
    assert second.conclusion == "All of this is 49+4761+59 = 4869 tiles."


def test_two_outlines_are_never_the_same() -> None:
    found = document(
        "She has 2*7 = <<2*7=14>>14 eggs.\nShe has 3*8 = <<3*8=24>>24 eggs.\nIn all, 14+24 = <<14+24=38>>38 eggs.", "Eggs?", 38
    )
    assert only_block(found).outlines == ("She has eggs (2*7)", "She has eggs (3*8)")


def test_names_stand_in_for_pronouns_that_lost_them() -> None:
    found = document(
        "Tom has 2*7 = <<2*7=14>>14 eggs.\nHe also buys 3*8 = <<3*8=24>>24 eggs.\nBen has 14+24 = <<14+24=38>>38 eggs.",
        "How many eggs has Ben? He has as many as Tom.",
        38,
    )
    assert only_block(found).paths == (("Tom has 2*7 = 14 eggs.",), ("Tom buys 3*8 = 24 eggs.",))
