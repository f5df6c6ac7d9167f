"""What the words of a statement refer to, and statements that stand alone."""

from __future__ import annotations

import pytest

from multiverse.curation.dataflow.references import Reference, references, standing_alone, without_connective

NOTHING = Reference(frozenset(), "")


def second(question: str, first: str, text: str) -> Reference:
    return references(question, [first, text])[1]


@pytest.mark.parametrize(
    "text",
    [
        "This leaves 3 eggs.",
        "Of those, 3 are red.",
        "To that, he adds 3*4 = 12.",
        "Multiply that number by 3: 3*4 = 12.",
        "The same amount is spent on milk: 3*4 = 12.",
        "It weighs 3*4 = 12 pounds.",
        "They pay 3*4 = 12 dollars.",
        "The rest are 3*4 = 12.",
        "Repeat the process for the milk: 3*4 = 12.",
    ],
)
def test_words_that_refer_to_the_statement_before(text: str) -> None:
    assert second("How many eggs are there?", "Mia has 2*5 = 10 eggs.", text).needs == {0}


@pytest.mark.parametrize(
    "text",
    [
        "Tom has 3*4 = 12 eggs.",
        "He needs 3 pounds that are $4 each, so that's 3*4 = $12.",
        "There are 3 dogs that bark.",
        "It takes 3*4 = 12 minutes to cook the eggs.",
        "At the same time, Tom eats 3*4 = 12.",
        "The sum of the boys' ages is 3*4 = 12.",
    ],
)
def test_words_that_refer_to_nothing_else(text: str) -> None:
    assert second("How many eggs has Tom?", "Tom buys 2*5 = 10 eggs.", text).needs == frozenset()


def test_a_chain_of_pronouns_refers_to_its_beginning() -> None:
    found = references(
        "What does the truck do?", ["The new truck has 8 wheels.", "It weighs 3+4 = 7 tons.", "It carries 4 tons."]
    )
    assert [one.needs for one in found] == [frozenset(), {0}, {0}]


def test_one_person_needs_no_name() -> None:
    assert second("How much does Mia pay?", "Mia pays 2*5 = 10.", "She also pays 3*4 = 12.") == NOTHING


def test_a_pronoun_among_several_persons_gets_its_name() -> None:
    question = "How much do Tom and Ben pay?"
    assert second(question, "Tom pays 2*5 = 10.", "He also pays 3*4 = 12.") == Reference(frozenset(), "Tom")
    assert second(question, "Then Tom and Ben pay 2*5 = 10.", "He pays 3*4 = 12.").needs == frozenset()  # Tom is the subject


def test_he_and_she_tell_two_persons_apart() -> None:
    assert (
        second("How much do Tom and Mia pay? She pays less.", "Tom pays 2*5 = 10, as he said.", "She pays 3*4 = 12.") == NOTHING
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Then find the sum.", "Find the sum."),
        ("And so, he pays 3.", "He pays 3."),
        ("First, he pays 3.", "He pays 3."),
        ("First graders pay 3.", "First graders pay 3."),
        ("Second, calculate it.", "Calculate it."),
        ("So far he has paid 3.", "So far he has paid 3."),
        ("Therefore", "Therefore"),
        ("he pays", "He pays"),
    ],
)
def test_connectives(text: str, wanted: str) -> None:
    assert without_connective(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Then he also pays 3.", "Tom pays 3."),
        ("His dog eats 3.", "Tom's dog eats 3."),
        ("In May her mother pays 3.", "In May Tom's mother pays 3."),
        ("They give him 3.", "They give Tom 3."),
        ("There are 3.", "There are 3."),
    ],
)
def test_standing_alone(text: str, wanted: str) -> None:
    assert standing_alone(text, "Tom") == wanted
