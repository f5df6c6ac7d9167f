"""Token ids of a chat whose earlier answers fork."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import StructureError
from .encode import encode
from .parse import parse
from .tokens import TokenDialect


def encode_chat(text: str, answers: Iterable[str], tokens: TokenDialect) -> list[int]:
    """Token ids of a chat as its template has written it; earlier answers are tokenised as they were generated.

    That is segment by segment, what the engine wrote apart from what the model wrote, so that the ids are those of then, and
    are found in the prefix cache.

    Args:
        answers: earlier answers with their tags, in order. One that is no document, or that the template has changed or left
            out, is tokenised as any other text.
    """
    ids: list[int] = []
    for answer in answers:
        if not any(tag in answer for tag in tokens.dialect.tags):
            continue
        before, found, after = text.partition(answer)
        if not found:
            continue
        try:
            document = encode(parse(answer, tokens.dialect), tokens)
        except StructureError:
            continue
        ids += [*tokens.encode(before), *document.token_ids]
        text = after
    return [*ids, *tokens.encode(text)]
