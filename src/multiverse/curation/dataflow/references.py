"""References by words: which earlier statement a sentence speaks of without its number, and sentences that stand alone.

*This*, *that number*, *the rest* and *they* tie a statement to one before it, as a number does. A name and a pronoun for it are
told apart: where a sentence loses the one before it, the pronoun is replaced by the name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .words import NO_NAMES

_VERBS = (
    "find|calculate|compute|determine|figure|convert|add|subtract|multiply|divide|take|use|let|let's|we|you|I|he|she|they|it"
)
_CONNECTIVE = re.compile(
    rf"(?:(?:and then|and|but|so(?! far| many| much)|then|now|also|finally|lastly|meanwhile|afterwards?(?=,)"
    rf"|after that|after this|therefore|thus|hence|as a result|in addition|additionally|similarly|likewise|again|moreover"
    rf"|furthermore|on the other hand|at the same time|on top of that|in the meantime"
    rf"|however|as well|consequently|accordingly|in turn)\b(?:,|:)?\s+"
    rf"|(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|next|last)(?:(?:,|:)\s+|\s+(?=(?:{_VERBS})\b)))",
    re.IGNORECASE,
)
_THEN = re.compile(r"(?<=[a-z]) (?:then|also)(?= [a-z])")
DEMONSTRATIVE = re.compile(
    r"(?<!do )\b(?:this|these|those)\b(?! (?:week|month|year|way|morning|afternoon|evening|summer|winter|time|problem"
    r"|question)\b)"
    r"|(?<!\w)that\b(?=(?: \w+)? (?:number|amount|total|sum|result|cost|price|many|much|quantity|figure|value|distance|time|day"
    r"|is|was|means?|makes?|leaves?|gives?|equals?|would|will|brings?)\b|,)"
    r"|\b(?:of|than|from|to|by|plus|minus|times|half|twice|divide|multiply|add|subtract|double|triple|at|with) that\b"
    r"|\bthat(?:'s|’s)\b",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"\b(?:the (?:rest|remainder|others?|former|latter)|the same(?! time)"
    r"|the (?:result|difference|sum|product|answer|quotient)(?! of)"
    r"|repeat(?:ing|ed)?|the process|the procedure|previous(?:ly)?"
    r"|as before|respectively|the second number|the first number|instead)\b",
    re.IGNORECASE,
)
_THINGS = re.compile(r"\b(?:it|its|they|them|their|theirs)\b", re.IGNORECASE)
_EXPLETIVE = re.compile(
    r"it (?:will |would |should |only )*(?:(?:takes?|took|is|was) (?![\d$])|(?:takes?|took|costs?)\b.*\b(?:to|for)\b)",
    re.IGNORECASE,
)
_PERSONS = {
    "he": "m",
    "his": "m",
    "him": "m",
    "himself": "m",
    "she": "f",
    "her": "f",
    "hers": "f",
    "herself": "f",
}
_PERSON = re.compile(rf"\b(?:{'|'.join(_PERSONS)})\b", re.IGNORECASE)
_CAPITAL = re.compile(r"(?<![\w'’])[A-Z][a-z]+(?:-[A-Z][a-z]+)?(?:\s[A-Z][a-z]+)*(?=['’]s|\b)")


_SUBJECT = 2  # words before the name that is the subject of a sentence
_CLAUSE = 4  # words of a clause that can be referred to within its sentence


class Reference(NamedTuple):
    """What a statement's words refer to.

    Attributes:
        needs: the earlier statements without which it cannot be read.
        name: whom its first pronoun means, where that is a name of an earlier statement; empty elsewhere.
    """

    needs: frozenset[int]
    name: str


def references(question: str, texts: Sequence[str]) -> list[Reference]:
    """The references of every statement of a solution, given the texts of all."""
    reader = _Reader(question, texts)
    return [reader.reference(at) for at in range(len(texts))]


def names(text: str) -> set[str]:
    """Capitalised words that begin no ordinary sentence."""
    return set(named(text))


def named(text: str) -> list[str]:
    """The names of a text in order."""
    return [name for match in _CAPITAL.finditer(text) for name in [_name(match[0])] if name]


def _within(before: str) -> bool:
    """Whether a sentence has already said, before this place, what a demonstrative may mean."""
    return len(before.split()) >= _CLAUSE and any(character.isdigit() for character in before)


def _name(text: str) -> str:
    words = [word for word in text.split() if word not in NO_NAMES]
    return words[0] if words else ""


class _Reader:
    def __init__(self, question: str, texts: Sequence[str]) -> None:
        self.question, self.texts = question, texts
        self.names = names(question)
        everything = " ".join([question, *texts])
        self.genders = {_PERSONS[match[0].lower()] for match in _PERSON.finditer(everything)}

    def reference(self, at: int) -> Reference:
        text, needs = without_connective(self.texts[at]), set()
        if at and self._back(text):
            needs.add(at - 1)
        if (thing := self._thing(text)) and at:
            antecedent = at - 1
            while antecedent > 0 and self._thing(without_connective(self.texts[antecedent])) == thing:
                antecedent -= 1
            if self._thing(without_connective(self.texts[antecedent])) != thing:
                needs.add(antecedent)
        needed, name = self._person(at, text)
        return Reference(frozenset(needs | needed), name)

    def _back(self, text: str) -> bool:
        """Whether the words point back to what has just been found."""
        if (match := DEMONSTRATIVE.search(text)) and not _within(text[: match.start()]):
            return True
        return any(match[0].lower() not in self.question.lower() for match in _BACK.finditer(text))

    def _thing(self, text: str) -> str:
        """The first pronoun for a thing or a group, if nothing in the same sentence can be what it means."""
        match = _THINGS.search(text)
        if match is None or _EXPLETIVE.match(text, match.start()) or len(text[: match.start()].split()) >= 3:
            return ""
        word = match[0].lower()
        if word.startswith("the") and re.search(r"\b(?:they|them|their)\b", self.question, re.IGNORECASE):
            return ""
        return "they" if word.startswith("the") else "it"

    def _person(self, at: int, text: str) -> tuple[set[int], str]:
        """The statement that a pronoun for a person needs, or the name that it means."""
        match = _PERSON.search(text)
        if match is None or names(text[: match.start()]) or len(self.names) <= 1 or not at:
            return set(), ""
        if len(self.genders) > 1:
            return (set(), "") if len(self.names) == 2 else ({at - 1}, "")
        for before in range(at - 1, -1, -1):
            found = [name for name in named(without_connective(self.texts[before])) if name in self.names]
            if len(set(found)) == 1 or (found and self.texts[before].partition(found[0])[0].count(" ") <= _SUBJECT):
                return set(), found[0]
            if found:
                return {before}, ""
        return set(), ""


def without_connective(text: str) -> str:
    """A text that begins with a capital, without the words that tie it to the text before."""
    while (match := _CONNECTIVE.match(text)) and match.end() < len(text):
        text = text[match.end() :]
    return text[:1].upper() + text[1:]


def standing_alone(text: str, name: str) -> str:
    """A statement as the first of a path: without a connective, and with a name in place of its first pronoun."""
    text = _THEN.sub("", without_connective(text), count=1)
    return _named(text, name) if name else text


def _named(text: str, name: str) -> str:
    match = _PERSON.search(text)
    if match is None:
        return text
    word, behind = match[0].lower(), text[match.end() :]
    if word in ("himself", "herself"):
        return text
    own = word in ("his", "hers") or (
        word == "her" and re.match(r" (?!a |the |to |for |in |at |on |and |from |with )[a-z]", behind)
    )
    return text[: match.start()] + name + "'s" * bool(own) + behind
