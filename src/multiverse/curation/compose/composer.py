"""Join answered questions into documents: which parts, in which form and words.

The same answers and seed give the same documents.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...structure import Block, Body
from . import phrases, requests
from .pool import Deck, Pool
from .questions import Answered, History
from .wordings import Wordings

JOINED = ("running", "sentences", "ordered", "numbered", "bullets", "lines", "letters", "table")
GROUPED = ("each", "compare", "compare_by", "kinds")
WEIGHTS = {
    "running": 26, "sentences": 12, "ordered": 5, "numbered": 9, "bullets": 7, "lines": 4, "letters": 2, "table": 4,
    "each": 10, "compare": 6, "compare_by": 5, "kinds": 6, "aspects": 5, "nested": 9,
}  # fmt: skip
"""How often each form is tried; one for which there are no parts is drawn again."""

_COMPARED = (
    "What is {x}?",
    "What are {x}?",
    "Describe {x}.",
    "Tell me about {x}.",
    "Who was {x}?",
    "What was {x}?",
    "Who is {x}?",
)
_GENERAL = (*_COMPARED, "Explain {x} in simple words.", "Help me understand {x}.", "What should I know about {x}?")
_TRIES = 20
_NESTED_ITEMS = 3
_HINTED = 0.2  # share of requests that say how long the answers are to be, as the questions did
_LETTERS = "abcdefghijkl"


@dataclass(frozen=True)
class Composed:
    """A composed request with its answer.

    Attributes:
        form: its form, such as ``running``; ``single`` without a block.
        wording: the template of the request.
        request, history: the user's text, and the turns before it.
        body: the answer: a block, or a text.
        parts: the answered questions, in order; of an answer without a block at most one.
        held_out: whether topics and wording are held out.
    """

    form: str
    wording: str
    request: str
    body: Body
    parts: tuple[Answered, ...]
    history: History = ()
    held_out: bool = False


class Names(NamedTuple):
    """What a conclusion can name: see `wordings.txt`."""

    form: str
    names: str = ""
    item: str = ""
    nouns: str = ""


class Composer:
    """Composes documents from a pool.

    Args:
        forms: use only these forms.
        held_out: take the wordings that are kept for validation.
    """

    def __init__(
        self, pool: Pool, wordings: Wordings, rng: random.Random, *, forms: Sequence[str] = (), held_out: bool = False
    ) -> None:
        self.wordings, self.rng, self.held_out = wordings, rng, held_out
        self._deck, self._alone, self._unsplit = (Deck(cards, rng) for cards in (pool.parts, pool.parts, pool.unsplit))
        self._by_template: dict[str, list[Answered]] = defaultdict(list)
        self._by_item: dict[str, list[Answered]] = defaultdict(list)
        for one in pool.parts:
            if one.question.template:
                self._by_template[one.question.template].append(one)
                self._by_item[one.question.item].append(one)
        usable = {form: weight for form, weight in WEIGHTS.items() if not forms or form in forms}
        self._forms = {form: weight for form, weight in usable.items() if wordings.of(form, held_out=held_out)}

    def forked(self, count: int) -> Composed | None:
        """A document with a block of `count` paths; `None` if there are not enough parts."""
        forms = list(self._forms)
        for _ in range(_TRIES):
            form = self.rng.choices(forms, [self._forms[name] for name in forms])[0]
            found = self._composed(form, count)
            if found is not None:
                return found
        return None

    def _composed(self, form: str, count: int) -> Composed | None:
        if form in JOINED:
            return self._joined(form, count)
        if form == "aspects":
            return self._aspects(count)
        if form == "nested":
            return self._nested(count) if count <= _NESTED_ITEMS else None
        return self._grouped(form, count)

    def single(self, unsplit: float) -> Composed | None:
        """A document without a block: with this probability of a request that does not split."""
        decks = [self._unsplit, self._alone] if self.rng.random() < unsplit else [self._alone, self._unsplit]
        drawn = next((found for deck in decks if (found := deck.draw(1, lambda *_: True))), None)
        if not drawn:
            return None
        (one,) = drawn
        hinted = bool(one.hint) and self.rng.random() < 0.5
        request = f"{one.question.text} {one.hint}" if hinted else one.question.text
        return Composed("single", one.question.template, request, (one.text,), (one,), one.question.history, self.held_out)

    def after(self, composed: Composed, earlier: Answered) -> Composed:
        """The same request as a later turn of a chat that began with another question."""
        template = self._wording("after")
        history = (*earlier.question.history, ("user", earlier.question.text), ("assistant", earlier.text))
        request = template.format(request=composed.request)
        wording = f"{composed.wording} / {template}"
        return Composed(composed.form, wording, request, composed.body, composed.parts, history, self.held_out)

    def earlier(self, composed: Composed) -> Answered | None:
        """An answered question of another topic; `None` if there is none, or no wording for a later turn."""
        if not self.wordings.of("after", held_out=self.held_out):
            return None
        topics = {part.question.topic for part in composed.parts}
        drawn = self._deck.draw(1, lambda one, _: one.question.topic not in topics)
        return drawn[0] if drawn else None

    # Forms

    def _joined(self, form: str, count: int) -> Composed | None:
        parts = self._deck.draw(count, _other_topic)
        if len(parts) < count:
            return None
        template = self._wording(form)
        if form == "ordered" and f"{{{count}}}" not in template:
            return None
        request = self._request(form, template, parts)
        names = [requests.name(part) for part in parts]
        return self._document(form, template, request, parts, Names("conclusion", requests.joined_names(names)))

    def _request(self, form: str, template: str, parts: Sequence[Answered]) -> str:
        texts = [" ".join(part.question.text.split()) for part in parts]
        if form == "ordered":
            return requests.ordered(template, texts)
        if form == "running":
            text = phrases.running_text(texts, oxford=self.rng.random() < 0.7)
        elif form == "sentences":
            text = " ".join(texts)
        else:
            text = self._list(form, parts)
        number = phrases.number_word(len(parts))
        words = {"parts": text, "Parts": phrases.capitalized(text), "n": number}
        return template.format(**words, n_parts=f"{phrases.capitalized(number)} questions")

    def _list(self, form: str, parts: Sequence[Answered]) -> str:
        texts = [" ".join(part.question.text.split()) for part in parts]
        if form in ("numbered", "bullets") and self.rng.random() < 0.25:
            texts = [phrases.outline(text) for text in texts]
        match form:
            case "numbered":
                mark = self.rng.choice(("{}. ", "{}) ", "{}: "))
                return "\n".join(f"{mark.format(number)}{text}" for number, text in enumerate(texts, 1))
            case "letters":
                return "\n".join(f"{_LETTERS[number]}) {text}" for number, text in enumerate(texts))
            case "bullets":
                mark = self.rng.choice("-*-")
                return "\n".join(f"{mark} {text}" for text in texts)
            case "table":
                return "\n".join(
                    f"| {requests.name(part) or number} | {text} |"
                    for number, (part, text) in enumerate(zip(parts, texts, strict=True), 1)
                )
        return "\n".join(texts)

    def _grouped(self, form: str, count: int) -> Composed | None:
        """One question about several items."""
        group = self._group(form, count)
        if group is None:
            return None
        parts, template = group, self._wording(form)
        own = parts[0].question.template
        items = [part.question.item for part in parts]
        words = requests.group_words(own, items)
        if form == "kinds":
            words |= requests.kind_words(own, items)
        aspect = parts[0].question.aspect
        request = template.format(**words, aspect=aspect, Aspect=phrases.capitalized(aspect), n=phrases.number_word(count))
        short = form in ("compare", "compare_by")
        outlines = [
            phrases.capitalized(requests.plain(item)) if short else phrases.outline(part.question.text)
            for item, part in zip(items, parts, strict=True)
        ]
        kind = {"each": "conclusion", "kinds": "conclusion_kinds"}.get(form, "conclusion_compare")
        names = phrases.joined(items) if phrases.names_a_thing(own) else ""
        return self._document(form, template, request, parts, Names(kind, names, nouns=words.get("nouns", "")), outlines)

    def _group(self, form: str, count: int) -> list[Answered] | None:
        """Answered questions of one template, about different topics."""
        usable = [
            template
            for template, own in self._by_template.items()
            if len(own) >= count
            and (form != "compare" or template in _COMPARED)
            and (form != "compare_by" or own[0].question.aspect)
            and (form != "kinds" or phrases.noun_request(template))
        ]
        if not usable:
            return None
        template = self.rng.choice(usable)
        first = self.rng.choice(self._by_template[template])
        own = [one for one in self._by_template[template] if _alike(one, first)]
        parts: list[Answered] = []
        for one in self.rng.sample(own, len(own)):
            if len(parts) < count and _other_topic(one, parts):
                parts.append(one)
        return parts if len(parts) == count else None

    def _aspects(self, count: int) -> Composed | None:
        """Several questions about one item."""
        items = [item for item, own in self._by_item.items() if len({one.question.template for one in own}) >= count]
        if not items:
            return None
        item = self.rng.choice(items)
        by_template = {one.question.template: one for one in self.rng.sample(self._by_item[item], len(self._by_item[item]))}
        if not all(phrases.names_a_thing(template) for template in by_template):
            return None
        general = [one for template, one in by_template.items() if template in _GENERAL]
        parts = [one for template, one in by_template.items() if template not in _GENERAL] + general[:1]
        if len(parts) < count:
            return None
        parts = self.rng.sample(parts, count)
        template = self._wording("aspects")
        texts = [part.question.text for part in parts]
        text = phrases.running_text(texts, oxford=True)
        listed = "\n".join(f"- {one}" for one in texts)
        request = template.format(item=item, parts=text, Parts=phrases.capitalized(text), list=listed)
        return self._document("aspects", template, request, parts, Names("conclusion_aspects", item=item))

    def _nested(self, count: int) -> Composed | None:
        """Items, each with the same questions: blocks in the paths of a block."""
        rows = self._grid(count)
        if rows is None:
            return None
        template = self._wording("nested")
        items = [row[0].question.item for row in rows]
        blanks = [one.question.template.replace("{x}", "X") for one in rows[0]]
        words = {"items": phrases.joined(items), "blanks": "\n".join(f"- {blank}" for blank in blanks)}
        request = template.format(**words, blank_parts=phrases.running_text(blanks, oxford=False))
        paths = []
        for row in rows:
            names = Names("conclusion_aspects", item=row[0].question.item)
            paths.append((self._block(row, [phrases.outline(one.question.text) for one in row], names),))
        heads = tuple(phrases.capitalized(requests.plain(item)) for item in items)
        conclusion = self._conclusion(Names("conclusion_compare", phrases.joined(items)), len(rows))
        body = (Block(heads, tuple(paths), conclusion),)
        return Composed("nested", template, request, body, tuple(one for row in rows for one in row), held_out=self.held_out)

    def _grid(self, count: int) -> list[list[Answered]] | None:
        """Rows of two questions in the same wordings about different items."""
        by_pair: dict[tuple[str, str], list[list[Answered]]] = defaultdict(list)
        for own in self._by_item.values():
            templates = {one.question.template: one for one in own if phrases.names_a_thing(one.question.template)}
            names = sorted(templates)
            for first in range(len(names)):
                for second in range(first + 1, len(names)):
                    by_pair[names[first], names[second]].append([templates[names[first]], templates[names[second]]])
        usable = [found for found in by_pair.values() if len(found) >= count]
        return self.rng.sample(self.rng.choice(usable), count) if usable else None

    # Documents

    def _document(
        self, form: str, template: str, request: str, parts: Sequence[Answered], names: Names, outlines: Sequence[str] = ()
    ) -> Composed:
        hints = {part.hint for part in parts}
        if len(hints) == 1 and "\n" not in request and self.rng.random() < _HINTED:
            request = f"{request} {requests.hint_for_each(hints.pop())}".rstrip()
        heads = list(outlines) or [phrases.outline(part.question.text) for part in parts]
        block = self._block(parts, heads, names)
        return Composed(form, template, request, (block,), tuple(parts), held_out=self.held_out)

    def _block(self, parts: Sequence[Answered], outlines: Sequence[str], names: Names) -> Block:
        return Block(tuple(outlines), tuple((part.text,) for part in parts), self._conclusion(names, len(parts)))

    def _conclusion(self, names: Names, count: int) -> str:
        texts = self.wordings.of(names.form, held_out=False)
        values = {"names": names.names, "item": names.item, "nouns": names.nouns}
        usable = [text for text in texts if all(value for name, value in values.items() if f"{{{name}}}" in text)]
        every = "both" if count == 2 else f"all {phrases.number_word(count)}"
        return self.rng.choice(usable).format(**values, n=phrases.number_word(count), all=every) if usable else ""

    def _wording(self, form: str) -> str:
        return self.rng.choice(self.wordings.of(form, held_out=self.held_out))


def _other_topic(one: Answered, drawn: Sequence[Answered]) -> bool:
    return all(one.question.topic != other.question.topic for other in drawn)


def _alike(one: Answered, other: Answered) -> bool:
    """Whether two items can stand in one question: of the same aspect."""
    return one.question.aspect == other.question.aspect and one.question.group == other.question.group
