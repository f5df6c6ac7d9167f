"""What a parent reads of its paths after a join, as token ids and as text.

`Dialect.join` says how. With ``kv`` it reads nothing: it gets the keys and values of its paths. With ``text`` it reads the
paths one after the other, as the document has them (ThreadWeaver); as the first of them directly follows what the parent wrote,
an engine only has to read the others again. With ``message`` it reads a short message of each path (APR).

The engine, training and the client of other engines read the same, since they all ask here. A path is given as it reads in its
own context: what a block inside of it left behind is already merged. Behind what these functions return come the tokens with
which the parent resumes (`TokenDialect.resume_head`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from .dialect import Dialect, Role
from .tokens import TokenDialect

_CLAUSE_ENDS = re.compile(r"(?<=[,.;!?])\s+|\n")


def merge(paths: Sequence[Sequence[int]], tokens: TokenDialect) -> list[int]:
    """The tokens that a parent reads in place of its paths.

    Args:
        paths: the tokens of each path's own context, from its opening tag, with what follows its closing tag.
    """
    match tokens.dialect.join:
        case "kv":
            return []
        case "text":
            return list(chain.from_iterable(paths))
        case "message":
            return [token for path in paths for token in message(path, tokens)]


def merge_text(paths: Sequence[str], dialect: Dialect) -> str:
    """As `merge`, of texts: for clients of engines that take and give text."""
    match dialect.join:
        case "kv":
            return ""
        case "text":
            return "".join(paths)
        case "message":
            return "".join(message_text(path, dialect) for path in paths)


def message(path: Sequence[int], tokens: TokenDialect) -> list[int]:
    """The message of a path to its parent: its head, its last clause, and its closing tag.

    A clause ends at a comma, semicolon, sentence end or line end. The last one is taken from the last stretch between tags that
    has text; the message of a path without text is empty.

    Args:
        path: the path's tokens, from its opening tag, with or without the closing tag.
    """
    close = tokens.ids[Role.PATH_CLOSE]
    head = _head(path, tokens)
    stretches: list[list[int]] = [[]]
    for token in path[head:]:
        if token in tokens.roles:
            stretches.append([])
        else:
            stretches[-1].append(token)
    clause = _last_clause([tokens.decode(stretch) for stretch in stretches])
    return [*path[:head], *(tokens.encode(f" {clause}") if clause else ()), *tokens.sep, close, *tokens.after[Role.PATH_CLOSE]]


def message_text(path: str, dialect: Dialect) -> str:
    """As `message`, of a text."""
    opening = re.escape(dialect.path.open + dialect.sep)
    found = re.match(rf"{opening}[\d.]*{re.escape(dialect.label_end)}", path)
    head = found[0] if found is not None else dialect.path.open + dialect.sep
    tags = "|".join(map(re.escape, dialect.tags))
    clause = _last_clause(re.split(tags, path[len(head) :]))
    return head + (f" {clause}" if clause else "") + dialect.sep + dialect.path.close + dialect.after[Role.PATH_CLOSE]


def _last_clause(stretches: Sequence[str]) -> str:
    """The last clause of the last of these texts that is not blank."""
    text = next((text.strip() for text in reversed(stretches) if text.strip()), "")
    return _CLAUSE_ENDS.split(text)[-1]


def _head(path: Sequence[int], tokens: TokenDialect) -> int:
    """Length of a path's head: tag, separator, label (a number, or numbers and dots) and what ends it."""
    at = 1 + len(tokens.sep)
    # A text begins with a space, so no digit of it is taken for the label's.
    while at < len(path) and re.fullmatch(r"[\d.]+", tokens.decode([path[at]])):
        at += 1
    return at + len(tokens.encode(tokens.dialect.label_end))
