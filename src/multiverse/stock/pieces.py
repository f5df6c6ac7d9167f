"""A tokenizer for servers that send text: tags, characters, and the pieces in which text comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..structure import Dialect

_FIRST = 0x110000  # numbers below are code points
_MOST = 1 << 18  # pieces with a number of their own; others are written as characters


class PieceTokenizer:
    """Numbers for pieces of text, in the place of token ids, where the server's tokens are not known.

    Each tag of the dialect is one piece, so is each character, and so is what a server sends at once. A text that is encoded
    here becomes tags and characters; the numbers mean something in this process only.

    Args:
        dialect: its tags.
        chat_template: of the model, if it is known.

    Attributes:
        eos_token_id: stands for the end of the text; decodes to nothing.
    """

    unk_token_id = None

    def __init__(self, dialect: Dialect, chat_template: str | None = None) -> None:
        self.chat_template = chat_template
        self.added_tokens_decoder: dict[int, object] = {}
        self.eos_token_id = _FIRST
        self.all_special_ids = [self.eos_token_id]
        self._texts = ["", *dialect.tags]
        self._numbers = {text: _FIRST + index for index, text in enumerate(self._texts) if text}
        self.splitter = Splitter(dialect.tags)

    def __len__(self) -> int:
        return _FIRST + max(len(self._texts), _MOST)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002 (as tokenizers have it)
        """A text as tags and characters."""
        return [number for part in self.splitter.split(text) for number in self._characters(part)]

    def numbers(self, piece: str) -> list[int]:
        """A tag, or a text without tags: line ends at its beginning, which belong to a tag before it, and the rest."""
        if piece in self.splitter.tags:
            return [self._numbers[piece]]
        rest = piece.lstrip("\n")
        return [*[ord("\n")] * (len(piece) - len(rest)), *self._number(rest)]

    def _number(self, piece: str) -> list[int]:
        """The number of a piece; of its characters, if there are too many pieces already."""
        if len(piece) <= 1:
            return [ord(character) for character in piece]
        known = self._numbers.get(piece)
        if known is None:
            if len(self._texts) >= _MOST:
                return self._characters(piece)
            known = self._numbers[piece] = _FIRST + len(self._texts)
            self._texts.append(piece)
        return [known]

    def decode(self, token_ids: int | Sequence[int], **_: object) -> str:
        """The text of pieces."""
        ids: Iterable[int] = [token_ids] if isinstance(token_ids, int) else token_ids
        return "".join(chr(number) if number < _FIRST else self._texts[number - _FIRST] for number in ids)

    def _characters(self, text: str) -> list[int]:
        tag = self._numbers.get(text) if text in self.splitter.tags else None
        return [tag] if tag is not None else [ord(character) for character in text]


class Splitter:
    """Finds tags in a text, also in one that comes in parts.

    Args:
        tags: the tags.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = frozenset(tags)
        self._longest = sorted(tags, key=len, reverse=True)
        self._most = max(map(len, tags), default=1) - 1

    def split(self, text: str) -> list[str]:
        """The text as tags and what stands between them, in order."""
        parts: list[str] = []
        while text:
            found = min(
                ((at, tag) for tag in self._longest if (at := text.find(tag)) >= 0), default=None, key=lambda hit: hit[0]
            )
            if found is None:
                parts.append(text)
                break
            at, tag = found
            parts += [text[:at], tag] if at else [tag]
            text = text[at + len(tag) :]
        return parts

    def held(self, text: str) -> int:
        """Number of characters at the end of a text that may be the beginning of a tag."""
        sizes = range(min(self._most, len(text)), 0, -1)
        return next(
            (size for size in sizes if any(len(tag) > size and tag.startswith(text[-size:]) for tag in self._longest)), 0
        )
