"""A dialect bound to a tokenizer: token ids of its tags and of the text that the engine forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

from ..errors import DialectError
from .dialect import Dialect, Positions, Role, read_dialect
from .dialects import DIALECTS, MULTIVERSE
from .plain import PlainEncoder, pattern_of, special_tokens
from .turns import Turns

_SPACES = str.maketrans("ĠĊĉč▁", " \n\t\r ")
"""White space as byte-level and sentence-piece tokenizers write it."""


class TokenDialect:
    """Token ids of a dialect's tags, and its heads and separators as tokens. Made by `resolve`.

    Attributes:
        dialect: the dialect that was resolved.
        roles: role of each tag's token id.
        ids: token id of each role that the dialect has.
        after, before: the white space behind a tag, and between a text and the tag behind it, as token ids.
        sep: the separator as token ids.
        blanks: tokens of the separator and of a space.
        answer_sep: the separator between the thinking and the answer, as token ids.
        resume_head: the forced tokens when the trunk resumes after a join.
        fork_tag: id of the tag that begins a block.
        outline_tag: id of the tag that begins an outline.
        turns: what surrounds the answers of a chat, if only they are structure in prompts; `None` takes every tag for one.
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
        self.after = {role: tuple(self.encode(space)) for role, space in dialect.after.items()}
        self.before = {role: tuple(self.encode(space)) for role, space in dialect.before.items()}
        self.sep = tuple(self.encode(dialect.sep))
        self.blanks = frozenset((*self.sep, *self.encode(" ")))
        self.answer_sep = self.after[Role.THINK_CLOSE]
        self.resume_head = tuple(self.encode(dialect.resume_head()))
        self.fork_tag = ids[dialect.begin]
        self.outline_tag = ids[Role.OUTLINE_OPEN]
        self.turns: Turns | None = None
        self.path_head = lru_cache(maxsize=4096)(self._path_head)
        self.outline_head = lru_cache(maxsize=4096)(self._outline_head)
        self.beginning = lru_cache(maxsize=4096)(self._beginning)
        self.ends_with = lru_cache(maxsize=65536)(self._ends_with)
        self.is_white = lru_cache(maxsize=65536)(self._is_white)
        # Between tags; where white space is exact, that is only what the dialect writes, and a space.
        self.is_blank = self.blanks.__contains__ if dialect.exact else self.is_white

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

    def _path_head(self, number: str) -> tuple[int, ...]:
        return tuple(self.encode(self.dialect.path_head(number)))

    def _outline_head(self, number: str) -> tuple[int, ...]:
        return tuple(self.encode(self.dialect.outline_head(number) + self.label_gap))

    def structural(self, token_ids: Sequence[int]) -> Sequence[int]:
        """A prompt as the machine is fed it: tags that are no structure are replaced by text (see `turns`)."""
        return token_ids if self.turns is None else self.turns.structural(token_ids, self.roles, self.encode("x")[0])

    def _beginning(self, label: str, blank: bool) -> tuple[int, ...]:
        """Tokens that begin with this rest of a label, or that it begins with; and with `blank` white space before it."""
        found = []
        for token, text in self._label_pieces:
            part = text.lstrip() if blank else text
            if part.startswith(label) or (label.startswith(part) and (part or blank)):
                found.append(token)
        return tuple(found)

    @cached_property
    def _label_pieces(self) -> list[tuple[int, str]]:
        """The tokens that may be part of a label, or white space before one, with their text."""
        marks = "0123456789." + self.dialect.label_end[:1]
        pieces = ((token, piece.translate(_SPACES)) for token, piece in enumerate(self._pieces) if piece)
        return [(token, text) for token, text in pieces if not text.strip() or text.lstrip()[0] in marks]

    @cached_property
    def spaced(self) -> tuple[int, ...]:
        """Tokens that begin with a space; the text after a label begins with one of them."""
        # A space by itself, as byte-level tokenizers write it, and as sentence-piece ones do.
        begins = (" ", "Ġ", "▁")
        return tuple(token for token, piece in enumerate(self._pieces) if piece is not None and piece.startswith(begins))

    @cached_property
    def white(self) -> tuple[int, ...]:
        """Tokens of white space alone."""
        found = (
            token for token, piece in enumerate(self._pieces) if piece is not None and not piece.translate(_SPACES).strip()
        )
        return tuple(token for token in found if self.is_white(token))

    @property
    def _pieces(self) -> list[str | None]:
        """The vocabulary as the tokenizer writes it; empty for words instead of a vocabulary."""
        convert = getattr(self._tokenizer, "convert_ids_to_tokens", None)
        return [] if convert is None else convert(list(range(len(self._tokenizer))))

    @cached_property
    def label_gap(self) -> str:
        """The space between an outline's label and its text, if it is always a token of its own; otherwise empty.

        Most tokenizers join it to the first word. Where only a single space begins with a space, there is no choice after the
        label, and the space is part of the outline's head. Where white space is free there is always a choice.
        """
        return " " if self.dialect.exact and len(self.spaced) == 1 else ""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, tags included."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _ends_with(self, token_id: int, text: str) -> bool:
        # Tokenizers merge line ends with the text before them (".\n"), so comparing token ids is not enough.
        return self.decode([token_id]).endswith(text)

    def _is_white(self, token_id: int) -> bool:
        return token_id not in self.roles and self.decode([token_id]).isspace()

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
    tokens = TokenDialect(dialect, ids, tokenizer)
    behind = tokens.after[Role.PATH_CLOSE]
    if dialect.after_path == "free" and len(behind) > 1:
        space = f"{dialect.after[Role.PATH_CLOSE]!r} is {len(behind)} tokens in this tokenizer"
        raise DialectError(f"behind a path of dialect {dialect.name!r} the model writes one token, but {space}")
    return tokens


def detect(tokenizer: Any, dialects: tuple[Dialect, ...]) -> TokenDialect | None:
    """The first dialect whose tags are all single tokens; `None` for a plain autoregressive model."""
    for dialect in dialects:
        try:
            return resolve(tokenizer, dialect)
        except DialectError:
            continue
    return None


def bind(
    tokenizer: Any, config: Any, dialect: Dialect | None = None, *, layout: Positions | None = None
) -> TokenDialect | None:
    """The dialect of a model, bound to its tokenizer; `None` for a plain autoregressive model.

    Args:
        config: the model's configuration, which may have a dialect noted.
        dialect: the dialect, in place of the one that is noted, or of the first known one that fits.
        layout: the layout, in place of what the dialect says.

    Raises:
        DialectError: the dialect does not fit the tokenizer, or there is a layout to set and no dialect.
    """
    wanted = dialect if dialect is not None else read_dialect(config)
    found = resolve(tokenizer, wanted) if wanted is not None else detect(tokenizer, tuple(DIALECTS.values()))
    if layout is None:
        return found
    if found is None:
        raise DialectError(f"layout={layout!r} is for models that fork, and this one's tokenizer has no tags: leave it out")
    return TokenDialect(replace(found.dialect, positions=layout), found.ids, tokenizer)
