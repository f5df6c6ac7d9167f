"""Where the final answer of a text stands."""

from __future__ import annotations

import time

import pytest

from multiverse.evaluation.graders.equivalence import candidates, equivalent, last_box


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so <boxed{70}\).</answer>", "70"),
        ("first 3, then 7", "7"),
        ("The answer is 7.", "7"),
        ("**Answer:** 12", "12"),
        ("#### 1,234", "1234"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "1/2"),
        ("Thus x = 5, so the total is 12.", "12"),
        ("<answer>70</answer>", "70"),
        ("\\[\n\\boxed{42}\n\\]", "42"),
        ("\\\\boxed{42}", "42"),
        ("The answer is $x = 3$.", "3"),
        ("so $1$ and $-2$ are the answers: $1, -2$", "1,-2"),
        ("Answer: $1$ and $-2$", "-2,1"),
        ("The answer is 42 apples because 6*7=42", "42"),
        ("\\boxed{\\text{The answer is } 42}", "42"),
        ("\\boxed 5", "5"),
        ("**42**", "42"),
        ("The answer is **42**.", "42"),
        ("3 + 4 = 7", "7"),
        ("Therefore 12/4 = 3.", "3"),
        ("The answer is Evelyn.", "Evelyn"),
        ("the answer is (C)", "\\text{(C)}"),
        ("\\boxed{70\\)}", "70"),
        ("$\\boxed{\\$32,348}$", "\\$32,\\!348"),
        ("\\boxed{42}\\text{ cm}", "42"),
        ("My answer is 3.5.", "3.5"),
        ("answer: 1/2", "0.5"),
        ("The answer is -5.", "-5"),
        ("Final Answer: \\( \\frac{3}{4} \\)", "0.75"),
        ("\\boxed{\\begin{array}{c}1\\\\2\\end{array}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("\x08oxed{3}", "3"),
        ("The area is 12 cm^2", "12"),
        ("So there are 1,000 ways.", "1000"),
        ("\\boxed{x = 2, y = 3}", "x=2,y=3"),
    ],
)
def test_the_first_candidate_that_can_be_read_is_the_answer(text: str, answer: str) -> None:
    verdicts = [equivalent(answer, candidate) for candidate in candidates(text)]
    assert next(verdict for verdict in verdicts if verdict is not None) is True


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("no box", None),
        ("\\boxed{1}", "1"),
        ("\\boxed{a{b}c}", "a{b}c"),
        ("\\boxed {1} \\boxed{2}", "2"),
        ("\\boxed{x \\boxed{y}}", "y"),
        ("\\boxed{\\{1\\}}", "\\{1\\}"),
        ("\\boxed{1} \\boxed{2", "1"),
        ("\\\\boxed{1}", "1"),
        ("boxed{1}", "1"),
        ("so <boxed{70}\\).</answer>", "70"),
        ("\\boxed 7", "7"),
        ("\\fbox{7}", "7"),
        ("\\boxed{\\begin{matrix} 1 \\\\ 2 \\end{matrix}}", "\\begin{matrix} 1 \\\\ 2 \\end{matrix}"),
    ],
)
def test_last_box(text: str, inner: str | None) -> None:
    assert last_box(text) == inner


@pytest.mark.parametrize(
    "piece",
    ["\\boxed{", "$", "answer ", "{", "<answer>", "1 ", "**", "\\text{", "a^", "1,000", "|", "(1,", "x=", "-", "\\frac", "\\{"],
)
def test_hostile_texts_are_read_at_once(piece: str) -> None:
    text = (piece * 20_000)[:20_000]
    started = time.monotonic()
    assert not any(equivalent("2", candidate) for candidate in candidates(text))
    assert time.monotonic() - started < 5
