"""Cases: one rule, tried on each of several numbers. Either every number gives a result, or exactly one fits."""

from __future__ import annotations

from random import Random

from multiverse.structure.tree import Block

from ..cases import WIDTHS, best_of
from ..problem import Problem, forked, listing
from ..rules import NumberRule
from ..steps import LIMIT, draw_steps
from ..wording import TERMS, Draws
from ..words import COUNTED
from .steps import COMMANDS, worded, work_out

PARITY = (
    "A machine takes a number. If it is even: {even}. If it is odd: {odd}. You may feed it {ns_or}. What is the {best} output?",
    "Here is a game. For an even number, {even}. For an odd number, {odd}. Which is the {best} result among {ns_and}?",
    "Try each of {ns_and}. Even numbers: {even}. Odd numbers: {odd}. What is the {best} result?",
    "Each card shows a number: {ns_and}. For odd cards you {odd}; for even cards you {even}. Find the {best} value.",
    "I have {ns_and}. With the even ones I do this: {even}. With the odd ones: {odd}. What's the {best} number I can get?",
    "Rule for even numbers: {even}. Rule for odd numbers: {odd}. Apply the rules to {ns_and}. What is the {best} outcome?",
    "Someone picks {ns_or}. Picking an even number means: {even}. Picking an odd one means: {odd}. What "
    "is the {best} possible score?",
    "Among {ns_and}, which result is {best}? An even number is treated so: {even}. An odd one so: {odd}.",
    "Given are {ns_and}. Odd? Then {odd}. Even? Then {even}. Give the {best} of the results.",
)

PLUS = (
    "Each box holds {factor} {things}, and {term} more lie on the table. In all there are {target} "
    "{things}. Are there {ns_or} boxes?",
    "A bag has room for {factor} {things}. All bags are full, {term} {things} are "
    "left over, and there are {target} {things} altogether. "
    "Is the number of bags {ns_or}?",
    "How many packs were bought, {ns_or}? Every pack has {factor} {things}, {term} were there before, "
    "and now there are {target}.",
    "With {factor} {things} on each shelf and {term} on the floor there are {target} {things}. Which is "
    "the number of shelves: {ns_or}?",
    "{target} {things} are {term} loose ones and some rows of {factor}. Are there {ns_or} rows?",
    "A crate holds {factor} {things}. Full crates and {term} single {things} make {target}. Find the "
    "number of crates among {ns_and}.",
)

MINUS = (
    "Each box holds {factor} {things}, but {term} were taken out. Now there are {target} {things}. Are there {ns_or} boxes?",
    "There were some full bags of {factor} {things}. After {term} {things} were lost, {target} remain. "
    "Is the number of bags {ns_or}?",
    "How many packs were bought, {ns_or}? Every pack has {factor} {things}, {term} were used, and {target} are left.",
    "Shelves of {factor} {things} each were full until {term} were sold; {target} are left. Which is the "
    "number of shelves: {ns_or}?",
    "Some rows of {factor} {things}, without {term} that are missing, make {target}. Are there {ns_or} rows?",
    "From full crates of {factor} {things} someone removes {term}, and {target} stay. Find the number of "
    "crates among {ns_and}.",
)

_BEST = {
    True: ("largest", "highest", "biggest"),
    False: ("smallest", "lowest", "least"),
}


def draw(draws: Draws, width: int | None = None) -> Problem:
    """A question with `width` cases; of the first kind where the wording asks for steps."""
    count = draws.rng.choice(WIDTHS) if width is None else width
    if draws.steps is not None or draws.rng.random() < 0.5:
        return _parity(draws, count)
    return _equation(draws, count)


def _numbers(rng: Random, span: tuple[int, int], count: int, parity: int) -> list[int]:
    return rng.sample([n for n in range(max(span[0], 1), span[1] + 1) if n % 2 == parity], count)


def _parity(draws: Draws, count: int) -> Problem:
    rng, span = draws.rng, draws.span(TERMS)
    evens = rng.randint(1, count - 1)
    groups = [_numbers(rng, span, evens, 0), _numbers(rng, span, count - evens, 1)]
    rules = [
        worded(draws, draw_steps(rng, ns, rng.randint(2, 3) if draws.steps is None else draws.steps, LIMIT, span), COMMANDS)
        for ns in groups
    ]
    ns = groups[0] + groups[1]
    rng.shuffle(ns)
    results, paths = [], []
    for n in ns:
        value = n
        for step, _ in rules[n % 2]:
            value = step.apply(value)
        results.append(value)
        paths.append((f"{n} is {('even', 'odd')[n % 2]}. {work_out(n, rules[n % 2])} {n} gives {value}.",))
    high = rng.random() < 0.5
    even, odd = (listing([words for _, words in rule], "and then") for rule in rules)
    question = draws.phrase(PARITY).format(
        ns_or=listing(ns, "or"), ns_and=listing(ns), even=even, odd=odd, best=draws.phrase(_BEST[high])
    )
    answer = max(results) if high else min(results)
    conclusion = f"The {'largest' if high else 'smallest'}: {best_of(results, max if high else min)}"
    block = Block(tuple(f"number {n}" for n in ns), tuple(paths), conclusion)
    return forked("cases", question, str(answer), block, NumberRule(answer))


def _equation(draws: Draws, count: int) -> Problem:
    rng, (least, most) = draws.rng, draws.span(TERMS)
    # Two at least, so that there are boxes, and at most 30, so that a factor is left.
    ns = rng.sample(range(max(least, 2), most + 1), count)
    factor = rng.randint(2, max(2, min(9, (LIMIT - least) // max(ns))))
    products = [factor * n for n in ns]
    plus = rng.random() < 0.5 and max(products) + least <= LIMIT
    room = LIMIT - max(products) if plus else min(products) - 1
    term = rng.randint(min(least, room), min(most, room))
    values = [product + term if plus else product - term for product in products]
    solution = rng.randrange(count)
    target, sign, things = values[solution], "+" if plus else "-", draws.word(COUNTED)
    question = draws.phrase(PLUS if plus else MINUS).format(
        factor=factor, things=things, term=term, target=target, ns_or=listing(ns, "or"), ns_and=listing(ns)
    )
    paths = tuple(
        (
            f"{n} times {factor}: {n}*{factor}={product}. Then {product}{sign}{term}={value}. "
            f"{value} is {target}: {'yes' if value == target else 'no'}.",
        )
        for n, product, value in zip(ns, products, values, strict=True)
    )
    block = Block(tuple(f"try {n}" for n in ns), paths, f"{ns[solution]} fits.")
    return forked("cases", question, str(ns[solution]), block, NumberRule(ns[solution]))
