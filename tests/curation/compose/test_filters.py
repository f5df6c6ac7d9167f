"""Which answers are good enough to become a part."""

from __future__ import annotations

import pytest

from multiverse.curation.compose.filters import (
    check_language,
    check_refusal,
    check_repetition,
    check_topic,
    language,
    repetition,
    script,
)
from multiverse.curation.errors import ValidationError


def test_repetition_counts_runs_of_four_words() -> None:
    assert repetition("one two three four five six seven") == 0.0
    assert repetition("it is a cat. It is a cat. It is a cat.") == pytest.approx(1 - 4 / 9)
    assert repetition("1. what is joy 2. what is joy") == pytest.approx(0.0), "only three words"
    assert repetition("too short") == 0.0


@pytest.mark.parametrize("text", ["Bread is baked. Rice is boiled. Bread is baked.", "- a red ball\n- a red ball"])
def test_a_sentence_twice_is_repetition(text: str) -> None:
    with pytest.raises(ValidationError, match="stands in it twice"):
        check_repetition(text, 1.0)


def test_languages_and_scripts_are_told_apart() -> None:
    assert language("What does a nurse do?") == "en"
    assert language("Wie ist das Wetter und was ist mit dem Regen?") == "de"
    assert language("Pourquoi est-ce que le ciel est bleu et pas les arbres ?") == "fr"
    assert language("Rio Lima Oslo") == ""
    assert (script("Привет, мир"), script("你好"), script("hello"), script("12")) == ("cyrillic", "han", "latin", "")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the reason for it?", "Der Grund ist nicht bekannt, und es ist auch nicht die Zeit dafür."),
        ("What is bread?", "Хлеб это еда."),
    ],
)
def test_other_languages_are_rejected(question: str, answer: str) -> None:
    with pytest.raises(ValidationError, match="other language"):
        check_language(question, answer)
    check_language(question, "The reason is that it is a food of many people.")


def test_names_of_other_languages_are_no_language() -> None:
    check_language("Where is Rio de Janeiro?", "It is a city in the south of Brazil, and it is known for its beaches.")
    check_language("How do I become a lawyer?", "You have to study law, and then you have to pass an exam.")


def test_an_answer_uses_a_word_of_its_question() -> None:
    check_topic("How do I bake bread?", "Baking takes an hour.")
    check_topic("Why is it so?", "Because.")
    with pytest.raises(ValidationError, match="off the topic"):
        check_topic("Describe Sweden.", "The king ruled for many years.")


@pytest.mark.parametrize(
    "text", ["I'm sorry, I cannot do that.", "As an AI model, I have no body.", "I do not have access to it."]
)
def test_refusals_are_rejected(text: str) -> None:
    with pytest.raises(ValidationError, match="refusal"):
        check_refusal(text)
    check_refusal("I do not like it, but it is good. Sorry about that.")
