"""Words of composed requests that depend on their questions: items, kinds, names of parts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import phrases
from .questions import Answered


def name(part: Answered) -> str:
    """What a conclusion calls a part; empty if it has no short name."""
    question = part.question
    head = phrases.outline(question.text)
    if question.item and question.template and phrases.names_a_thing(question.template):
        return question.item
    if phrases.is_question(head) or len(head.split()) > 9:
        return ""
    return phrases.in_sentence(head)


def joined_names(names: Sequence[str]) -> str:
    """The enumeration of the names; empty if one is missing or they are too long to be worth it."""
    text = phrases.joined(names, oxford=True)
    return text if all(names) and len(text.split()) <= 20 else ""


def ordered(template: str, texts: Sequence[str]) -> str:
    """The questions behind the words of a wording with ``{1}``, ``{2}``, ...: after a comma with a small letter."""
    last = f"{{{len(texts)}}}"
    cut = template[: template.index(last) + len(last)]

    def placed(found: re.Match[str]) -> str:
        text = texts[int(found[2]) - 1]
        small = phrases.in_sentence(text) + ("?" if phrases.is_question(text) else ".")
        return found[1] + (small if found[1].startswith(",") else text)

    return re.sub(r"(,? ?)\{(\d+)\}", placed, cut)


def group_words(template: str, items: Sequence[str]) -> dict[str, str]:
    """What a wording about several items can name: see `wordings.txt`."""
    return {
        "items": phrases.joined(items),
        "group": phrases.pluralized(template, items),
        "blank": template.replace("{x}", "X"),
        "list": "\n".join(f"- {item}" for item in map(plain, items)),
    }


def kind_words(template: str, items: Sequence[str]) -> dict[str, str]:
    """The same for things of one kind: ``three tips: one on how to save money, ...``."""
    found = phrases.noun_request(template)
    assert found is not None
    verb, noun, link = found
    ones = phrases.joined([f"one {link} {item}" for item in items], oxford=True)
    nouns = f"{noun}s"
    return {"verb": verb, "verb_small": verb.lower(), "nouns": nouns, "ones": ones, "Ones": phrases.capitalized(ones)}


def plain(item: str) -> str:
    """The item without an indefinite article."""
    return item.removeprefix("a ").removeprefix("an ")


def hint_for_each(hint: str) -> str:
    """A hint on the length of one answer, for several; empty if it cannot be said of several."""
    if hint.startswith("Answer in "):
        return hint.replace("Answer in ", "Answer each in ", 1)
    return f"{hint.rstrip('.')} on each." if hint.startswith("Write ") else ""
