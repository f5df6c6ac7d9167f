"""What an answer has to be before it may become a part of a document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..errors import ValidationError
from .phrases import bare

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_GRAM = 4  # words

# The commonest words of a language, which every few sentences of it hold.
_COMMON = {
    "en": "the of and to in is that it for are as with this be they a can or you what why how who where when do does me my i",
    "de": "der die das und ist zu den von mit nicht ein eine es sich auf für sie auch werden",
    "fr": "le la les de des et est un une que pour dans il elle qui sur pas sont du",
    "es": "el la los las de y es un una que en por para con se del su no son como",
    "it": "il la le di e è un una che per in con si del della non sono i gli come",
    "pt": "o a os as de e é um uma que em por para com se do da não são como",
    "nl": "de het een en is van in op dat te zijn voor met niet die ook aan door als er",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _COMMON.items()}
_SURE = 0.15  # of the words of a text: below, its language is not known
_FUNCTION_WORDS = (
    "a an the of and or to in on for with is are was were do does did how why what who when where it its my me i you"
)
_SMALL = frozenset(_FUNCTION_WORDS.split())

_REFUSAL = re.compile(
    r"^(?:i'?m sorry|i am sorry|sorry,|i apologi[sz]e|i cannot|i can'?t|as an ai\b|i do(?:n'?t| not) have (?:access|enough))",
    re.IGNORECASE,
)


def repetition(text: str) -> float:
    """Share of the runs of four words that came before in the text, letter case and numbers apart."""
    words = [word.casefold() for word in _WORD.findall(text)]
    grams = [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repeated_sentence(text: str) -> str:
    """A sentence or line of at least three words that stands in the text twice; empty if there is none."""
    pieces = (" ".join(_WORD.findall(piece.casefold())) for piece in re.split(r"(?<=[.!?])\s+|\n", text))
    counts = Counter(piece for piece in pieces if len(piece.split()) >= 3)
    return next((piece for piece, count in counts.items() if count > 1), "")


def script(text: str) -> str:
    """The script of most letters, as a range of Unicode: ``latin``, ``cyrillic``, ...; empty without letters."""
    counts = Counter(_script(character) for character in text if character.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


_SCRIPTS = (
    (0x0250, "latin"), (0x0370, "other"), (0x0400, "greek"), (0x0530, "cyrillic"), (0x0590, "armenian"), (0x0600, "hebrew"),
    (0x0780, "arabic"), (0x0900, "other"), (0x0980, "devanagari"), (0x0E00, "indic"), (0x0E80, "thai"), (0x1E00, "other"),
    (0x2000, "latin"), (0x3040, "other"), (0x3100, "kana"), (0xA000, "han"), (0xAC00, "other"), (0xD7B0, "hangul"),
)  # fmt: skip


def _script(character: str) -> str:
    code = ord(character)
    return next((name for end, name in _SCRIPTS if code < end), "other")


def language(text: str) -> str:
    """The language of a text by its commonest words, as a code of two letters; empty if it is not one that is known."""
    words = [word.casefold() for word in _WORD.findall(text)]
    if not words:
        return ""
    hits = Counter({name: sum(word in common for word in words) for name, common in _LANGUAGES.items()})
    (best, most), (_, second) = hits.most_common(2)
    return best if most >= max(2, _SURE * len(words), 1.5 * second) else ""


def check_language(question: str, answer: str) -> None:
    """The answer is in the script of the question, and in its language where both are known."""
    there, here = script(question), script(answer)
    same_script = there == here or {there, here} <= {"kana", "han"}
    if there and here and not same_script:
        raise ValidationError("other language", f"the question is in {there} letters, the answer in {here} ones")
    asked, given = language(question), language(answer)
    if asked and given and asked != given:
        raise ValidationError("other language", f"the question is in {asked!r}, the answer in {given!r}")


def check_repetition(text: str, most: float) -> None:
    """The answer does not go round in circles."""
    twice = repeated_sentence(text)
    if twice:
        raise ValidationError("repetition", f"a sentence stands in it twice: {twice[:80]!r}")
    found = repetition(text)
    if found > most:
        raise ValidationError("repetition", f"{found:.0%} of its runs of four words came before, at most {most:.0%} may")


def check_topic(question: str, answer: str) -> None:
    """The answer uses a content word of the question, if that has one; of a word the first letters count, for its endings."""
    stems = {word[: min(5, max(3, len(word) - 1))] for word in _content(question)}
    words = [word.casefold() for word in _WORD.findall(answer)]
    if stems and not any(word.startswith(tuple(stems)) for word in words):
        raise ValidationError("off the topic", f"no content word of the question is in it: {', '.join(sorted(stems))}")


def _content(text: str) -> Sequence[str]:
    words = [word.casefold() for word in _WORD.findall(bare(text))]
    return [word for word in words if word not in _SMALL and len(word) > 2]


def check_refusal(text: str) -> None:
    """The answer is one."""
    if _REFUSAL.match(text.strip()):
        raise ValidationError("refusal", f"the model refuses: {text.strip()[:80]!r}")
