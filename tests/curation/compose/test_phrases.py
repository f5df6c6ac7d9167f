"""What composition does with sentences."""

from __future__ import annotations

import pytest

from multiverse.curation.compose import phrases
from multiverse.curation.compose.questions import Answered, Question
from multiverse.curation.compose.requests import hint_for_each, kind_words, name, ordered


@pytest.mark.parametrize(
    ("question", "outline"),
    [
        ("What is bread?", "What is bread?"),
        ("Tell me about cats.", "Cats"),
        ("Give me a tip on saving money.", "A tip on saving money"),
        ("Explain why the sky is blue.", "Why the sky is blue"),
        ("Do you know how magnets work?", "How magnets work"),
        ("Explain gravity in simple words.", "Gravity in simple words"),
        ("What is your advice on how to sleep better?", "Advice on how to sleep better"),
        ("Describe Paris.", "Describe Paris"),
        ("Warum ist der Himmel blau?", "Warum ist der Himmel blau?"),
    ],
)
def test_outlines_keep_what_is_asked(question: str, outline: str) -> None:
    assert phrases.outline(question) == outline


def test_questions_become_one_sentence() -> None:
    three = ["What is bread?", "Describe Paris.", "Why is the sky blue?"]
    assert phrases.running_text(three, oxford=True) == "what is bread, describe Paris, and why is the sky blue?"
    assert phrases.running_text(three[:2], oxford=True) == "what is bread and describe Paris."
    assert phrases.in_sentence("Paris or Rome?") == "Paris or Rome"
    assert phrases.in_sentence("I am lost.") == "I am lost"


@pytest.mark.parametrize(
    ("template", "question"),
    [
        ("What is {x} used for?", "What are a saw and a map used for?"),
        ("How does {x} work?", "How do a saw and a map work?"),
        ("Is {x} good for me?", "Are a saw and a map good for me?"),
        ("What is the capital of {x}?", "What is the capital of a saw and a map?"),
        ("Describe {x}.", "Describe a saw and a map."),
    ],
)
def test_one_question_about_several_items(template: str, question: str) -> None:
    assert phrases.pluralized(template, ["a saw", "a map"]) == question


def test_kinds_are_kept() -> None:
    words = kind_words("Give me a tip on how to {x}.", ["sleep", "save money", "read"])
    assert words["nouns"] == "tips"
    assert words["ones"] == "one on how to sleep, one on how to save money, and one on how to read"
    assert phrases.noun_request("What is {x}?") is None


def test_names_of_parts() -> None:
    def part(text: str, item: str = "", template: str = "") -> Answered:
        return Answered(Question("q", text, text, item, template), "An answer.")

    assert name(part("What is a saw used for?", "a saw", "What is {x} used for?")) == "a saw"
    assert name(part("How can I sleep?", "sleep", "How can I {x}?")) == "", "a verb is no name"
    assert name(part("Explain why bread rises.", "bread rises", "Explain why {x}.")) == "why bread rises"
    assert name(part("Why does popcorn pop?", "popcorn pops")) == ""


def test_ordinal_words_and_hints() -> None:
    texts = ["What is bread?", "Describe Paris."]
    assert ordered("First, {1} Second, {2} Third, {3}", texts) == "First, what is bread? Second, describe Paris."
    assert ordered("One: {1} Two: {2} Three: {3}", ["Is {2} odd?", "Why?"]) == "One: Is {2} odd? Two: Why?"
    assert hint_for_each("Answer in a short paragraph.") == "Answer each in a short paragraph."
    assert hint_for_each("Write a paragraph of about 100 words.") == "Write a paragraph of about 100 words on each."
    assert hint_for_each("Sei kurz.") == ""
