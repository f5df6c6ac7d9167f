"""Cases: a question that is answered by checking each possible value of n.

Two kinds: in one every case has a result and the largest is the answer; in the other all cases but one fail, so that there
are paths without a result.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from random import Random

from multiverse.structure.tree import Block

from .problem import Problem, forked, listing
from .rules import IntegerRule
from .steps import LIMIT, draw_steps, work_out

WIDTHS = (2, 3, 4, 5)
STEPS = range(1, 7)

_MAX_N = 20

_PARITY = (
    "n is one of {ns_or}. If n is even, {even}. If n is odd, {odd}. What is the largest value that can result?",
    "Let n be {ns_or}. When n is even, {even}. When n is odd, {odd}. What is the largest possible result?",
    "Try {ns_and} for n. If n is odd, {odd}. If n is even, {even}. Find the largest result.",
)
_EQUATION = (
    "Which of {ns_and} can n be if {factor} times n {sign} {term} is {target}?",
    "{factor} times n {sign} {term} is {target}. Which of {ns_and} is n?",
    "n is {ns_or}, and {factor} times n {sign} {term} is {target}. What is n?",
)


def draw(rng: Random, width: int | None = None, steps: int | None = None) -> Problem:
    """A question with `width` cases; of the first kind, with `steps` steps, where these are given."""
    count = rng.choice(WIDTHS) if width is None else width
    return _parity(rng, count, steps) if steps is not None or rng.choice((True, False)) else _equation(rng, count)


def _parity(rng: Random, count: int, steps: int | None) -> Problem:
    evens = rng.randint(1, count - 1)
    even_ns, odd_ns = rng.sample(range(2, _MAX_N + 1, 2), evens), rng.sample(range(1, _MAX_N, 2), count - evens)
    rules = {
        parity: draw_steps(rng, ns, rng.randint(2, 3) if steps is None else steps)
        for parity, ns in enumerate((even_ns, odd_ns))
    }
    ns = even_ns + odd_ns
    rng.shuffle(ns)
    worked = [work_out(n, rules[n % 2]) for n in ns]
    results = [result for _, result in worked]
    question = rng.choice(_PARITY).format(
        ns_or=listing(ns, "or"),
        ns_and=listing(ns),
        even=listing([step.command for step in rules[0]]),
        odd=listing([step.command for step in rules[1]]),
    )
    block = Block(
        outlines=tuple(f"n={n}" for n in ns),
        paths=tuple((f"{n} is {('even', 'odd')[n % 2]}. {text}.",) for n, (text, _) in zip(ns, worked, strict=True)),
        conclusion=best_of(results),
    )
    return forked("cases", question, str(max(results)), block, IntegerRule(max(results)))


def best_of(results: list[int], better: Callable[[int, int], int] = max) -> str:
    """Two at a time, so that each comparison is between neighbours: ``16 or 14: 16, 16 or 24: 24.``"""
    best = list(accumulate(results, better))
    return ", ".join(f"{a} or {b}: {c}" for a, b, c in zip(best, results[1:], best[1:], strict=False)) + "."


def _equation(rng: Random, count: int) -> Problem:
    factor = rng.randint(2, 9)
    ns = rng.sample(range(1, min(_MAX_N, LIMIT // factor) + 1), count)
    plus = rng.random() < 0.5
    room = LIMIT - factor * max(ns) if plus else factor * min(ns)
    # No room to add anything without a third digit: take away instead, which always has room.
    if room == 0:
        plus, room = False, factor * min(ns)
    term = rng.randint(1, min(20, room))
    sign, word = ("+", "plus") if plus else ("-", "minus")
    products = [factor * n for n in ns]
    values = [product + term if plus else product - term for product in products]
    solution = rng.randrange(count)
    target = values[solution]
    question = rng.choice(_EQUATION).format(
        ns_and=listing(ns), ns_or=listing(ns, "or"), factor=factor, sign=word, term=term, target=target
    )
    # The two numbers are adjacent, directly before the verdict, so that they are easy to compare.
    verdicts = [f"{value} is {target}: {'yes' if value == target else 'not'}." for value in values]
    paths = tuple(
        (f"n={n}: {factor}*{n}={product}, {product}{sign}{term}={value}, {verdict}",)
        for n, product, value, verdict in zip(ns, products, values, verdicts, strict=True)
    )
    found = ", ".join(f"{n}: {'yes' if value == target else 'not'}" for n, value in zip(ns, values, strict=True))
    block = Block(tuple(f"n={n}" for n in ns), paths, f"{found}. n={ns[solution]} works.")
    return forked("cases", question, str(ns[solution]), block, IntegerRule(ns[solution]))
