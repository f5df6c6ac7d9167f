"""Instructions: all 25 kinds, each followed and not followed, at the edges where graders differ."""

from __future__ import annotations

from typing import Any

import pytest

from multiverse.evaluation.graders.instructions import CHECKS, count_sentences, follows, follows_loosely, grade_instructions

ENGLISH = "This is a perfectly ordinary sentence about the weather in spring"
GERMAN = "Das ist ein ganz gewöhnlicher Satz über das Wetter im Frühling"

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["tea", "milk"]}, "Milk in TEA.", "Tea only."),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "at least"}, "Tea, tea.", "Tea."),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "less than"}, "Tea.", "Teatea."),
    ("keywords:forbidden_words", {"forbidden_words": ["tea"]}, "A steamed team.", "No Tea!"),
    ("keywords:letter_frequency", {"letter": "Z", "let_frequency": 2, "let_relation": "at least"}, "zZ", "z"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two.", "Dr. No, e.g. one."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Only one", "One! Two?"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\none\n***\ntwo", "one *** *** two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b-c", "a b"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        'First.\n\n"Then, it rained.',
        "First.\n\nThere.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\np. s. more", "Bye, PS"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye. P.P.S more", "Bye. P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n - two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and ** **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "Section 1\na\nSection 2",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Tea>>\nIt is good.", "<< >> Tea"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. Fine.", "Fine. Say it."),
    ("startend:end_checker", {"end_phrase": "That is all."}, 'So: "that is all."', "That is all. Bye."),
    ("startend:quotation", {}, '"Tea."', '"Tea'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "SO GOOD it is",
        "So GOOD",
    ),
    ("punctuation:no_comma", {}, "No such thing.", "One, two."),
]
LANGUAGE_CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_capital", {}, ENGLISH.upper(), GERMAN.upper()),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), ENGLISH),
]


def test_every_kind_is_tested() -> None:
    assert {name for name, *_ in (*CASES, *LANGUAGE_CASES)} == set(CHECKS)
    assert len(CHECKS) == 25


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_follows(name: str, arguments: dict[str, Any], good: str, bad: str) -> None:
    assert follows(good, name, arguments)
    assert not follows(bad, name, arguments)
    assert not follows(" ", name, arguments)


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), LANGUAGE_CASES)
def test_follows_in_a_language(name: str, arguments: dict[str, Any], good: str, bad: str) -> None:
    pytest.importorskip("langdetect", reason="the extra [eval] is not installed")
    assert follows(good, name, arguments)
    assert not follows(bad, name, arguments)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("no end", 1),
        ("One. Two.", 2),
        ("One. Two", 2),
        ("Dr. Who met Mr. No.", 1),
        ("It costs 3.50 dollars.", 1),
        ("Really?! Yes... maybe.", 2),
        ('She said "no." Then left.', 2),
        ("J. S. Bach wrote it. I did not.", 2),
        ("e.g. this one.", 1),
        ("One.\n\nTwo.\n- three", 3),
    ],
)
def test_count_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_verdicts() -> None:
    names, arguments = ["punctuation:no_comma", "startend:quotation"], [{}, {}]
    assert grade_instructions('"Tea."', names, arguments).right
    broken = grade_instructions("Tea, please", names, arguments)
    assert not broken.right
    assert broken.why == "it does not follow punctuation:no_comma, startend:quotation"
    forgiven = grade_instructions('Sure, here it is:\n"Tea."', names, arguments)
    assert not forgiven.right
    assert "it does, if first and last lines and stars are forgiven" in forgiven.why
    assert follows_loosely("**hello**", "detectable_format:json_format", {}) is False
    assert follows_loosely('**"hello"**', "startend:quotation", {})
