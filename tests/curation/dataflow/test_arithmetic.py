"""Expressions evaluated exactly, and numbers with the words around them."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curation.dataflow.arithmetic import Mention, evaluate, mentions, number, shown, stated


@pytest.mark.parametrize(
    ("expression", "value", "operands"),
    [
        ("48/2", 24, [48, 2]),
        ("2+3*4", 14, [2, 3, 4]),
        ("(2+3)*4", 20, [2, 3, 4]),
        ("1,000 - 0.5", "1999/2", [1000, "1/2"]),
        (".75*.2", "3/20", ["3/4", "1/5"]),
        ("20%*50", 10, [20, 50]),
        ("3(4+5)", 27, [3, 4, 5]),
        ("-48/4", -12, [48, 4]),
        ("2^3", 8, [2, 3]),
        ("1/3+1/6", "1/2", [1, 3, 1, 6]),
        ("10×3÷4", "15/2", [10, 3, 4]),
        ("8-3-2", 3, [8, 3, 2]),
        ("100/5/2", 10, [100, 5, 2]),
    ],
)
def test_evaluate(expression: str, value: str | int, operands: list[str | int]) -> None:
    found = evaluate(expression)
    assert found.value == Fraction(value)
    assert found.operands == tuple(Fraction(one) for one in operands)


@pytest.mark.parametrize(
    "expression", ["", "2+", "1/0", "2 3", "(1+2", "1)", "two", "2**3**9", "2^99999", "(" * 50 + "1" + ")" * 50, "9" * 60]
)
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        evaluate(expression)


@given(st.text(alphabet="0123456789+-*/()x%^., ", max_size=30))
def test_any_text_gives_a_value_or_an_error(text: str) -> None:
    with suppress(ValueError):
        evaluate(text)


def test_rounded_values() -> None:
    third = Fraction(10, 3)
    assert [stated(text, third) for text in ("3.33", "3.3", "3.34", "3", "3.30")] == [True, True, True, False, False]
    assert stated("24", Fraction(24))
    assert stated("0.666", Fraction(2, 3))
    assert not stated("0.5", Fraction(2, 3))


def test_shown() -> None:
    assert [shown(Fraction(text)) for text in ("24", "-3", "1/2", "1/8", "1/3", "5/4")] == [
        "24",
        "-3",
        "0.5",
        "0.125",
        "1/3",
        "1.25",
    ]
    assert number("1,234.50") == Fraction(2469, 2)


def values(text: str, **options: bool) -> list[tuple[Fraction, str]]:
    return [(mention.value, mention.unit) for mention in mentions(text, **options)]


def test_mentions_have_units() -> None:
    found = values("He pays $3 for 12 clips, 20% of 1,500 and .5 more dollars.", words=False)
    wanted = [("3", "$"), ("12", "clip"), ("20", "%"), ("1500", ""), ("1/2", "$")]
    assert found == [(Fraction(value), unit) for value, unit in wanted]


def test_mentions_in_words() -> None:
    found = [
        mention.value for mention in mentions("Twenty-five boys and two hundred girls ate half of three dozen eggs twice.")
    ]
    assert found == [25, 200, Fraction(1, 2), 3, 12, 2]


def test_ordinals_are_no_numbers() -> None:
    assert values("On the 3rd day of the 21st week") == []


def forms(text: str) -> frozenset[Fraction]:
    (mention,) = (one for one in mentions(text) if isinstance(one, Mention) and one.start < 12)
    return mention.forms


def test_forms() -> None:
    assert {Fraction(20), Fraction(1, 5), Fraction(4, 5), Fraction(80), Fraction(6, 5)} <= forms("20% off")
    assert Fraction(1, 4) in mentions("3/4 of it")[0].forms
    assert Fraction(5 * 10**6) in mentions("5 million people")[0].forms
    assert Fraction(1, 20) in mentions("a nickel")[0].forms
