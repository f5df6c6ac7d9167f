"""What composition does with English sentences: join questions, shorten them to outlines, name what they are about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_SMALL_WORDS = (
    "a an and are at can compare could describe did discuss do does explain for from give had has have help how if in is list"
    " may mention might name of on outline please recommend say share should show suggest summarize tell the to was were"
    " what when where which who whom whose why will with would write your"
)
_STARTERS = frozenset(_SMALL_WORDS.split())
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SINGULAR_VERBS = {"is": "are", "does": "do", "was": "were", "has": "have"}

# How a request becomes an outline, first match first; what is not listed is kept as it is.
_OUTLINES: tuple[tuple[str, str], ...] = (
    (r"(?:please )?give (?:me )?(an? .+)", r"\1"),
    (r"what is your advice on (.+)", r"advice on \1"),
    (r"(?:please )?tell me (?:something )?about (.+)", r"\1"),
    (r"(?:please )?(?:tell|explain to) me ((?:why|how|what|when|where|who) .+)", r"\1"),
    (r"(?:please )?(?:help me understand|describe|explain) ((?:why|how|what|when|where|who) .+)", r"\1"),
    (r"(?:do you know|can you describe|can you explain|could you explain) ((?:why|how|what|when|where|who) .+)", r"\1"),
    (r"(?:please )?help me understand (.+)", r"\1"),
    (r"can you introduce (.+) to me", r"\1"),
    (r"what should i know about (.+)", r"facts about \1"),
    (r"(?:please )?explain (.+) in simple words", r"\1 in simple words"),
)
_RULES = tuple((re.compile(pattern, re.IGNORECASE), result) for pattern, result in _OUTLINES)


def number_word(number: int) -> str:
    """The number as a word, up to twelve."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def capitalized(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def bare(question: str) -> str:
    """The question without its final punctuation."""
    return question.strip().rstrip("?.! ")


def is_question(text: str) -> bool:
    """Whether a sentence ends as a question."""
    return text.rstrip().endswith("?")


def in_sentence(question: str) -> str:
    """The question as a part of a sentence: no final punctuation, a small letter if it begins with a word that takes one."""
    text = bare(question)
    first = re.match(r"[A-Za-z']+", text)
    if first and first[0].casefold() in _STARTERS and first[0][1:].islower() | (len(first[0]) == 1):
        return text[0].lower() + text[1:]
    return text


def joined(items: Sequence[str], *, oxford: bool = False, word: str = "and") -> str:
    """Items as an enumeration: ``a``, ``a and b``, ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    comma = "," if oxford and len(items) > 2 else ""
    return f"{', '.join(items[:-1])}{comma} {word} {items[-1]}"


def running_text(questions: Sequence[str], *, oxford: bool) -> str:
    """Questions as one sentence, which ends as its last one does."""
    return joined([in_sentence(one) for one in questions], oxford=oxford) + ("?" if is_question(questions[-1]) else ".")


def outline(question: str) -> str:
    """The outline of a question: the question itself, or what a request asks for, without what makes it a request."""
    text = " ".join(question.split())
    for pattern, result in _RULES:
        if pattern.fullmatch(bare(text)):
            return capitalized(pattern.sub(result, bare(text)))
    return text if is_question(text) else bare(text)


def pluralized(template: str, items: Sequence[str]) -> str:
    """One question about several items, from the wording of the question about one: the verb agrees with all of them."""
    words = template.split(" ")
    for number, (word, after) in enumerate(pairwise(words)):
        plural = _SINGULAR_VERBS.get(word.lower())
        if plural is not None and after.startswith("{x}"):
            words[number] = capitalized(plural) if word[0].isupper() else plural
    return " ".join(words).replace("{x}", joined(items))


def names_a_thing(template: str) -> bool:
    """Whether the item of a wording is a noun, not a clause or a verb (``Explain why {x}.``, ``How can I {x}?``)."""
    return re.search(r"\b(?:to|I|why|how|that|when|what) \{x\}", template) is None


def noun_request(template: str) -> tuple[str, str, str] | None:
    """Verb, noun and link of a wording that asks for one thing of a kind: ``Give me``, ``tip``, ``on how to``; else `None`."""
    found = re.fullmatch(r"(Give me|Give|Tell me|Name|Suggest|Recommend) an? ([a-z]+) (.*)\{x\}\.?", template)
    return (found[1], found[2], found[3].strip()) if found else None
