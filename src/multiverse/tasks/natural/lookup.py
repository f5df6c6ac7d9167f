"""Lookup: several questions about one passage or table, each answered from the text alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from multiverse.structure.tree import Block

from ..problem import Problem, forked, listing
from ..rules import ListRule
from ..wording import NUMBER_WORDS, Draws
from ..words import CITIES, COLOURS, FIRST_NAMES, GOODS, INSTRUMENTS, JOBS, PETS

WIDTHS = (2, 3, 4, 5, 6, 7, 8)

AGES = {"train": (18, 59), "heldout": (60, 89)}
PRICES = {"train": (2, 40), "heldout": (41, 70)}
STOCKS = {"train": (3, 60), "heldout": (61, 99)}


@dataclass(frozen=True)
class Attribute:
    """What a record says about a person or a product.

    Attributes:
        column: its heading in a table.
        values: draws one different value for each of so many records.
        says: the sentences of a passage.
        asks: questions for the value.
        reverse: questions for the record with a value.
        more, less: for numbers, questions that compare two records, and what the larger one is.
        above: for numbers, questions for how many records are above a limit.
    """

    column: str
    values: Callable[[Draws, int], Sequence[str | int]]
    says: tuple[str, ...]
    asks: tuple[str, ...]
    reverse: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    above: tuple[str, ...] = ()


def _from(items: Sequence[str]) -> Callable[[Draws, int], Sequence[str]]:
    return lambda draws, count: draws.words(items, count)


def _numbers(ranges: dict[str, tuple[int, int]]) -> Callable[[Draws, int], Sequence[int]]:
    def values(draws: Draws, count: int) -> list[int]:
        first, last = draws.span(ranges)
        return draws.rng.sample(range(first, last + 1), count)

    return values


PEOPLE = (
    Attribute(
        "Age",
        _numbers(AGES),
        ("{name} is {value} years old.", "The age of {name} is {value}.", "{name} turned {value} this year."),
        ("How old is {name}?", "What is the age of {name}?", "What age is {name}?"),
        ("Who is {value} years old?", "Which person is {value}?", "Whose age is {value}?"),
        ("Who is older, {a} or {b}?", "Of {a} and {b}, who is older?", "Between {a} and {b}, which one is older?"),
        ("Who is younger, {a} or {b}?", "Of {a} and {b}, who is younger?", "Between {a} and {b}, which one is younger?"),
        (
            "How many people are older than {limit}?",
            "How many of them are over {limit}?",
            "Count the people above the age of {limit}.",
        ),
    ),
    Attribute(
        "City",
        _from(CITIES),
        ("{name} lives in {value}.", "The home of {name} is in {value}.", "{name} has a flat in {value}."),
        ("Where does {name} live?", "In which city does {name} live?", "What is the home town of {name}?"),
        ("Who lives in {value}?", "Which person is from {value}?", "Whose home is in {value}?"),
    ),
    Attribute(
        "Job",
        _from(JOBS),
        ("{name} works as a {value}.", "The job of {name} is {value}.", "By trade, {name} is a {value}."),
        ("What is the job of {name}?", "What does {name} do for a living?", "Which profession does {name} have?"),
        ("Who works as a {value}?", "Which person is a {value}?", "Who of them is the {value}?"),
    ),
    Attribute(
        "Pet",
        _from(PETS),
        ("{name} keeps a {value}.", "The pet of {name} is a {value}.", "{name} takes care of a {value}."),
        ("Which pet does {name} have?", "What animal does {name} keep?", "What kind of pet lives with {name}?"),
        ("Who has a {value}?", "Which person keeps a {value}?", "Whose pet is a {value}?"),
    ),
    Attribute(
        "Instrument",
        _from(INSTRUMENTS),
        ("{name} plays the {value}.", "The instrument of {name} is the {value}.", "{name} practises the {value}."),
        ("Which instrument does {name} play?", "What does {name} play?", "What is the instrument of {name}?"),
        ("Who plays the {value}?", "Which person practises the {value}?", "Whose instrument is the {value}?"),
    ),
    Attribute(
        "Favourite colour",
        _from(COLOURS),
        ("{name} likes {value} best.", "The favourite colour of {name} is {value}.", "{name} is fond of the colour {value}."),
        ("Which colour does {name} like best?", "What is the favourite colour of {name}?", "What colour does {name} prefer?"),
        ("Who likes {value} best?", "Which person prefers {value}?", "Whose favourite colour is {value}?"),
    ),
)

PRODUCTS = (
    Attribute(
        "Price in euros",
        _numbers(PRICES),
        (
            "The price of {name} is {value} euros.",
            "For {name} one pays {value} euros.",
            "The shop sells {name} at {value} euros.",
        ),
        ("What is the price of {name}?", "How many euros does one pay for {name}?", "How much is {name}?"),
        (
            "What is sold for {value} euros?",
            "Which product has a price of {value} euros?",
            "What can one buy for exactly {value} euros?",
        ),
        (
            "Which is dearer, {a} or {b}?",
            "Of {a} and {b}, which costs more?",
            "Between {a} and {b}, which has the higher price?",
        ),
        (
            "Which is cheaper, {a} or {b}?",
            "Of {a} and {b}, which costs less?",
            "Between {a} and {b}, which has the lower price?",
        ),
        (
            "How many products cost more than {limit} euros?",
            "How many prices are above {limit} euros?",
            "Count the products over {limit} euros.",
        ),
    ),
    Attribute(
        "In stock",
        _numbers(STOCKS),
        (
            "There are {value} units of {name} in stock.",
            "Of {name}, {value} units are left.",
            "The shelf with {name} holds {value} units.",
        ),
        ("How many units of {name} are there?", "What is the stock of {name}?", "How much {name} is left, in units?"),
        (
            "Of which product are there {value} units?",
            "Which product has a stock of {value}?",
            "What has exactly {value} units left?",
        ),
        ("Of which is there more, {a} or {b}?", "Which has the larger stock, {a} or {b}?", "Is there more {a} or more {b}?"),
        ("Of which is there less, {a} or {b}?", "Which has the smaller stock, {a} or {b}?", "Is there less {a} or less {b}?"),
        (
            "Of how many products are there more than {limit} units?",
            "How many stocks are above {limit}?",
            "Count the products with over {limit} units.",
        ),
    ),
    Attribute(
        "From",
        _from(CITIES),
        ("The {name} comes from {value}.", "{value} is where the {name} is made.", "The {name} was sent from {value}."),
        ("Where does the {name} come from?", "From which city is the {name}?", "What is the origin of the {name}?"),
        ("What comes from {value}?", "Which product is from {value}?", "What was sent from {value}?"),
    ),
)

FRAMES = (
    "{text}\n\n{questions}",
    "Read the text and answer the questions.\n\n{text}\n\n{questions}",
    "{questions}\n\nUse only this:\n\n{text}",
    "Here is what we know:\n{text}\n\nNow tell me: {questions}",
    "Please answer {number} questions about this.\n\n{text}\n\n{questions}",
    "{text}\n\nBased on the above: {questions}",
)


@dataclass(frozen=True)
class Asked:
    """One of the questions: its text, the working that answers it, and the answer."""

    text: str
    working: str
    answer: str


def draw(draws: Draws, width: int | None = None) -> Problem:
    """`width` questions about one text, two to five unless given."""
    rng = draws.rng
    count = rng.choice(WIDTHS[:4]) if width is None else width
    people = rng.random() < 0.65
    names = draws.words(FIRST_NAMES if people else GOODS, rng.randint(3, 5))
    kinds = rng.sample(PEOPLE, rng.randint(2, 3)) if people else rng.sample(PRODUCTS, rng.randint(2, 3))
    records = {kind: dict(zip(names, map(str, kind.values(draws, len(names))), strict=True)) for kind in kinds}
    asked: dict[str, Asked] = {}
    for one in _questions(draws, records):
        asked.setdefault(one.working, one)
        if len(asked) == count:
            break
    parts = [*asked.values()]
    questions = draws.rng.choice((" ", "\n")).join(part.text for part in parts)
    text = _text(draws, names, records)
    question = draws.phrase(FRAMES).format(text=text, questions=questions, number=NUMBER_WORDS[count])
    answers = [part.answer for part in parts]
    block = Block(
        tuple(part.text for part in parts), tuple((part.working,) for part in parts), f"The answers: {listing(answers)}."
    )
    rule = ListRule(tuple((answer,) for answer in answers))
    instance = (*(f"{name}/{kind.column}/{value[name]}" for kind, value in records.items() for name in names), *answers)
    return forked("lookup", question, "; ".join(answers), block, rule, instance)


def _text(draws: Draws, names: Sequence[str], records: dict[Attribute, dict[str, str]]) -> str:
    """The records as a passage or as a table."""
    kinds = [*records]
    layout = draws.rng.choice(("passage", "passage", "table", "lines"))
    if layout == "passage":
        says = {kind: draws.phrase(kind.says) for kind in kinds}
        sentences = [_said(says[kind], name=name, value=records[kind][name]) for name in names for kind in kinds]
        return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
    if layout == "table":
        head = ["Name", *(kind.column for kind in kinds)]
        rows = [head, ["---"] * len(head), *([name, *(records[kind][name] for kind in kinds)] for name in names)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n".join(f"{name}: {', '.join(f'{kind.column.lower()} {records[kind][name]}' for kind in kinds)}" for name in names)


def _questions(draws: Draws, records: dict[Attribute, dict[str, str]]) -> Iterator[Asked]:
    """Questions without end; some come up again."""
    rng = draws.rng
    while True:
        kind = rng.choice([*records])
        values = records[kind]
        forms = [_direct, _direct, _reverse, *([_compare, _above] if kind.above else [])]
        yield rng.choice(forms)(draws, kind, values)


def _said(template: str, **values: str | int) -> str:
    """A template filled, with ``an`` where it has to be."""
    return re.sub(r"\ba (?=[aeiou])", "an ", template.format(**values))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _direct(draws: Draws, kind: Attribute, values: dict[str, str]) -> Asked:
    name = draws.rng.choice([*values])
    fact = _capital(_said(kind.says[0], name=name, value=values[name]))
    return Asked(_said(draws.phrase(kind.asks), name=name), f"{fact} So: {values[name]}.", values[name])


def _reverse(draws: Draws, kind: Attribute, values: dict[str, str]) -> Asked:
    name = draws.rng.choice([*values])
    fact = _capital(_said(kind.says[0], name=name, value=values[name]))
    return Asked(_said(draws.phrase(kind.reverse), value=values[name]), f"{fact} So: {name}.", name)


def _compare(draws: Draws, kind: Attribute, values: dict[str, str]) -> Asked:
    a, b = draws.rng.sample([*values], 2)
    high = draws.rng.random() < 0.5
    chosen = (max if high else min)(a, b, key=lambda name: int(values[name]))
    text = draws.phrase(kind.more if high else kind.less).format(a=a, b=b)
    verdict = f"{values[chosen]} is {'more' if high else 'less'}"
    return Asked(text, f"{_capital(a)}: {values[a]}. {_capital(b)}: {values[b]}. {verdict}. So: {chosen}.", chosen)


def _above(draws: Draws, kind: Attribute, values: dict[str, str]) -> Asked:
    numbers = sorted(map(int, values.values()))
    # A limit between two of the values, so that it is not one of them and some are above it.
    at = draws.rng.randrange(len(numbers) - 1)
    limit = draws.rng.randint(numbers[at], numbers[at + 1] - 1)
    checks = [f"{_capital(name)} {value}: {'yes' if int(value) > limit else 'no'}" for name, value in values.items()]
    count = sum(number > limit for number in numbers)
    return Asked(draws.phrase(kind.above).format(limit=limit), f"{', '.join(checks)}. So: {count}.", str(count))
