"""An earlier answer of a chat, as text and as the tokens that it was generated in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import StructureError
from .dialect import Dialect, Role
from .encode import encode
from .layout import Replay
from .machine import State
from .parse import parse
from .plain import PlainEncoder
from .render import render
from .tokens import TokenDialect
from .tree import Document

Ids = tuple[int, ...]


class Answer(NamedTuple):
    """An earlier answer.

    Attributes:
        thinking: the text between the tags of the thinking, separators included.
        answer: the text behind it.
        thinking_ids: token ids of the thinking, its tags included; empty without one.
        token_ids: of the whole.
        stripped_ids: of the whole without white space at its end; empty where there is none.
        answer_ids: of an answer that forks; empty for a text, which is tokenised with what stands around it.
    """

    thinking: str
    answer: str
    thinking_ids: Ids
    token_ids: Ids
    stripped_ids: Ids
    answer_ids: Ids = ()


def read_answer(
    content: str, reasoning: str | None, tokens: TokenDialect, plain: PlainEncoder, known: Mapping[str, Sequence[int]]
) -> Answer | None:
    """An earlier answer that has structure, or whose tokens are known; `None` for a text.

    Args:
        reasoning: its thinking, if that is not part of the content. It is never refused: one that is not as the model writes it
            is text between the tags of the thinking.
    """
    dialect = tokens.dialect
    think = dialect.think
    if reasoning is None or think is None:
        document = _document(content, tokens)
        if document is not None:
            return _structured(content, document, tokens, known)
        if content in known and not (think is not None and think.open in content):
            return Answer("", content, (), tuple(known[content]), ())
        if think is None or not content.startswith(think.open) or think.close not in content:
            return None
        # A finished thinking, and an answer that speaks of tags.
        head = content[: content.index(think.close) + len(think.close)]
        document = _document(head, tokens)
        if document is None:
            return None
        answer = content[len(head) :].removeprefix(dialect.answer_sep)
        return _apart(head, encode(document, tokens).token_ids, answer, tokens, plain)
    thought = _thought(reasoning, dialect)
    whole = f"{thought}{dialect.answer_sep}{content}" if content else thought
    document = _document(whole, tokens)
    if document is not None:
        return _structured(whole, document, tokens, known)
    document = _document(thought, tokens)
    if document is not None:
        return _apart(thought, encode(document, tokens).token_ids, content, tokens, plain)
    inner = thought[len(think.open) : -len(think.close)]
    tags = (tokens.ids[dialect.roles[think.open]], tokens.ids[dialect.roles[think.close]])
    return _apart(thought, (tags[0], *plain.encode([inner]), tags[1]), content, tokens, plain)


def broken_thinking(reasoning: str, dialect: Dialect) -> StructureError | None:
    """What is wrong with a thinking that forks but is not as a model writes it; `None` if nothing is.

    One that only speaks of tags opens no block: a tag of a block is followed by the separator and the next tag.
    """
    assert dialect.think is not None
    begin = (dialect.block.open, dialect.goal.open) if dialect.block is not None else (dialect.goal.open, dialect.outline.open)
    space = re.escape(dialect.after[dialect.begin]) if dialect.exact else r"\s*"
    if re.search(space.join(map(re.escape, begin)), reasoning) is None:
        return None
    try:
        parse(_thought(reasoning, dialect), dialect)
    except StructureError as error:
        return error
    return None


def _thought(reasoning: str, dialect: Dialect) -> str:
    """A thinking in its tags."""
    assert dialect.think is not None
    first, last = dialect.after[Role.THINK_OPEN], dialect.before[Role.THINK_CLOSE]
    sep = "" if not reasoning or reasoning.endswith(last) else last
    return f"{dialect.think.open}{first}{reasoning}{sep}{dialect.think.close}"


def _document(text: str, tokens: TokenDialect) -> Document | None:
    """The document, if the text is one that holds structure."""
    if not any(tag in text for tag in tokens.dialect.tags):
        return None
    try:
        document = parse(text, tokens.dialect)
        return document if _goes_on(document, tokens) else None
    except StructureError:
        return None


def _goes_on(document: Document, tokens: TokenDialect) -> bool:
    """Whether a text may follow the document in a prompt: one that breaks the rules may leave something open."""
    if tokens.dialect.malformed == "refuse":
        return True
    replay = Replay(tokens, mark_forced=False)
    for token in encode(document, tokens).token_ids:
        replay.feed(token)
    return replay.at_trunk and replay.trunk.complete and replay.trunk.state in (State.TEXT, State.BODY)


def _structured(text: str, document: Document, tokens: TokenDialect, known: Mapping[str, Sequence[int]]) -> Answer:
    dialect = tokens.dialect
    whole = known.get(text)
    ids = tuple(whole) if whole is not None else encode(document, tokens).token_ids
    if not dialect.exact:
        text = render(document, dialect)
    body = text.rstrip()
    stripped = encode(parse(body, dialect), tokens).token_ids if body != text and _document(body, tokens) else ()
    if document.thinking is None or dialect.think is None:
        return Answer("", text, (), ids, stripped, stripped or ids)
    thinking = Document(document.thinking)
    thought = render(thinking, dialect)
    answer_ids: Ids = ()
    if document.plain_answer is None:
        answer_ids = encode(Document(None, document.answer), tokens).token_ids
    inner = thought[len(dialect.think.open) : -len(dialect.think.close)]
    answer = text[len(thought) :].removeprefix(dialect.answer_sep)
    return Answer(inner, answer, encode(thinking, tokens).token_ids, ids, stripped, answer_ids)


def _apart(thought: str, ids: Ids, answer: str, tokens: TokenDialect, plain: PlainEncoder) -> Answer:
    """A thinking, and behind it an answer that is text, whatever tags it speaks of."""
    think = tokens.dialect.think
    assert think is not None
    whole = (*ids, *tokens.answer_sep, *plain.encode([answer])) if answer else ids
    body = answer.rstrip()
    stripped = (*ids, *tokens.answer_sep, *plain.encode([body])) if body and body != answer else ids if body != answer else ()
    return Answer(thought[len(think.open) : -len(think.close)], answer, ids, whole, stripped)
