"""IFEval: whether an answer follows instructions that can be checked, such as its length, its form, or words in it.

The 25 kinds of instruction and what follows them are those of the published grader (Zhou et al., "Instruction-Following
Evaluation for Large Language Models", 2023). Three things differ, all small: sentences are split by a rule instead of
NLTK's Punkt, words in capitals by a pattern instead of NLTK's tokenizer, and langdetect's seed is fixed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from ...errors import require
from .verdict import Verdict

Check = Callable[..., bool]


def grade_instructions(answer: str, names: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> Verdict:
    """Whether an answer follows all instructions (the strict measure of the published grader).

    Args:
        names: kinds of the instructions.
        arguments: of each.
    """
    broken = [name for name, own in zip(names, arguments, strict=True) if not follows(answer, name, own)]
    if not broken:
        return Verdict(True, answer)
    loosely = all(follows_loosely(answer, name, own) for name, own in zip(names, arguments, strict=True))
    note = " (it does, if first and last lines and stars are forgiven)" if loosely else ""
    return Verdict(False, answer, f"it does not follow {', '.join(broken)}{note}")


def follows(answer: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an answer follows one instruction; an empty one follows none."""
    return bool(answer.strip()) and CHECKS[name](answer, **arguments)


def follows_loosely(answer: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether it follows once its first line, its last line, or its stars are taken away."""
    lines = answer.split("\n")
    parts = ("\n".join(lines[first : len(lines) - last]).strip() for first, last in product((0, 1), repeat=2))
    return any(follows(text, name, arguments) for part in (answer, *parts) for text in (part, part.replace("*", "")))


def language_of(text: str) -> str | None:
    """The language's code by langdetect; `None` if it finds none.

    Raises:
        ExtraError: langdetect is not installed.
    """
    langdetect = require("langdetect", "eval")
    langdetect.DetectorFactory.seed = 0  # it samples, and would give the same text different languages
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None


def _relation(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


# -- words --


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _relation(len(re.findall(keyword, text, re.IGNORECASE)), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _relation(text.lower().count(letter.lower()), let_relation, let_frequency)


def _language(text: str, language: str) -> bool:
    found = language_of(text)
    return found is None or found == language  # a text without letters is in no wrong language


# -- length --


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _relation(count_sentences(text), relation, num_sentences)


_ABBREVIATIONS = frozenset("mr mrs ms dr prof sr jr st vs etc e.g i.e inc ltd co u.s fig al approx dept est".split())  # noqa: SIM905


def count_sentences(text: str) -> int:
    """Number of sentences.

    They end in ``.``, ``!`` or ``?`` before white space; not after abbreviations and initials, nor before a small letter.
    """
    count, start = 0, 0
    for found in re.finditer(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)", text):
        before = re.split(r"\s", text[start : found.start()].rstrip())[-1].lower().lstrip("(\"'")
        after = text[found.end() :].lstrip()[:1]
        if set(found[0]) == {"."}:
            initial = re.fullmatch(r"[a-z]", before) is not None and before != "i"
            if after and (after.islower() or before in _ABBREVIATIONS or initial):
                continue
        count += bool(text[start : found.end()].strip())
        start = found.end()
    return count + bool(text[start:].strip())


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return sum(bool(part.strip()) for part in parts) == num_paragraphs


def _words(text: str, num_words: int, relation: str) -> bool:
    return _relation(len(re.findall(r"\w+", text)), relation, num_words)


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = text.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if count != num_paragraphs or nth_paragraph > count or not paragraphs[nth_paragraph - 1].strip():
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


# -- content and form --


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(postscript_marker, re.escape(postscript_marker.lower())), text.lower()) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE)) == num_bullets


def _constrained(text: str) -> bool:
    return any(option in text for option in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def _highlights(text: str, num_highlights: int) -> bool:
    found = [*re.findall(r"\*[^\n\*]*\*", text), *re.findall(r"\*\*[^\n\*]*\*\*", text)]
    return sum(bool(one.strip("*").strip()) for one in found) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{section_spliter}\s?\d+\s?", text)) - 1 >= num_sections


def _json(text: str) -> bool:
    inner = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```").strip()
    try:
        json.loads(inner)
    except ValueError:
        return False
    return True


def _title(text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    answers = [part.strip() for part in parts if part.strip()]
    return len(answers) == 2 and answers[0] != answers[1]


def _repeats(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == '"' == text[-1]


# -- letters and commas --


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    words = re.findall(r"[^\W_]+(?:[-.&/][^\W_]+)*", text)
    return _relation(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def _in_english(text: str) -> bool:
    return language_of(text) in (None, "en")


def _capitals(text: str) -> bool:
    return text.isupper() and _in_english(text)


def _small_letters(text: str) -> bool:
    return text.islower() and _in_english(text)


def _no_comma(text: str) -> bool:
    return "," not in text


CHECKS: dict[str, Check] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _capitals,
    "change_case:english_lowercase": _small_letters,
    "punctuation:no_comma": _no_comma,
}
"""What follows each kind of instruction, by the names that the data set uses."""
