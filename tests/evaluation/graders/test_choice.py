"""Multiple choice: letters, boxes, sentences, words; and nothing where nothing, or more than one thing, is said."""

from __future__ import annotations

import pytest

from multiverse.evaluation.graders.choice import grade_choice, named

POWERS = ("10^-4 eV", "10^-9 eV", "10^-8 eV", "10^-11 eV")
COLOURS = ("red", "dark red", "blue", "green blue")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("c", "C"),
        ("(B)", "B"),
        ("**C**", "C"),
        ("The answer is (C)", "C"),
        ("the answer is C.", "C"),
        ("Answer: D", "D"),
        ("**Answer: B**", "B"),
        ("Answer: $B$", "B"),
        ("The answer is: \\(\\text{A}\\)", "A"),
        ("The correct choice is **(D)**", "D"),
        ("The correct option is B because A is wrong.", "B"),
        ("Answer is not A. Final answer: B", "B"),
        ("First I thought the answer is A. No: the answer is D.", "D"),
        ("so \\boxed{C}", "C"),
        ("\\boxed{A} no, \\boxed{\\text{C}}", "C"),
        ("\\boxed{(C)}", "C"),
        ("\\boxed{C) 10^-8 eV}", "C"),
        ("\\boxed{10^-8 eV}", "C"),
        ("I think it is 10^-9 eV.", "B"),
        ("The third option.", "C"),
        ("option two", "B"),
        ("Option 2 is right.", "B"),
        ("C) because it is small", "C"),
        ("It is small, so:\n\nB", "B"),
    ],
)
def test_named(answer: str, letter: str) -> None:
    assert named(answer, POWERS) == letter


@pytest.mark.parametrize(
    "answer",
    [
        *("", "no idea", "E", "A or B", "the answer is A or B", "The answer is A, B", "A cat sat.", "The answer is a cat."),
        *("10^-9 eV or 10^-8 eV", "I'm sure.", "\\boxed{}", "\\boxed{5}", "option 9"),
    ],
)
def test_nothing_is_named(answer: str) -> None:
    assert named(answer, POWERS) is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("red", "A"), ("It is dark red.", "B"), ("Blue!", "C"), ("So it is green blue.", "D"), ("teal", None)],
)
def test_words_within_words(answer: str, letter: str | None) -> None:
    assert named(answer, COLOURS) == letter


def test_verdict() -> None:
    assert grade_choice("C", "The answer is (C).", POWERS) == (True, "C", "")
    assert grade_choice("C", "The answer is (B).", POWERS) == (False, "B", "")
    wrong = grade_choice("C", "who knows", POWERS)
    assert (wrong.right, wrong.answer) == (False, "who knows")
    assert "no single choice" in wrong.why
