"""Readers of answers: what each finds in a text, and what it leaves whole."""

from __future__ import annotations

import time

import pytest

from multiverse.answers import boxed, boxed_or_said, named
from multiverse.structure import plain_answer


def whole(found: str | None, text: str) -> str:
    """What is the answer of a text in which a reader has found this."""
    return found if found is not None else plain_answer(text, "text")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 12", "12"),
        ("In all three. **Answer:** 3", "3"),
        ("**Answer: 3**", "3"),
        ("**Final Answer:** 9", "9"),
        ("Final Answer: **7**", "**7**"),
        ("First Answer: 4. No: Answer: 5", "5"),
        ("Answer: The total is \\boxed{12} apples.", "The total is \\boxed{12} apples."),
        ("So \\boxed{5}. Answer: five, as above", "So \\boxed{5}. Answer: five, as above"),
        ("Twelve in all.", "Twelve in all."),
        ("It has no Answer: ", "It has no Answer:"),
        ("Answers: 4, 5", "Answers: 4, 5"),
        ("", ""),
    ],
)
def test_the_word_may_stand_anywhere(text: str, answer: str) -> None:
    assert whole(named(text), text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("There are \\boxed{10} pieces.", "10"),
        ("\\boxed{1}, and then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{a\\}b} and \\boxed{", "a\\}b"),
        ("\\boxed{4} \\boxed{}", "4"),
        ("The sum is 4.", "The sum is 4."),
    ],
)
def test_the_last_box_that_is_closed_and_not_empty(text: str, answer: str) -> None:
    assert whole(boxed(text), text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 \\boxed{8} The answer is 7.", "8"),
        ("The answer is 3.5. So there are 4 left.", "3.5"),
        ("the final answer is: **$7$**.", "7"),
        ("The answer is (C).", "(C)"),
        ("First the answer is 1. Then the answer must be\n2", "2"),
        ("It weighs 9-1=8", "8"),
        ("It is -3.5 degrees.", "-3.5"),
        ("Of 12 there are 1,234,567 left.", "1234567"),
        ("It's 1, 2, 3", "3"),
        ("No number at all.", "No number at all."),
    ],
)
def test_a_box_then_a_phrase_then_a_number(text: str, answer: str) -> None:
    assert whole(boxed_or_said(text), text) == answer


def test_plain_takes_the_word_off_the_beginning_alone() -> None:
    assert plain_answer(" Answer: 4 (Answer: four) ", "text") == "4 (Answer: four)"


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 30_000, "answer is " * 30_000, "Answer: " * 30_000, "**" * 60_000, "1," * 60_000]
)
def test_a_text_that_repeats_itself_costs_no_more_than_its_length(text: str) -> None:
    began = time.perf_counter()
    for read in (named, boxed, boxed_or_said):
        read(text)
    assert time.perf_counter() - began < 5
