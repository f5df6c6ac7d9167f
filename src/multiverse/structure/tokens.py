"""A dialect bound to a tokenizer: token ids of its tags and of the text that the engine forces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from ..errors import DialectError
from .dialect import MULTIVERSE, Dialect, Role
from .plain import PlainEncoder, pattern_of, special_tokens


class TokenDialect:
    """Token ids of a dialect's tags, and its heads and separators as tokens. Made by `resolve`.

    Attributes:
        dialect: the dialect that was resolved.
        roles: role of each tag's token id.
        ids: token id of each role that the dialect has.
        sep: the separator as token ids.
        blanks: tokens of the separator and of a space.
        answer_sep: the separator between the thinking and the answer, as token ids.
        resume_head: the forced tokens when the trunk resumes after a join.
        fork_tag: id of the tag that begins a block.
        outline_tag: id of the tag that begins an outline.
    """

    def __init__(self, dialect: Dialect, ids: dict[Role, int], tokenizer: Any) -> None:
        self.dialect = dialect
        self.ids = ids
        self.roles = {token_id: role for role, token_id in ids.items()}
        self._tokenizer = tokenizer
        tags = {self.tag(role): token_id for role, token_id in ids.items()}
        special = {text: token_id for text, token_id in special_tokens(tokenizer).items() if text not in tags}
        self._special, self._tags = pattern_of(special), pattern_of(tags)
        self._plain = PlainEncoder(tokenizer, {**special, **tags})
        self.sep = tuple(self.encode(dialect.sep))
        self.blanks = frozenset((*self.sep, *self.encode(" ")))
        self.answer_sep = tuple(self.encode(dialect.answer_sep))
        self.resume_head = tuple(self.encode(dialect.resume_head()))
        self.fork_tag = ids[Role.BLOCK_OPEN if dialect.block is not None else Role.GOAL_OPEN]
        self.outline_tag = ids[Role.OUTLINE_OPEN]
        self.path_head = lru_cache(maxsize=4096)(self._path_head)
        self.outline_head = lru_cache(maxsize=4096)(self._outline_head)
        self.ends_with_sep = lru_cache(maxsize=65536)(self._ends_with_sep)

    def encode(self, text: str) -> list[int]:
        """Token ids of a segment, without special tokens: its tags are tokens, what else reads like a special token is text."""
        if self._special.search(text) is None:
            return list(self._tokenizer.encode(text, add_special_tokens=False))
        parts: list[str | int] = []
        at = 0
        for tag in self._tags.finditer(text):
            parts += [text[at : tag.start()], self.ids[self.dialect.roles[tag[0]]]]
            at = tag.end()
        return self._plain.encode([*parts, text[at:]])

    def decode(self, token_ids: Sequence[int]) -> str:
        """Token ids as text, tags included."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _path_head(self, label: str) -> tuple[int, ...]:
        return tuple(self.encode(self.dialect.path_head(label)))

    def _outline_head(self, label: str) -> tuple[int, ...]:
        return tuple(self.encode(self.dialect.outline_head(label) + self.label_gap))

    @cached_property
    def spaced(self) -> tuple[int, ...]:
        """Tokens that begin with a space; the text after a label begins with one of them."""
        convert = getattr(self._tokenizer, "convert_ids_to_tokens", None)
        if convert is None:  # words instead of a vocabulary
            return ()
        pieces = convert(list(range(len(self._tokenizer))))
        # A space by itself, as byte-level tokenizers write it, and as sentence-piece ones do.
        return tuple(token for token, piece in enumerate(pieces) if piece is not None and piece.startswith((" ", "Ġ", "▁")))

    @cached_property
    def label_gap(self) -> str:
        """The space between an outline's label and its text, if it is always a token of its own; otherwise empty.

        Most tokenizers join it to the first word. Where only a single space begins with a space, there is no choice after the
        label, and the space is part of the outline's head.
        """
        return " " if len(self.spaced) == 1 else ""

    def _ends_with_sep(self, token_id: int) -> bool:
        # Tokenizers merge line ends with the text before them (".\n"), so comparing token ids is not enough.
        return self.decode([token_id]).endswith(self.dialect.sep)

    def name(self, token_id: int) -> str:
        """The tag of a token, or ``text``."""
        role = self.roles.get(token_id)
        if role is None:
            return "text"
        return next(tag for tag, r in self.dialect.roles.items() if r is role)

    def tag(self, role: Role) -> str:
        """The tag with this role, as text."""
        return next(tag for tag, r in self.dialect.roles.items() if r is role)


def resolve(tokenizer: Any, dialect: Dialect = MULTIVERSE) -> TokenDialect:
    """Bind a dialect to a Hugging Face tokenizer.

    Raises:
        DialectError: a tag is not exactly one token, or two tags are the same token.
    """
    remedy = "add the dialect's tags with tokenizer.add_tokens(...) and resize the model's embeddings"
    encoded = {tag: list(tokenizer.encode(tag, add_special_tokens=False)) for tag in dialect.roles}
    unknown = getattr(tokenizer, "unk_token_id", None)
    tagless = all(len(token_ids) != 1 or token_ids[0] == unknown for token_ids in encoded.values())
    start = f"this tokenizer has none of the tags of dialect {dialect.name!r}: " if tagless else ""
    ids: dict[Role, int] = {}
    for tag, role in dialect.roles.items():
        name = f"the tag {tag} of dialect {dialect.name!r}"
        token_ids = encoded[tag]
        if len(token_ids) != 1:
            raise DialectError(f"{start}{name} is {len(token_ids)} tokens in this tokenizer, and must be exactly one: {remedy}")
        token_id = token_ids[0]
        if token_id in ids.values() or token_id == unknown:
            raise DialectError(f"{start}{name} has no token of its own in this tokenizer (it maps to id {token_id}): {remedy}")
        ids[role] = token_id
    return TokenDialect(dialect, ids, tokenizer)


def detect(tokenizer: Any, dialects: tuple[Dialect, ...]) -> TokenDialect | None:
    """The first dialect whose tags are all single tokens; `None` for a plain autoregressive model."""
    for dialect in dialects:
        try:
            return resolve(tokenizer, dialect)
        except DialectError:
            continue
    return None
