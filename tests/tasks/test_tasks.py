"""Generated problems: right solutions, reproducible, splits disjoint, with the requested shape."""

from __future__ import annotations

import hashlib
import pickle
import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.structure.render import render
from multiverse.structure.tree import Block, Document
from multiverse.tasks import (
    CALCULATIONS,
    DEPTHS,
    FAMILIES,
    WIDTHS,
    ExpressionRule,
    IntegerRule,
    Problem,
    Split,
    Wording,
    flatten,
    generate,
    problems,
    split_of,
)

families = pytest.mark.parametrize("family", FAMILIES)
seeds = st.integers(min_value=0, max_value=2**32)


def texts(problem: Problem) -> tuple[str, str]:
    return render(problem.structured), render(problem.sequential)


@families
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_problems_are_reproducible_and_picklable(family: str, seed: int) -> None:
    first = generate(family, 3, seed=seed, split="train")
    assert first == generate(family, 3, seed=seed, split="train")
    assert pickle.loads(pickle.dumps(first)) == first


@families
def test_two_seeds_give_different_problems(family: str) -> None:
    assert generate(family, 5, seed=1) != generate(family, 5, seed=2)


def test_the_first_problem_of_a_seed_is_fixed() -> None:
    (problem,) = generate("chain", 1, seed=0)
    assert split_of(problem.question) == "test"
    assert (
        problem.question == "Take the number 11. Take away 4, take away 2, take away 4, "
        "add 5, add 4, take away 8, triple it and halve it. What is the result?"
    )


def test_plain_wording_is_byte_for_byte_what_the_embedded_model_was_trained_on() -> None:
    digest = hashlib.sha256()
    for family in CALCULATIONS:
        for split in get_args(Split):
            for problem in generate(family, 150, seed=5, split=split):
                digest.update("".join((problem.question, *texts(problem))).encode())
    assert digest.hexdigest() == "a7f31058fcebc59fab4d9c6887683bbcf9381172f186d6407f6eb220de4cd48f"


@families
@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_check_accepts_the_answer_alone(family: str, seed: int) -> None:
    (problem,) = generate(family, 1, seed=seed, split="train")
    assert problem.structured.plain_answer == problem.sequential.plain_answer == f"Answer: {problem.answer}"
    for right in (problem.answer, f"Answer: {problem.answer}", f"  answer:{problem.answer} .\n", f"{problem.answer}."):
        assert problem.check(right)
    for wrong in ("", "Answer:", "-1", "9999", f"{problem.answer}1", f"{problem.answer} {problem.answer}", "().", "nan"):
        assert not problem.check(wrong)


def test_expression_rule_accepts_each_number_once_and_nothing_else() -> None:
    rule = ExpressionRule((3, 7, 5), "+-*", 50)
    for right in ("(3+7)*5", "5 * (7 + 3)", "((3)+7)*5"):
        assert rule.accepts(right)
    for wrong in ("50", "3+7*5", "(3+7)*5*1", "(3+7)*5+5-5", "-3+53", "10*5", "5(3+7)", "(3+7)*05", "7**5", "(3+7", "3,7"):
        assert not rule.accepts(wrong)
    assert not ExpressionRule((2, 3), "+-", 6).accepts("2*3")
    assert not rule.accepts("(" * 5000 + "50" + ")" * 5000)
    assert not rule.accepts("__import__('os')")


def test_integer_rule_accepts_decimal_digits_alone() -> None:
    assert IntegerRule(44).accepts("44")
    assert not any(IntegerRule(44).accepts(wrong) for wrong in ("45", "4 4", "44.0", "+44", "4_4", "٤٤"))


@families
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_train_and_test_are_disjoint(family: str, seed: int) -> None:
    train = {problem.question for problem in generate(family, 20, seed=seed, split="train")}
    test = {problem.question for problem in generate(family, 5, seed=seed, split="test")}
    assert not train & test
    if family in CALCULATIONS:
        assert {split_of(question) for question in train} == {"train"}
        assert {split_of(question) for question in test} == {"test"}


def test_an_instance_in_other_words_is_in_the_same_split() -> None:
    splits = {
        split_of(question)
        for question in (
            "Use 3, 7 and 5, each once, with +, - and * to make 50.",
            "Make 50 from 5, 3 and 7, using each number once with +, - and *.",
        )
    }
    assert len(splits) == 1


def bodies(document: Document) -> str:
    """The text of the thinking, without labels."""
    assert document.thinking is not None
    (text,) = flatten(document).thinking or ("",)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("family", CALCULATIONS)
@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_arithmetic_is_right_and_both_solutions_have_the_same_text(family: str, seed: int) -> None:
    for problem in generate(family, 2, seed=seed, split="train"):
        assert problem.sequential == flatten(problem.structured)
        text = bodies(problem.structured)
        facts = re.findall(r"(?<!\d)(\d+)([-+*/])(\d+)([=>])(\d+)", text)
        assert facts
        assert len(facts) == len(re.findall(r"\d[-+*/]\d+[=>]", text))
        for left, operator, right, relation, result in facts:
            a, b, c = int(left), int(right), int(result)
            value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else -1}[operator]
            assert value > c == 99 if relation == ">" else value == c, f"{left}{operator}{right}{relation}{result}"
            assert value >= 0
            assert relation == ">" or operator == "+" or c <= 99
        for values in re.findall(r"=(\d+)", text):
            assert int(values) <= 500
        for words in (problem.question, *texts(problem)):
            assert "{" not in words
            assert "  " not in words
        (line,) = problem.sequential.thinking or ("",)
        assert isinstance(line, str)
        assert "in parallel" not in line


@families
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_outlines_of_a_problem_are_distinct(family: str, seed: int) -> None:
    for problem in generate(family, 2, seed=seed, split="train"):
        outlines = [outline for _, block in problem.structured.blocks() for outline in block.outlines]
        assert len(outlines) == len(set(outlines))


@pytest.mark.parametrize(("family", "width"), [(family, width) for family in FAMILIES for width in WIDTHS[family]])
def test_blocks_have_the_requested_width(family: str, width: int) -> None:
    for problem in generate(family, 10, seed=width, split="train", width=width):
        outer = next(block for depth, block in problem.structured.blocks() if depth == 1)
        if family == "countdown":
            assert isinstance(problem.rule, ExpressionRule)
            assert len(problem.rule.numbers) == width
            assert len(outer.paths) == {3: 3, 4: 2}[width]
        else:
            assert len(outer.paths) == width


@pytest.mark.parametrize("depth", DEPTHS["nested"])
def test_documents_have_the_requested_depth(depth: int) -> None:
    for problem in generate("nested", 10, seed=depth, depth=depth):
        assert problem.structured.depth == depth


@families
def test_random_shapes_cover_the_range(family: str) -> None:
    drawn = generate(family, 200, seed=0, split="train")
    shapes = {problem.structured.depth for problem in drawn}
    assert shapes == {"nested": {2, 3}, "chain": {0}}.get(family, {1})
    if family in ("worksheet", "cases"):
        assert {problem.structured.branches for problem in drawn} == set(WIDTHS[family])
    if family in ("lookup", "listing", "sorting"):
        assert {problem.structured.branches for problem in drawn} == {2, 3, 4, 5}


def test_chain_has_no_block() -> None:
    for problem in generate("chain", 200, seed=3, split="train"):
        assert not any(isinstance(item, Block) for item in problem.structured.thinking or ())
        assert problem.structured == problem.sequential
        assert 4 <= bodies(problem.structured).count("=") <= 9


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_countdown_marks_the_expressions_that_reach_the_target(seed: int) -> None:
    (problem,) = generate("countdown", 1, seed=seed, split="train")
    assert isinstance(problem.rule, ExpressionRule)
    (_, block), *_ = problem.structured.blocks()
    found: list[str] = []
    for (text,) in block.paths:
        assert isinstance(text, str)
        leaves = re.findall(r"=(\d+)([,.!])", text)
        assert [int(value) == problem.rule.target for value, _ in leaves] == [mark == "!" for _, mark in leaves]
        found += re.findall(r"Yes: (.+)\.$", text)
        assert ("!" in text) != text.endswith("No.")
    assert found[0] == problem.answer
    assert block.conclusion == f"This works: {problem.answer}."
    assert all(problem.check(expression) for expression in found)


@pytest.mark.parametrize("instance", [*generate("worksheet", 30, seed=9, width=4), *generate("worksheet", 30, seed=9, width=6)])
def test_wide_worksheets_are_mostly_paths(instance: Problem) -> None:
    ((_, block),) = instance.structured.blocks()
    work = sum(len(str(path[0])) for path in block.paths)
    assert work > 3 * (sum(map(len, block.outlines)) + len(block.conclusion))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"family": "sudoku"}, ("'sudoku'", "worksheet")),
        ({"family": "worksheet", "width": 7}, ("width 7", "2, 3, 4, 5, 6")),
        ({"family": "worksheet", "width": 0}, ("width 0", "2, 3, 4, 5, 6")),
        ({"family": "countdown", "width": 2}, ("width 2", "3, 4")),
        ({"family": "cases", "depth": 2}, ("depth 2", "'cases'", "leave it out")),
        ({"family": "chain", "width": 2}, ("width 2", "'chain'", "leave it out")),
        ({"family": "chain", "depth": 0}, ("depth 0", "'chain'", "leave it out")),
        ({"family": "nested", "depth": 4}, ("depth 4", "2, 3")),
        ({"family": "nested", "width": 3, "depth": 3}, ("width 3", "depth 3", "2")),
        ({"family": "chain", "split": "dev"}, ("'dev'", "train, test")),
        ({"family": "lookup", "width": 9}, ("width 9", "'lookup'", "7, 8")),
        ({"family": "lookup", "wording": Wording("plain")}, ("'plain'", "'lookup'", "leave it out")),
        ({"family": "chain", "wording": Wording(vocabulary="heldout")}, ("vocabulary 'heldout'", "add wording 'natural'")),
        ({"family": "worksheet", "wording": Wording(steps=9)}, ("steps 9", "7, 8")),
        ({"family": "sorting", "wording": Wording(steps=2)}, ("steps 2", "'sorting'", "leave it out")),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the words are checked below
        problems(seed=0, **arguments)
    assert all(word in str(error.value) for word in words)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        generate("chain", -1, seed=0)
    assert generate("chain", 0, seed=0) == []
