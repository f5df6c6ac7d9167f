"""Rules: right answers in any reasonable form, and wrong ones."""

from __future__ import annotations

import pytest

from multiverse.tasks import ClassesRule, ListRule, NumberRule, Problem, generate

LIST = ListRule((("Paris",), ("cold", "chilly"), ("12",)))
CLASSES = ClassesRule((("trout", "fish"), ("owl", "bird"), ("cod", "fish")))


@pytest.mark.parametrize(
    "answer", ["41", "41 marbles", "**41**", "24 + 17 = 41", "They have 41 marbles in all", "41.0", "$41", "It is 41!"]
)
def test_a_number_is_right_in_any_words(answer: str) -> None:
    assert NumberRule(41).accepts(answer)


@pytest.mark.parametrize(
    "answer", ["", "42", "-41", "4 1", "41 or 42", "not 41", "41 41", "410", "41.5", "41=42", "forty", "x" * 3000]
)
def test_a_wrong_number_is_not(answer: str) -> None:
    assert not NumberRule(41).accepts(answer)


def test_thousands_may_be_set_apart() -> None:
    assert NumberRule(1041).accepts("1,041 marbles")
    assert not NumberRule(1041).accepts("1,04,1")


@pytest.mark.parametrize(
    "answer",
    [
        "Paris; cold; 12",
        "paris, cold, 12",
        "Paris, chilly and 12",
        "Paris, cold, and 12",
        "1. Paris\n2. cold\n3. 12",
        "- **Paris**\n- Cold\n- 12 letters",
        "capital of France: Paris; opposite of hot: cold; sum: 12",
        "The capital is Paris; the opposite of hot is cold; there are 12",
        "(a) Paris; (b) cold; (c) 5+7=12",
    ],
)
def test_a_list_is_right_in_any_layout(answer: str) -> None:
    assert LIST.accepts(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Paris; cold",
        "Paris; cold; 12; 13",
        "cold; Paris; 12",
        "Paris; hot; 12",
        "Paris; not cold; 12",
        "Paris or Rome; cold; 12",
        "Paris; cold; 13",
        "Paris; cold; 1 2",
        "Paris cold 12",
        "Parisian; cold; 12",
    ],
)
def test_a_wrong_list_is_not(answer: str) -> None:
    assert not LIST.accepts(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "trout: fish; owl: bird; cod: fish",
        "Cod: fish, Trout: fish, Owl: bird",
        "fish: trout, cod; bird: owl",
        "Fish: cod and trout. Birds: owl",
        "- trout: fish\n- owl: bird\n- cod: fish",
        "The trout is a fish; the owl is a bird; the cod is a fish",
        "trout - fish\nowl - bird\ncod - fish",
        "**fish**: the trout, the cod\n**bird**: the owl",
    ],
)
def test_classes_are_right_item_by_item_and_class_by_class(answer: str) -> None:
    assert CLASSES.accepts(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "fish",
        "trout: fish; owl: bird",
        "trout: fish; owl: fish; cod: fish",
        "trout: fish; owl: bird; cod: fish; cod: bird",
        "fish: trout, cod, owl; bird: owl",
        "fish: trout, cod; bird: owl, crow",
        "trout, cod; owl",
        "trout: fish owl: bird cod: fish",
    ],
)
def test_wrong_classes_are_not(answer: str) -> None:
    assert not CLASSES.accepts(answer)


def problem() -> Problem:
    return generate("worksheet", 1, seed=1)[0]


def test_what_stands_before_the_answer_line_is_left_out() -> None:
    one = problem()
    assert one.check(f"First 3+4=7.\n\nAnswer: {one.answer}")
    assert not one.check(f"Answer: {one.answer}\nAnswer: 1")
    assert not one.check(f"The answer: {one.answer} or so")
