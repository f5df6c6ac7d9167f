"""Checks of documents and of the texts that the model writes for them. Each raises a `ValidationError`.

Independence is checked on the strings. A path is taken to depend on an earlier sibling if it uses

- a number of at least three digits (not a round one) that is a result in the sibling, appears nowhere in the text visible to
  the path, and is not a result in the path itself;
- a name that the sibling defines (``let S = ...``: a capital, a letter with an index, a function of a letter) and the path
  uses without defining it;
- a quotation of at least three words that appears first in the sibling.

Not detected are paraphrases, numbers of one or two digits (which two paths often share by chance), and facts that are used
without being named; the judge is for those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import StructureError, require
from ..pages import within
from ..structure import Block, Body, Dialect, Document, convert, parse, render
from .errors import ValidationError
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
from .outline import Filled, FilledBlock
from .types import Trace

_CONNECTIVE = re.compile(
    r"(?:(?:first|second|third|fourth|again|similarly|likewise|finally|lastly|now|in contrast|as before),"
    r"|(?:firstly|secondly|thirdly|then|next|after that|afterwards|meanwhile|subsequently|moving on|on the other hand)\b)",
    re.IGNORECASE,
)
_SIBLING = re.compile(r"\b(?:previous|preceding|other|sibling) (?:path|branch)(?:e?s)?\b", re.IGNORECASE)

SUPPORT = 0.3
"""Least share of the words and numbers of a written sentence that its sources contain."""


# -- texts of the model ----------------------------------------------------------------------------------------------


def check_connectives(text: str) -> None:
    """No sentence begins with a word that refers to another path or to an order of paths."""
    for sentence in sentences(text):
        if found := _CONNECTIVE.match(sentence.lstrip(" \"'(*")):
            raise ValidationError("forbidden connective", f"a sentence opens with {found[0]!r}: say it without such words")
    if found := _SIBLING.search(text):
        raise ValidationError("forbidden connective", f"{found[0]!r} speaks of another path: each must stand alone")


def check_supported(text: str, known: Sequence[str]) -> None:
    """The known texts contain all numbers of two digits or more, and some words of every sentence."""
    for value in (number.value for number in numbers(text)):
        if weighty(value) and not _contains(known, value):
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
    """The last number of a piece is still there when it is rewritten."""
    found = [number.value for number in numbers(piece) if weighty(number.value)]
    if found and found[-1] not in values(text):
        raise ValidationError(
            "lost result", f"{found[-1]} stands last in the text that was given and is gone: keep every result"
        )


def check_gives_nothing_away(outline: str, path: str, known: Sequence[str]) -> None:
    """An outline, which all paths see, contains no number that is a result of its path."""
    results: dict[str, bool] = {}
    for number in numbers(path):
        results.setdefault(number.value, number.result)
    for value in (number.value for number in numbers(outline)):
        if weighty(value) and results.get(value) and not _contains(known, value):
            detail = f"{_short(outline)!r} holds {value}, which its path finds out: say what is determined, not the outcome"
            raise ValidationError("outcome in an outline", detail)


def check_apart(text: str, siblings: Sequence[str], known: Sequence[str]) -> None:
    """A path's text uses nothing that only an earlier sibling has established (see the module)."""
    seen = "\n".join(known)
    first: dict[str, Number] = {}
    for number in numbers(text):
        first.setdefault(number.signed, number)
    mine = [number for number in first.values() if not number.result and not _contains(known, number.value)]
    for index, sibling in enumerate(siblings, 1):
        results = {number.signed for number in numbers(sibling) if number.result}
        for number in mine:
            if number.signed in results and distinctive(number.value):
                raise _depends(f"the number {number.signed}", index)
        for name in sorted(names(sibling)):
            if name not in seen and uses(text, name):
                raise _depends(f"the name {name}", index)
        for quote in sorted(quotes(sibling)):
            if quote not in seen and quote in text:
                raise _depends(f"the words {_short(quote)!r}", index)


def _depends(what: str, index: int) -> ValidationError:
    return ValidationError("not independent", f"it uses {what}, which only path {index} beside it has established")


def check_distance(original: str, text: str, limit: float) -> None:
    """The normalised edit distance, white space apart, is at most the limit."""
    found = distance(original, text)
    if found > limit:
        detail = f"the text is too far from what was given (edit distance {found:.2f}, at most {limit:g}): stay closer to it"
        raise ValidationError("too far from the original", detail)


def distance(a: str, b: str) -> float:
    """Normalised Levenshtein distance; every run of white space counts as one blank."""
    levenshtein = require("rapidfuzz.distance", "curate").Levenshtein
    return float(levenshtein.normalized_distance(" ".join(a.split()), " ".join(b.split())))


# -- documents -------------------------------------------------------------------------------------------------------


def check_grammar(document: Document, dialect: Dialect) -> None:
    """The document parses to the same document after rendering."""
    try:
        text = render(document, dialect)
        read = parse(text, dialect)
    except (StructureError, ValueError) as error:
        raise ValidationError("broken grammar", str(error)) from None
    if read != convert(document, dialect, dialect):
        raise ValidationError("broken grammar", "the document does not read back as it was written")


def check_sentences(filled: Filled, document: Document, trace: Trace, phrase: str) -> None:
    """A refilled document contains every sentence of the trace once, in order; only goals and conclusions are new."""
    text, at = _bare("".join(trace_texts(filled, document.trunk, phrase))), 0
    for number, sentence in enumerate(trace.sentences, 1):
        bare = _bare(sentence)
        if not text.startswith(bare, at):
            raise ValidationError("lost sentences", f"sentence {number} is not where it belongs: {_short(sentence.strip())!r}")
        at += len(bare)
    # Where thinking and answer are one trunk, the answer is its end.
    if text[at:] != ("" if document.thinking is not None and document.answer else _bare(trace.answer)):
        raise ValidationError("invented text", f"this is none of the trace's: {_short(text[at:])!r}")


def check_answer(filled: Filled, document: Document, trace: Trace, phrase: str) -> None:
    """The answer is still there, and its value is in the thinking if it was there before."""
    thinking = "\n".join(trace_texts(filled, document.trunk, phrase))
    whole = f"{thinking}\n{document.plain_answer or ''}"
    if trace.answer and trace.answer not in whole:
        raise ValidationError("answer lost", f"the answer is gone: {_short(trace.answer)!r}")
    before, after = final_value(f"{trace.reasoning}\n{trace.answer}"), final_value(whole)
    if before != after:
        raise ValidationError(
            "answer lost", f"the text came to {_short(str(before))!r}, and now comes to {_short(str(after))!r}"
        )
    texts = [thinking, *(block.conclusion for _, block in document.blocks())]
    if before is not None and before in values(trace.reasoning) and not _contains(texts, before):
        raise ValidationError("answer lost", f"the reasoning arrived at {before}, and does no more")


def check_independence(filled: Filled, document: Document, question: str, phrase: str) -> None:
    """No path of the document uses what only an earlier sibling has established (see the module)."""
    for placed in placed_blocks(filled, document, phrase):
        paths = ["\n".join(body_texts(path, phrase, conclusions=True)) for path in placed.refilled.paths]
        for number, path in enumerate(paths):
            try:
                check_apart(path, paths[:number], [question, placed.before, *placed.refilled.outlines])
            except ValidationError as error:
                outline = _short(placed.refilled.outlines[number])
                raise ValidationError(error.reason, f"path {number + 1} ({outline}): {error.detail}") from None


class PlacedBlock(NamedTuple):
    """A block of a document with its sentences and context.

    Attributes:
        name: see `outline`.
        filled: its sentences.
        refilled: the block itself.
        before: the text before it.
    """

    name: str
    filled: FilledBlock
    refilled: Block
    before: str


def placed_blocks(filled: Filled, document: Document, phrase: str) -> list[PlacedBlock]:
    """Every block of a document; blocks inside a path come before the enclosing one."""
    return list(_placed_blocks(filled, document.trunk, "", [], phrase))


def _placed_blocks(filled: Filled, body: Body, name: str, before: list[str], phrase: str) -> Iterator[PlacedBlock]:
    texts, index = list(before), 0
    for at, item in enumerate(body):
        if isinstance(item, str):
            texts.append(_without_phrase(body, at, phrase))
            continue
        block, own = filled.blocks[index], within(name, index)
        for number, path in enumerate(item.paths):
            yield from _placed_blocks(block.paths[number], path, within(own, number), [*texts, *item.outlines], phrase)
        yield PlacedBlock(own, block, item, "\n".join(texts))
        texts += body_texts((item,), phrase, conclusions=True)
        index += 1


def body_texts(body: Body, phrase: str, *, conclusions: bool = False) -> list[str]:
    """The texts of a body in order, without goals, the phrase before blocks and, by default, conclusions."""
    texts: list[str] = []
    for at, item in enumerate(body):
        if isinstance(item, Block):
            for path in item.paths:
                texts += body_texts(path, phrase, conclusions=conclusions)
            if conclusions and item.conclusion:
                texts.append(item.conclusion)
        elif text := _without_phrase(body, at, phrase):
            texts.append(text)
    return texts


def trace_texts(filled: Filled, body: Body, phrase: str) -> list[str]:
    """As `body_texts`, with the conclusions that replace sentences of the trace: what corresponds to the trace's text."""
    texts: list[str] = []
    blocks = iter(filled.blocks)
    for at, item in enumerate(body):
        if isinstance(item, Block):
            block = next(blocks)
            for own, path in zip(block.paths, item.paths, strict=True):
                texts += trace_texts(own, path, phrase)
            if block.conclusion:
                texts.append(item.conclusion)
        elif text := _without_phrase(body, at, phrase):
            texts.append(text)
    return texts


def _without_phrase(body: Body, at: int, phrase: str) -> str:
    """A text of a body without the phrase before the following block."""
    text = body[at]
    assert isinstance(text, str)
    before_block = at + 1 < len(body) and isinstance(body[at + 1], Block)
    return text.removesuffix(phrase).rstrip() if before_block and phrase else text


def _contains(texts: Sequence[str], value: str) -> bool:
    return any(value in values(text) for text in texts)


def _bare(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
