"""What a document, and every text that the model writes for one, is held to. Each check raises a `Complaint`.

Independence is checked by string evidence. A path is taken to depend on an earlier sibling if it uses

- a number of at least three digits (no round one) that the sibling arrives at and that stands nowhere the path can see,
  before the path arrives at it itself;
- a name that the sibling gives (``let S = ...``: a capital, a letter with an index, a function of a letter) and the path
  uses without saying what it is;
- a span in quotation marks, of three words at least, that the sibling has first.

It does not see what is said in other words, numbers of one or two digits (which two paths often share by chance), or facts that
are used without being named; the judge is for those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import ExtraError, StructureError
from ..structure import Block, Body, Dialect, Document, parse, render
from .completions import ValidationError
from .evidence import (
    Number,
    distinctive,
    final_value,
    names,
    numbers,
    quotes,
    sentences,
    tokens,
    uses,
    values,
    vocabulary,
    weighty,
)
from .outline import Filled, FilledBlock, within
from .types import Trace

_CONNECTIVE = re.compile(
    r"(?:(?:first|second|third|fourth|again|similarly|likewise|finally|lastly|now|in contrast|as before),"
    r"|(?:firstly|secondly|thirdly|then|next|after that|afterwards|meanwhile|subsequently|moving on|on the other hand)\b)",
    re.IGNORECASE,
)
_SIBLING = re.compile(r"\b(?:previous|preceding|other|sibling) (?:path|branch)(?:e?s)?\b", re.IGNORECASE)

SUPPORT = 0.3
"""Share of the words and numbers of a written sentence that must stand in what it is written from."""


# -- texts of the model ----------------------------------------------------------------------------------------------


def check_connectives(text: str) -> None:
    """No sentence may open with a word that ties it to another path or to an order of paths."""
    for sentence in sentences(text):
        if found := _CONNECTIVE.match(sentence.lstrip(" \"'(*")):
            raise ValidationError("forbidden connective", f"a sentence opens with {found[0]!r}: say it without such words")
    if found := _SIBLING.search(text):
        raise ValidationError("forbidden connective", f"{found[0]!r} speaks of another path: each must stand alone")


def check_supported(text: str, known: Sequence[str]) -> None:
    """Every sentence must be made of what is known: all numbers of two digits or more, and some of its words."""
    for value in (number.value for number in numbers(text)):
        if weighty(value) and not _holds(known, value):
            raise ValidationError(
                "invented text", f"{value} stands nowhere in the text that was given: write only what is there"
            )
    words = [vocabulary(given) for given in known]
    for sentence in sentences(text):
        mine = tokens(sentence)
        shared = sum(any(token in given for given in words) for token in mine)
        if (len(mine) >= 2 and not shared) or (len(mine) >= 4 and shared < SUPPORT * len(mine)):
            detail = f"{_short(sentence)!r} has nothing to do with the text that was given: write only what is there"
            raise ValidationError("invented text", detail)


def check_carried(text: str, piece: str) -> None:
    """What a piece comes to must still be there when it is rewritten."""
    found = [number.value for number in numbers(piece) if weighty(number.value)]
    if found and found[-1] not in values(text):
        raise ValidationError(
            "lost result", f"{found[-1]} stands last in the text that was given and is gone: keep every result"
        )


def check_gives_nothing_away(outline: str, path: str, known: Sequence[str]) -> None:
    """An outline is seen by all paths, so it may not hold a number that its path arrives at."""
    arrives: dict[str, bool] = {}
    for number in numbers(path):
        arrives.setdefault(number.value, number.result)
    for value in (number.value for number in numbers(outline)):
        if weighty(value) and arrives.get(value) and not _holds(known, value):
            detail = f"{_short(outline)!r} holds {value}, which its path finds out: say what is determined, not the outcome"
            raise ValidationError("outcome in an outline", detail)


def check_apart(text: str, siblings: Sequence[str], known: Sequence[str]) -> None:
    """A path's text may use nothing that only an earlier sibling has established (see the module)."""
    seen = "\n".join(known)
    first: dict[str, Number] = {}
    for number in numbers(text):
        first.setdefault(number.signed, number)
    mine = [number for number in first.values() if not number.result and not _holds(known, number.value)]
    for index, sibling in enumerate(siblings, 1):
        arrived = {number.signed for number in numbers(sibling) if number.result}
        for number in mine:
            if number.signed in arrived and distinctive(number.value):
                raise _depends(f"the number {number.signed}", index)
        for name in sorted(names(sibling)):
            if name not in seen and uses(text, name):
                raise _depends(f"the name {name}", index)
        for quote in sorted(quotes(sibling)):
            if quote not in seen and quote in text:
                raise _depends(f"the words {_short(quote)!r}", index)


def _depends(what: str, index: int) -> ValidationError:
    return ValidationError("not independent", f"it uses {what}, which only path {index} beside it has established")


def check_distance(original: str, text: str, bound: float) -> None:
    """The normalised edit distance, white space apart, is at most the bound."""
    found = distance(original, text)
    if found > bound:
        detail = f"the text is too far from what was given (edit distance {found:.2f}, at most {bound:g}): stay closer to it"
        raise ValidationError("too far from the original", detail)


def distance(a: str, b: str) -> float:
    """Normalised Levenshtein distance, every run of white space taken as one blank."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ExtraError("rapidfuzz", "curate") from error
    return Levenshtein.normalized_distance(" ".join(a.split()), " ".join(b.split()))


# -- documents -------------------------------------------------------------------------------------------------------


def check_grammar(document: Document, dialect: Dialect) -> None:
    """The document can be written and read back the same."""
    try:
        text = render(document, dialect)
        read = parse(text, dialect)
    except (StructureError, ValueError) as error:
        raise ValidationError("broken grammar", str(error)) from None
    if read != document:
        raise ValidationError("broken grammar", "the document does not read back as it was written")


def check_sentences(filled: Filled, document: Document, trace: Trace, phrase: str) -> None:
    """A refilled document holds every sentence of the trace once, in order, and else only goals and conclusions of its own."""
    text, at = _bare("".join(retold(filled, document.thinking or (), phrase))), 0
    for number, sentence in enumerate(trace.sentences, 1):
        bare = _bare(sentence)
        if not text.startswith(bare, at):
            raise ValidationError("lost sentences", f"sentence {number} is not where it belongs: {_short(sentence.strip())!r}")
        at += len(bare)
    # In a dialect that cannot set the answer apart, it ends the thinking.
    if text[at:] != ("" if document.answer else _bare(trace.answer)):
        raise ValidationError("invented text", f"this is none of the trace's: {_short(text[at:])!r}")


def check_answer(filled: Filled, document: Document, trace: Trace, phrase: str) -> None:
    """The answer is still there, and what it comes to is still in the thinking if it was."""
    thinking = "\n".join(retold(filled, document.thinking or (), phrase))
    whole = f"{thinking}\n{document.answer}"
    if trace.answer and trace.answer not in whole:
        raise ValidationError("answer lost", f"the answer is gone: {_short(trace.answer)!r}")
    before, after = final_value(f"{trace.reasoning}\n{trace.answer}"), final_value(whole)
    if before != after:
        raise ValidationError(
            "answer lost", f"the text came to {_short(str(before))!r}, and now comes to {_short(str(after))!r}"
        )
    if before is not None and before in values(trace.reasoning) and not _holds([thinking, *_conclusions(document)], before):
        raise ValidationError("answer lost", f"the reasoning arrived at {before}, and does no more")


def check_independence(filled: Filled, document: Document, question: str, phrase: str) -> None:
    """No path of the document uses what only an earlier sibling has established (see the module)."""
    for site in sites(filled, document, phrase):
        paths = ["\n".join(told(path, phrase, conclusions=True)) for path in site.refilled.paths]
        for number, path in enumerate(paths):
            try:
                check_apart(path, paths[:number], [question, site.before, *site.refilled.outlines])
            except ValidationError as complaint:
                outline = _short(site.refilled.outlines[number])
                raise ValidationError(complaint.reason, f"path {number + 1} ({outline}): {complaint.detail}") from None


class Site(NamedTuple):
    """A block of a refilled document.

    Attributes:
        name: see `plan`.
        filled: where its sentences come from.
        refilled: the block itself.
        before: all that has been said where it stands.
    """

    name: str
    filled: FilledBlock
    refilled: Block
    before: str


def sites(filled: Filled, document: Document, phrase: str) -> list[Site]:
    """Every block of a refilled document, those inside a path before the one around it."""
    return list(_sites(filled, document.thinking or (), "", [], phrase))


def _sites(filled: Filled, body: Body, name: str, before: list[str], phrase: str) -> Iterator[Site]:
    said, index = list(before), 0
    for at, item in enumerate(body):
        if isinstance(item, str):
            said.append(_plain(body, at, phrase))
            continue
        block, own = filled.blocks[index], within(name, index)
        for number, path in enumerate(item.paths):
            yield from _sites(block.paths[number], path, within(own, number), [*said, *item.outlines], phrase)
        yield Site(own, block, item, "\n".join(said))
        said += told((item,), phrase, conclusions=True)
        index += 1


def told(body: Body, phrase: str, *, conclusions: bool = False) -> list[str]:
    """The texts of a body path after path, without goals, the phrase before blocks and, unless asked for, conclusions."""
    texts: list[str] = []
    for at, item in enumerate(body):
        if isinstance(item, Block):
            for path in item.paths:
                texts += told(path, phrase, conclusions=conclusions)
            if conclusions and item.conclusion:
                texts.append(item.conclusion)
        elif text := _plain(body, at, phrase):
            texts.append(text)
    return texts


def retold(filled: Filled, body: Body, phrase: str) -> list[str]:
    """As `told`, with those conclusions that stand for sentences of the trace: what the trace has in other words."""
    texts: list[str] = []
    blocks = iter(filled.blocks)
    for at, item in enumerate(body):
        if isinstance(item, Block):
            block = next(blocks)
            for own, path in zip(block.paths, item.paths, strict=True):
                texts += retold(own, path, phrase)
            if block.conclusion:
                texts.append(item.conclusion)
        elif text := _plain(body, at, phrase):
            texts.append(text)
    return texts


def _plain(body: Body, at: int, phrase: str) -> str:
    """A text of a body without the phrase that announces the block behind it."""
    text = body[at]
    assert isinstance(text, str)
    announces = at + 1 < len(body) and isinstance(body[at + 1], Block)
    return text.removesuffix(phrase).rstrip() if announces and phrase else text


def _holds(texts: Sequence[str], value: str) -> bool:
    return any(value in values(text) for text in texts)


def _conclusions(document: Document) -> list[str]:
    return [block.conclusion for _, block in document.blocks()]


def _bare(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
