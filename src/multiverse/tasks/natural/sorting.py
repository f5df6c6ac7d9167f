"""Sorting: several items, each put into a class by a rule that the question states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiverse.structure.tree import Block

from ..facts import CLASSES
from ..problem import Problem, forked, listing
from ..rules import ClassesRule
from ..wording import Draws, part_of

WIDTHS = (2, 3, 4, 5, 6, 7, 8)

NUMBERS = {"train": (1, 99), "heldout": (100, 199)}
LIMITS = {"train": (20, 80), "heldout": (120, 180)}


@dataclass(frozen=True)
class Sorter:
    """What an item is sorted by.

    Attributes:
        classes: names of the classes.
        items: what may be sorted.
        decide: the class of an item, and the sentence that says why.
        stated: the rule in words.
    """

    classes: tuple[str, ...]
    items: Sequence[str]
    decide: Callable[[str], tuple[str, str]]
    stated: str


FRAMES = (
    "Sort these into {classes}: {items}. {rule}",
    "{rule} Which of these belongs where: {items}? The groups are {classes}.",
    "For each of {items}, tell me whether it is {choice}. {rule}",
    "Put {items} into the groups {classes}. {rule}",
    "Classify {items} as {choice}. {rule}",
    "I have a list: {items}. {rule} Is each one {choice}?",
    "{rule} Please assign {items} to {classes}.",
    "Here are some items:\n{list}\n{rule} Mark each as {choice}.",
    "Which are {classes}? {rule}\n{list}",
    "Decide for every one of {items}: {choice}? {rule}",
    "Help me tidy up {items}. {rule} The labels are {classes}.",
    "Label the following with {choice}. {rule}\n{list}",
)


def draw(draws: Draws, width: int | None = None) -> Problem:
    """`width` items to sort, two to five unless given. Not all are of one class."""
    rng = draws.rng
    count = rng.choice(WIDTHS[:4]) if width is None else width
    sorter = rng.choice((_kinds, _kinds, _parity, _limit, _initial, _length))(draws)
    while True:
        items = rng.sample(sorter.items, count)
        decided = {item: sorter.decide(item) for item in items}
        if len({name for name, _ in decided.values()}) > 1:
            break
    question = draws.phrase(FRAMES).format(
        classes=listing(sorter.classes),
        choice=listing(sorter.classes, "or"),
        items=listing(items),
        list="\n".join(f"- {item}" for item in items),
        rule=sorter.stated,
    )
    groups = {name: [item for item in items if decided[item][0] == name] for name in sorter.classes}
    block = Block(
        tuple(items),
        tuple((reason,) for _, reason in decided.values()),
        " ".join(f"{name[0].upper()}{name[1:]}: {listing(group)}." for name, group in groups.items() if group),
    )
    answer = "; ".join(f"{item}: {name}" for item, (name, _) in decided.items())
    classes = ClassesRule(tuple((item, name) for item, (name, _) in decided.items()))
    return forked("sorting", question.strip(), answer, block, classes, (sorter.stated, *items))


def _kinds(draws: Draws) -> Sorter:
    """By what a thing is."""
    domain = draws.rng.choice([*CLASSES])
    names = tuple(draws.rng.sample([*CLASSES[domain]], draws.rng.randint(2, min(3, len(CLASSES[domain])))))
    found = {item: name for name in names for item in part_of(CLASSES[domain][name], draws.vocabulary)}

    def decide(item: str) -> tuple[str, str]:
        return found[item], f"{item[0].upper()}{item[1:]} is a kind of {found[item]}."

    return Sorter(
        names,
        [*found],
        decide,
        draws.phrase(("Go by what each one is.", "Each belongs to one group.", "Choose the group that fits.")),
    )


def _numbers(draws: Draws) -> list[str]:
    first, last = draws.span(NUMBERS)
    return [str(number) for number in range(first, last + 1)]


def _parity(draws: Draws) -> Sorter:
    def decide(item: str) -> tuple[str, str]:
        name = "odd" if int(item) % 2 else "even"
        return name, f"{item} ends in {item[-1]}, so it is {name}."

    stated = (
        "Numbers that can be halved are even, others are odd.",
        "Go by the last digit.",
        "Even numbers are multiples of two.",
    )
    return Sorter(("even", "odd"), _numbers(draws), decide, draws.phrase(stated))


def _limit(draws: Draws) -> Sorter:
    limit = draws.rng.randint(*draws.span(LIMITS))

    def decide(item: str) -> tuple[str, str]:
        large = int(item) > limit
        return (
            "large" if large else "small"
        ), f"{item} is {'more' if large else 'not more'} than {limit}, so it is {'large' if large else 'small'}."

    stated = (
        "Numbers above {n} are large, all others small.",
        "Large means more than {n}.",
        "Whatever is not more than {n} counts as small, the rest as large.",
    )
    return Sorter(("small", "large"), _numbers(draws), decide, draws.phrase(stated).format(n=limit))


def _initial(draws: Draws) -> Sorter:
    def decide(item: str) -> tuple[str, str]:
        name = "vowel" if item[0] in "aeiou" else "consonant"
        return name, f"{item[0].upper()}{item[1:]} begins with {item[0]}, a {name}."

    stated = (
        "Go by the first letter.",
        "What counts is whether the word starts with a vowel.",
        "Look at how each word begins.",
    )
    return Sorter(("vowel", "consonant"), _things(draws), decide, draws.phrase(stated))


def _length(draws: Draws) -> Sorter:
    limit = draws.rng.randint(4, 6)

    def decide(item: str) -> tuple[str, str]:
        name = "long" if len(item) > limit else "short"
        counted = " ".join(f"{letter}{number}" for number, letter in enumerate(item, 1))
        return name, f"{counted}: {len(item)} letters, so it is {name}."

    stated = (
        "Words of more than {n} letters are long, others short.",
        "Up to {n} letters a word is short, beyond that long.",
        "A word is short if it has {n} letters or fewer, else long.",
    )
    return Sorter(("short", "long"), _things(draws), decide, draws.phrase(stated).format(n=limit))


def _things(draws: Draws) -> list[str]:
    """All things that can be classified, of the chosen part."""
    return sorted({item for names in CLASSES.values() for items in names.values() for item in part_of(items, draws.vocabulary)})
