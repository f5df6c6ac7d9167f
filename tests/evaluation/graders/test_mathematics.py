"""Mathematics: worth the same however it is written; and what never ends is ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from multiverse.evaluation.graders.mathematics import MathGrader

pytest.importorskip("math_verify", reason="the extra [eval] is not installed")


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    grader = MathGrader(workers=1, seconds=20)
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("42", "42", True),
        ("42", "so it is \\boxed{42}, not 43", True),
        ("073", "\\boxed{73}", True),
        ("7", "The answer is 7.", True),
        ("7", "first 3, then 7", True),
        ("7", "", False),
        ("1000", "1,000", True),
        ("1000", "\\boxed{1{,}000}", True),
        # fractions and decimals
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "\\boxed{1/2}", True),
        ("\\frac{1}{2}", "\\boxed{\\dfrac{2}{4}}", True),
        ("\\frac{1}{3}", "\\boxed{0.33}", False),
        # intervals and sets
        ("[0,1)", "\\boxed{[0, 1)}", True),
        ("[0,1)", "\\boxed{[0,1]}", False),
        ("(-\\infty, 3]", "\\boxed{(-\\infty,3]}", True),
        ("\\{1,2,3\\}", "\\boxed{\\{3,2,1\\}}", True),
        ("\\{1,2,3\\}", "\\boxed{\\{1,2\\}}", False),
        ("1,2", "\\boxed{2,1}", True),
        ("1,2", "\\boxed{1}", False),
        # units, money, percent, degrees
        ("10", "\\boxed{10\\text{ cm}}", True),
        ("10\\text{ cm}", "\\boxed{10}", True),
        ("\\$32", "\\boxed{32}", True),
        ("10\\%", "\\boxed{10}", True),
        ("90^\\circ", "\\boxed{90}", True),
        # LaTeX: tuples, roots, polynomials, matrices, complex numbers, words
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3,\\pi/2)}", True),
        ("11\\sqrt2", "\\boxed{11\\sqrt{2}}", True),
        ("x^2+2x+1", "\\boxed{(x+1)^2}", True),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 \\\\ 3 \\end{pmatrix}}", False),
        ("6 - 5i", "\\boxed{6-5i}", True),
        ("3", "\\boxed{x=3}", True),
        ("\\text{Evelyn}", "\\boxed{Evelyn}", True),
        ("\\text{even}", "\\boxed{\\text{odd}}", False),
        # exact numbers, relative errors, blanks between digits
        ("1/2^99", "\\boxed{1/2^98}", False),
        ("1/2004!", "\\boxed{1/2006!}", False),
        ("1e-7", "\\boxed{2e-7}", False),
        ("12", "\\boxed{1 2}", False),
        ("1 2", "\\boxed{12}", False),
        ("\\sqrt{\\frac{1}{n}}", "\\boxed{\\frac{1}{\\sqrt{n}}}", True),
        ("\\frac{1}{3}", "\\boxed{0.3333333}", False),
        ("\\sqrt{2}", "\\boxed{1.41421356}", True),
        ("70", "so <boxed{70}\\).</answer>", True),
        # what only math-verify reads
        ("\\sum_{k=1}^{3} k", "\\boxed{6}", True),
        ("\\sum_{k=1}^{3} k", "\\boxed{7}", False),
        # boxes in boxes, several boxes, a box that is never closed
        ("3", "\\boxed{\\boxed{3}}", True),
        ("3", "\\boxed{2} no, \\boxed{3}", True),
        ("3", "\\boxed{3} and then \\boxed{4", True),
        ("\\frac{3}{4}", "\\fbox{x} \\boxed{\\frac{3}{4}}", True),
    ],
)
def test_equivalence(grader: MathGrader, expected: str, answer: str, right: bool) -> None:
    assert grader.grade(expected, answer).right is right


def test_a_comparison_over_its_time_limit_is_killed_and_the_next_works() -> None:
    grader = MathGrader(workers=1, seconds=1.5)
    try:
        assert grader.grade("8", "\\boxed{2^3}").right  # the worker is warm
        began = time.monotonic()
        verdict = grader.grade("1", "\\boxed{\\int_0^1 9^{9^{9^{9^9}}} dx}")  # only math-verify reads integrals
        assert not verdict.right
        assert "did not end within 1.5 seconds" in verdict.why
        assert time.monotonic() - began < 15
        grader.seconds = 20
        assert grader.grade("8", "\\boxed{2^3}").right
    finally:
        grader.close()


def test_threads_share_workers(grader: MathGrader) -> None:
    assert threading.current_thread() is threading.main_thread()
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda n: grader.grade(f"{n}", f"\\boxed{{{2 * n}/2}}"), range(12)))
    assert all(verdict.right for verdict in verdicts)


def test_answers_are_not_executed(grader: MathGrader, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for text in (f"__import__('pathlib').Path('{trap}').touch()", f"\\boxed{{__import__('os').system('touch {trap}')}}"):
        assert not grader.grade("2", text).right
    assert not trap.exists()
