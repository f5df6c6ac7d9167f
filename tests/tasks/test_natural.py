"""Natural wording: right solutions, independent parts, and parts of the lists that stay apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.structure.render import render
from multiverse.structure.tree import Block, Body
from multiverse.tasks import (
    CALCULATIONS,
    FAMILIES,
    STEPS,
    Part,
    Problem,
    Wording,
    facts,
    flatten,
    generate,
    words,
)
from multiverse.tasks.natural import cases, countdown, listing, lookup, nested, sorting, steps, worksheet
from multiverse.tasks.natural import chain as natural_chain
from multiverse.tasks.wording import STARTS, TERMS, part_of

families = pytest.mark.parametrize("family", FAMILIES)
seeds = st.integers(min_value=0, max_value=2**32)
NATURAL = Wording("natural")

LISTS: dict[str, tuple[Any, ...]] = {
    **{name: value for name, value in vars(words).items() if name.isupper() and name != "DAYS"},
    **{
        name: tuple(item for item, _ in getattr(facts, name)) for name in ("OPPOSITES", "CAPITALS", "PLURALS", "PASTS", "YOUNG")
    },
    "RHYMES": tuple(chain.from_iterable(facts.RHYMES)),
    "SPELLED": facts.SPELLED,
    "CLASSES": tuple(item for names in facts.CLASSES.values() for items in names.values() for item in items),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "worksheet tales": worksheet.TALES,
    "worksheet closings": worksheet.CLOSINGS,
    "worksheet frames": worksheet.FRAMES,
    "parity": cases.PARITY,
    "plus": cases.PLUS,
    "minus": cases.MINUS,
    "countdown": countdown.TALES,
    "nested tales": nested.TALES,
    "nested heads": nested.HEADS,
    "nested closings": nested.CLOSINGS,
    "nested frames": nested.FRAMES,
    "orders": natural_chain.ORDERS,
    "stories": natural_chain.STORIES,
    "lookup": lookup.FRAMES,
    "listing": listing.FRAMES,
    "together": listing.TOGETHER,
    "sorting": sorting.FRAMES,
    **{f"deeds {kind}": table for kind, table in steps.DEEDS.items()},
    **{f"commands {kind}": table for kind, table in steps.COMMANDS.items()},
}


def texts(body: Body) -> Iterator[str]:
    """All texts of a body and of what is nested in it, conclusions included."""
    for item in body:
        if isinstance(item, str):
            yield item
            continue
        for path in item.paths:
            yield from texts(path)
        yield item.conclusion


def blocks(problem: Problem) -> list[Block]:
    return [block for _, block in problem.structured.blocks()]


@families
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_solutions_verify_and_agree(family: str, seed: int) -> None:
    for problem in generate(family, 2, seed=seed, split="train", wording=NATURAL):
        assert problem.check(problem.answer)
        assert problem.check(render(problem.structured).rpartition("\n")[2])
        assert problem.sequential == flatten(problem.structured)
        assert problem.structured.plain_answer == problem.sequential.plain_answer == f"Answer: {problem.answer}"
        assert problem.structured.depth == 0 if family == "chain" else blocks(problem)
        written = list(texts(problem.structured.thinking or ()))
        for text in (problem.question, *written):
            assert not re.search(r"[{}]|  |\.\.|\?\.|\ban? [aeiou]?\s", text), text
        for block in blocks(problem):
            assert len(set(block.outlines)) == len(block.outlines)


def equations(text: str) -> list[tuple[int, str, int, int]]:
    return [(int(a), op, int(b), int(c)) for a, op, b, c in re.findall(r"(?<!\d)(\d+)([-+*/])(\d+)=(\d+)", text)]


@pytest.mark.parametrize("family", CALCULATIONS)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_equations_are_right(family: str, seed: int) -> None:
    for problem in generate(family, 2, seed=seed, split="train", wording=NATURAL):
        found = equations(render(problem.structured))
        assert found
        for a, operator, b, result in found:
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else -1}[operator] == result >= 0


@families
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_no_path_uses_what_a_sibling_found(family: str, seed: int) -> None:
    """Every number that a path calculates with is in the question, a doubling, or its own result; no path names a sibling."""
    for problem in generate(family, 2, seed=seed, split="train", wording=NATURAL):
        given_ = {int(number) for number in re.findall(r"\d+", problem.question)} | {2, 3}
        for block in blocks(problem):
            for number, path in enumerate(block.paths):
                text = "\n".join(texts(path))
                own = set(given_)
                for a, _, b, result in equations(text):
                    assert {a, b} <= own, f"{text!r} uses {a} and {b}"
                    own.add(result)
                others = [outline for at, outline in enumerate(block.outlines) if at != number]
                if family in ("worksheet", "nested", "listing"):
                    assert not any(re.search(rf"\b{re.escape(other)}\b", text) for other in others)
                if family == "sorting":
                    assert not any(re.match(rf"{re.escape(other)}\b", text, re.IGNORECASE) for other in others)


@families
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_splits_are_disjoint(family: str, seed: int) -> None:
    train = generate(family, 15, seed=seed, split="train", wording=NATURAL)
    test = generate(family, 5, seed=seed, split="test", wording=Wording("natural", "train", "train", "train"))
    assert not {problem.question for problem in train} & {problem.question for problem in test}
    assert ({problem.split for problem in train}, {problem.split for problem in test}) == ({"train"}, {"test"})


@pytest.mark.parametrize("family", CALCULATIONS)
def test_an_instance_is_in_one_split_in_both_wordings(family: str) -> None:
    for problem in generate(family, 20, seed=1, split="test", wording=NATURAL):
        assert problem.split == "test"
        assert problem.instance is None


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_large_and_have_no_entry_twice(name: str) -> None:
    entries = LISTS[name]
    assert len(set(entries)) == len(entries) >= 12
    assert name != "FIRST_NAMES" or len(entries) > 200
    train, held = part_of(entries, "train"), part_of(entries, "heldout")
    assert not set(train) & set(held)
    assert sorted(map(str, (*train, *held))) == sorted(map(str, part_of(entries, "all")))
    assert 0.3 <= len(held) / len(entries) < 0.35


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_have_a_held_out_third_and_no_digit(name: str) -> None:
    """A digit in a template would change the split of an instance."""
    templates = TEMPLATES[name]
    assert len(set(templates)) == len(templates) >= 6
    assert len(part_of(templates, "heldout")) * 3 == len(templates)
    assert not any(re.search(r"\d", template) for template in templates)


def names_in(problem: Problem) -> set[str]:
    return set(re.findall(r"[A-Z][a-z]+", problem.question)) & set(words.FIRST_NAMES)


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_vocabulary_comes_from_the_chosen_part(part: Part) -> None:
    allowed = set(part_of(words.FIRST_NAMES, part))
    for family in ("worksheet", "nested", "chain"):
        drawn = generate(family, 30, seed=2, wording=Wording("natural", vocabulary=part))
        names = set().union(*map(names_in, drawn))
        assert names
        assert names <= allowed
    countries = set(part_of([country for country, _ in facts.CAPITALS], part))
    outlines = {
        outline
        for one in generate("listing", 60, seed=2, wording=Wording(vocabulary=part))
        for outline in blocks(one)[0].outlines
    }
    asked = {outline.removeprefix("capital of ") for outline in outlines if outline.startswith("capital of ")}
    assert asked
    assert asked <= countries


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_numbers_come_from_the_chosen_range(part: Part) -> None:
    low, high = min(STARTS[part][0], TERMS[part][0]), max(STARTS[part][1], TERMS[part][1])
    for family in ("worksheet", "chain", "nested"):
        for problem in generate(family, 20, seed=3, wording=Wording("natural", numbers=part)):
            numbers = {int(number) for number in re.findall(r"\d+", problem.question)}
            assert all(low <= number <= high for number in numbers)


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_phrasings_come_from_the_chosen_part(part: Part) -> None:
    def pattern(template: str) -> str:
        return re.sub(r"\\{\w+\\}", ".+", re.escape(template))

    other = part_of(countdown.TALES, "heldout" if part == "train" else "train")
    for problem in generate("countdown", 30, seed=3, wording=Wording("natural", phrasings=part)):
        assert not any(re.fullmatch(pattern(template), problem.question) for template in other)
        assert any(re.fullmatch(pattern(template), problem.question) for template in part_of(countdown.TALES, part))


def test_what_is_left_open_follows_the_split() -> None:
    explicit: tuple[Part, ...] = ("heldout", "heldout", "heldout")
    assert generate("worksheet", 5, seed=4, wording=NATURAL) == generate(
        "worksheet", 5, seed=4, wording=Wording("natural", *explicit)
    )
    explicit = ("train", "train", "train")
    assert generate("worksheet", 5, seed=4, split="train", wording=NATURAL) == generate(
        "worksheet", 5, seed=4, split="train", wording=Wording("natural", *explicit)
    )


@pytest.mark.parametrize("style", ["plain", "natural"])
@pytest.mark.parametrize(
    ("family", "count"), [(family, count) for family in ("worksheet", "nested", "chain") for count in (2, 8)]
)
def test_calculations_have_the_requested_steps(style: Any, family: str, count: int) -> None:
    assert count in STEPS[family]
    for problem in generate(family, 5, seed=count, wording=Wording(style, steps=count)):
        if family == "chain":
            assert len(equations(render(problem.structured))) == count
        for block in blocks(problem):
            for path in block.paths:
                if len(path) == 1:
                    assert len(equations(str(path[0]))) == count


def test_cases_have_the_requested_steps() -> None:
    for style in ("plain", "natural"):
        for problem in generate("cases", 10, seed=1, wording=Wording(style, steps=5)):  # type: ignore[arg-type]
            assert all(len(equations(str(path[0]))) == 5 for path in blocks(problem)[0].paths)


@pytest.mark.parametrize("name", ["style", "vocabulary", "phrasings", "numbers"])
def test_unknown_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown {name} 'zzz': allowed are"):
        Wording(**{name: "zzz"})


def test_many_wordings() -> None:
    """A hundred problems hardly share a name, a thing and a phrasing."""
    drawn = generate("worksheet", 100, seed=8, split="train", wording=NATURAL)
    assert len(set().union(*map(names_in, drawn))) > 80
    openings = {re.sub(r"[A-Z]\w+|\d+", "_", problem.question)[:25] for problem in drawn}
    assert len(openings) > 30
