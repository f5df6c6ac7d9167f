"""A scripted annotator: it derives the right completions from the document that a trace was made of.

`answer` is a pure function, so a test can ask it directly and an endpoint can serve it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from multiverse.curation.outline import SentenceSpan
from multiverse.curation.sentences import cut
from multiverse.curation.types import Trace
from multiverse.structure import MULTIVERSE, Block, Body, Document, parse
from multiverse.tasks import Problem, problems

PHRASE = "Let's think in parallel."
SAMPLES = sorted((Path(__file__).parents[3] / "shared" / "samples").glob("*.xml"))
FORKING = ("worksheet", "cases", "countdown", "nested")


class Planted(NamedTuple):
    """A trace, and the document that it tells in a line."""

    trace: Trace
    document: Document


class TrueBlock(NamedTuple):
    """A block with the sentences of what it holds; `conclusion` stands in the trunk of the trace."""

    block: Block
    paths: tuple[TrueBody, ...]
    conclusion: SentenceSpan | None


TrueBody = tuple["SentenceSpan | TrueBlock", ...]


# -- planting --------------------------------------------------------------------------------------------------------


def plant(name: str, question: str, document: Document) -> Planted:
    """Tell a document in a line: path after path, then the conclusion, and no phrase."""
    texts = list(_texts(document.thinking or ()))
    sentences = tuple(sentence for text in texts for sentence in cut(f"{text}\n"))
    return Planted(Trace(name, question, sentences, document.plain_answer or "", "planted"), document)


def plant_problems(name: str, solved: Sequence[Problem]) -> Planted:
    """The solution of a problem, one sentence a step; of several, one behind the other."""
    if len(solved) == 1:
        (problem,) = solved
        return plant(name, problem.question, _in_steps(problem.structured))
    items: list[str | Block] = []
    for number, problem in enumerate(solved, 1):
        body = _in_steps(problem.structured).thinking or ()
        opening = f"Part {number} of the exercise comes now."
        result = f"Part {number} of the exercise comes to {problem.answer}."
        if items and isinstance(items[-1], str):
            opening = f"{items.pop()}\n{opening}"
        items += [opening, *body[1:], result] if isinstance(body[-1], Block) else [f"{opening}\n{body[0]}\n{result}"]
    question = "\n".join(f"Part {number}. {problem.question}" for number, problem in enumerate(solved, 1))
    return plant(name, question, Document(_announced(items), f"Answer: {solved[-1].answer}"))


def planted_rows(count: int, *, seed: int = 0, families: Sequence[str] = FORKING) -> list[Planted]:
    """Rows from the families in turn; every third holds two problems."""
    streams = {family: problems(family, seed=seed, split="train") for family in families}
    rows = []
    for number, family in enumerate(islice(cycle(families), count)):
        solved = list(islice(streams[family], 2 if number % 3 == 2 else 1))
        rows.append(plant_problems(f"planted.jsonl:{number + 1}", solved))
    return rows


def planted_samples() -> list[Planted]:
    """The published documents, told in a line; none where they are not here."""
    documents = [(path.stem, parse(path.read_text(encoding="utf-8").removesuffix("\n"))) for path in SAMPLES]
    return [plant(f"sample:{name}", "A question that is not given.", document) for name, document in documents]


def _in_steps(document: Document) -> Document:
    return Document(_stepped(document.thinking or ()), document.answer)


def _stepped(body: Body) -> Body:
    return _announced(_steps(item) if isinstance(item, str) else _stepped_block(item) for item in body)


def _announced(body: Iterable[str | Block]) -> Body:
    """The body with every block announced, as curation announces them."""
    items: list[str | Block] = []
    for item in body:
        if isinstance(item, Block):
            before = items.pop() if items and isinstance(items[-1], str) else ""
            assert isinstance(before, str)
            items.append(before if before.endswith(PHRASE) else f"{before}\n{PHRASE}".lstrip("\n"))
        items.append(item)
    return tuple(items)


def _stepped_block(block: Block) -> Block:
    return replace(block, paths=tuple(_stepped(path) for path in block.paths), conclusion=_steps(block.conclusion))


def _steps(text: str) -> str:
    """``7, add 5: 7+5=12, double: 12*2=24.`` as ``7. Add 5: 7+5=12. Double: 12*2=24.``"""
    step = re.compile(r", (add|take|double|triple|halve|\d+[-+*/])")
    return step.sub(lambda match: f". {match[1][:1].upper()}{match[1][1:]}", text)


def _texts(body: Body) -> Iterator[str]:
    """The texts of a body in a line, conclusions included."""
    for index, item in enumerate(body):
        if isinstance(item, Block):
            for path in item.paths:
                yield from _texts(path)
            if item.conclusion:
                yield item.conclusion
        elif text := _plain(body, index):
            yield text


def _plain(body: Body, index: int) -> str:
    """A text without the phrase that announces the block behind it."""
    text = body[index]
    assert isinstance(text, str)
    announces = index + 1 < len(body) and isinstance(body[index + 1], Block)
    return text.removesuffix(PHRASE).rstrip() if announces else text


# -- the truth -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def truth(document: Document) -> TrueBody:
    """The document with the sentences of its trace in place of its texts."""
    body, _ = _true_body(document.thinking or (), 1)
    return body


def _true_body(body: Body, due: int) -> tuple[TrueBody, int]:
    found: list[SentenceSpan | TrueBlock] = []
    for index, item in enumerate(body):
        if isinstance(item, Block):
            paths = []
            for path in item.paths:
                true, due = _true_body(path, due)
                paths.append(true)
            conclusion, due = _span(item.conclusion, due)
            found.append(TrueBlock(item, tuple(paths), conclusion))
        else:
            span, due = _span(_plain(body, index), due)
            if span is not None:
                found.append(span)
    return tuple(found), due


def _span(text: str, due: int) -> tuple[SentenceSpan | None, int]:
    count = len(cut(f"{text}\n")) if text else 0
    return (SentenceSpan(due, due + count - 1) if count else None), due + count


def _atoms(body: TrueBody) -> Iterator[SentenceSpan]:
    """The stretches of a body, those in blocks included, in order."""
    for item in body:
        if isinstance(item, SentenceSpan):
            yield item
            continue
        for path in item.paths:
            yield from _atoms(path)
        if item.conclusion is not None:
            yield item.conclusion


def _whole(body: TrueBody) -> SentenceSpan:
    atoms = list(_atoms(body))
    return SentenceSpan(atoms[0].first, atoms[-1].last)


# -- answering -------------------------------------------------------------------------------------------------------


def answer(request_stage: str, messages: Sequence[Any], planted: Planted) -> str:
    """The right answer to a request: messages are pairs of role and content, or objects with those fields."""
    asked = next(content for role, content in map(_message, messages) if role == "user")
    body = truth(planted.document)
    match request_stage:
        case "summary":
            value: dict[str, Any] = {"steps": [_step(number, atoms) for number, atoms in enumerate(_steps_of(body), 1)]}
        case "groups":
            value = {"groups": _groups(body)}
        case "outline":
            value = {"blocks": _blocks(body, iter(range(1, 10_000)))}
        case "refill":
            concluding = "the conclusion of block" in asked
            value = {"places": {f"P{number}": span for number, span in enumerate(_stretches(body, concluding), 1)}}
        case "rewrite":
            value = {"pieces": json.loads(_line(asked, "pieces"))}
        case "conclude":
            block = _named(body, _line(asked, "block"))
            value = {"block": {"outlines": json.loads(_line(asked, "outlines")), "conclusion": block.conclusion or "Done."}}
        case "judge":
            value = {"dependent": []}
        case _:
            raise ValueError(f"unknown stage {request_stage!r}")
    return json.dumps(value, ensure_ascii=False)


def stage_of(messages: Sequence[Any]) -> str:
    """The stage that a chat comes from."""
    return _line(_first_user(messages), "stage")


def row_of(messages: Sequence[Any]) -> str:
    """The row that a chat is about."""
    return _line(_first_user(messages), "row")


def _first_user(messages: Sequence[Any]) -> str:
    return next(content for role, content in map(_message, messages) if role == "user")


def _message(message: Any) -> tuple[str, str]:
    return (message["role"], message["content"]) if isinstance(message, Mapping) else (message[0], message[1])


def _line(text: str, name: str) -> str:
    """The rest of the line that begins with this name: what the prompt itself says of a row comes first or last."""
    lines = [line.partition(": ")[2] for line in text.split("\n") if line.startswith(f"{name}: ")]
    return lines[-1] if name in ("pieces", "outlines") else lines[0]


def _steps_of(body: TrueBody) -> Iterator[list[SentenceSpan]]:
    """A step for every stretch of the trunk and every path of its blocks, with the stretches inside as sub-steps."""
    for item in body:
        if isinstance(item, SentenceSpan):
            yield [item]
            continue
        for path in item.paths:
            yield list(_atoms(path))
        if item.conclusion is not None:
            yield [item.conclusion]


def _step(number: int, atoms: list[SentenceSpan]) -> dict[str, Any]:
    substeps = [{"summary": f"move {index} of step {number}", "sentences": list(atom)} for index, atom in enumerate(atoms, 1)]
    return {"summary": f"step {number} of the reasoning", "substeps": substeps}


def _groups(body: TrueBody) -> list[dict[str, Any]]:
    labels: dict[SentenceSpan, str] = {}
    inner: list[TrueBlock] = []
    outer: list[dict[str, Any]] = []
    for number, atoms in enumerate(_steps_of(body), 1):
        labels |= {atom: f"{number}.{index}" for index, atom in enumerate(atoms, 1)}
    for item in body:
        if isinstance(item, TrueBlock):
            outer.append(_group([[labels[next(_atoms(path))].partition(".")[0]] for path in item.paths]))
            inner += [block for path in item.paths for block in _nested(path)]
    return outer + [_group([[labels[atom] for atom in _atoms(path)] for path in block.paths]) for block in inner]


def _nested(body: TrueBody) -> Iterator[TrueBlock]:
    for item in body:
        if isinstance(item, TrueBlock):
            yield item
            for path in item.paths:
                yield from _nested(path)


def _group(paths: list[list[str]]) -> dict[str, Any]:
    return {"kind": "collective", "reason": "each path starts from the question alone", "paths": paths}


def _blocks(body: TrueBody, numbers: Iterator[int]) -> list[dict[str, Any]]:
    blocks = []
    for item in body:
        if isinstance(item, TrueBlock):
            number = next(numbers)
            pairs = zip(item.block.outlines, item.paths, strict=True)
            paths = [{"outline": outline, "inside": _blocks(path, numbers)} for outline, path in pairs]
            blocks.append({"group": number, "paths": paths})
    return blocks


def _stretches(body: TrueBody, concluding: bool) -> Iterator[list[int] | None]:
    """What stands before, in and behind blocks, in document order; without a place of its own a conclusion stands behind."""
    own: list[SentenceSpan] = []
    for item in body:
        if isinstance(item, SentenceSpan):
            own.append(item)
            continue
        yield _joined(own)
        for path in item.paths:
            yield from _stretches(path, concluding)
        own = [item.conclusion] if item.conclusion is not None else []
        if concluding:
            yield _joined(own)
            own = []
    yield _joined(own)


def _joined(spans: list[SentenceSpan]) -> list[int] | None:
    return [spans[0].first, spans[-1].last] if spans else None


def _named(body: TrueBody, name: str) -> Block:
    """The block of a name like ``1/2/1``: block, path, block."""
    first, *rest = [int(number) - 1 for number in name.split("/")]
    block = [item for item in body if isinstance(item, TrueBlock)][first]
    return block.block if not rest else _named(block.paths[rest[0]], "/".join(str(number + 1) for number in rest[1:]))


# -- comparing -------------------------------------------------------------------------------------------------------


def skeleton(body: Body) -> list[Any]:
    """Texts and blocks as nested lists: what of a document must come back."""
    found: list[Any] = []
    for index, item in enumerate(body):
        if isinstance(item, Block):
            found.append([[skeleton(path) for path in item.paths], " ".join(item.conclusion.split())])
        elif text := _plain(body, index):
            found.append(" ".join(text.split()))
    return found


def recovered(document: Document, planted: Planted) -> bool:
    """Whether a document has the planted blocks, with the planted sentences in every path and in every conclusion."""
    return skeleton(document.thinking or ()) == skeleton(planted.document.thinking or ())


def whole(document: Document, trace: Trace) -> bool:
    """Whether a refilled document holds every sentence of the trace once, in order; conclusions may stand for some of them."""
    left = _bare(trace.reasoning)
    for text, concludes in _told(document.trunk):
        bare = _bare(text)
        if left.startswith(bare):
            left = left.removeprefix(bare)
        elif not concludes:
            # In a dialect that cannot set the answer apart, it ends the trunk.
            return (document.thinking is None or not document.answer) and bare == left + _bare(trace.answer)
    return not left


def _told(body: Body) -> Iterator[tuple[str, bool]]:
    for index, item in enumerate(body):
        if isinstance(item, Block):
            for path in item.paths:
                yield from _told(path)
            yield item.conclusion, True
        else:
            yield _plain(body, index), False


def _bare(text: str) -> str:
    return "".join(text.split())


# -- misbehaving -----------------------------------------------------------------------------------------------------


def spoiled(kind: str, text: str, rng: Random) -> str:
    """A right answer gone wrong."""
    value = json.loads(text)
    match kind:
        case "wrong numbering":
            return json.dumps(_changed(value, lambda leaf: _renumbered(leaf, rng)))
        case "lost sentences":
            return json.dumps(_changed_list(value, rng, _shorter))
        case "doubled sentences":
            return json.dumps(_changed_list(value, rng, _longer))
        case "invented sentences":
            return json.dumps(_changed(value, lambda leaf: _longer_text(leaf, f" {INVENTED}")))
        case "tags inside":
            return json.dumps(_changed(value, lambda leaf: _longer_text(leaf, rng.choice(MULTIVERSE.tags))))
        case "half a character":
            return (
                json.dumps(_changed(value, lambda leaf: _longer_text(leaf, "\ud83d")))
                if rng.random() < 0.5
                else text + "\udc00"
            )
        case "a million characters":
            return rng.choice((text + "x" * 1_000_000, "{" * 1_000_000, json.dumps({"steps": ["y" * 1_000_000]})))
        case "malformed":
            return rng.choice(
                (text[:-1], text.replace('"', "'"), text[:-2] + ",}", "I cannot do that.", "", "null", "[" * 5000)
            )
        case "truncated":
            return text[: rng.randrange(len(text))]
        case _:
            raise ValueError(f"unknown misbehaviour {kind!r}")


SPOILS = (
    "wrong numbering",
    "lost sentences",
    "doubled sentences",
    "invented sentences",
    "tags inside",
    "half a character",
    "a million characters",
    "malformed",
    "truncated",
)
INVENTED = "Napoleon bought 98765 green umbrellas in Lisbon."


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with every leaf changed; labels of steps are leaves too."""
    if isinstance(value, dict):
        return {name: _changed(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value)


def _renumbered(leaf: Any, rng: Random) -> Any:
    shift = rng.choice((-1, 1, 7, 1000))
    if type(leaf) is int:
        return leaf + shift
    if isinstance(leaf, str) and (label := re.fullmatch(r"(\d+)((?:\.\d+)?)", leaf)):
        return f"{int(label[1]) + shift}{label[2]}"
    return leaf


def _longer_text(leaf: Any, more: str) -> Any:
    return leaf + more if isinstance(leaf, str) and not re.fullmatch(r"[\d.]+|collective|selective", leaf) else leaf


def _changed_list(value: Any, rng: Random, change: Callable[[list[Any]], None]) -> Any:
    """The value with one of its innermost lists changed."""
    if lists := list(_innermost(value)):
        change(rng.choice(lists))
    return value


def _innermost(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, list) and value and not any(isinstance(item, dict | list) for item in value):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _innermost(item)


def _shorter(leaves: list[Any]) -> None:
    if type(leaves[-1]) is int and leaves[0] < leaves[-1]:
        leaves[-1] -= 1
    else:
        leaves.pop()


def _longer(leaves: list[Any]) -> None:
    if type(leaves[-1]) is int:
        leaves[-1] += 1
    else:
        leaves.append(leaves[0])
