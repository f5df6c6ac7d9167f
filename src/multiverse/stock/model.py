"""What is known here of a model that a server runs: its tokens or pieces of text, its dialect, and what its server offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..engine.characters import ends_inside_of
from ..engine.params import SamplingParams
from ..engine.tree import ModelInfo
from ..errors import RequestError
from ..structure import Dialect, Role, TokenDialect, resolve
from .api import Api
from .pieces import PieceTokenizer, Splitter

UNLIMITED = 1 << 30
"""Longest context of a model whose server does not say."""
_BIAS = 100.0  # forces or bans a token
_MOST_FORCED = 300  # most tokens that are forced by a bias each


class StockModel:
    """A model behind a server.

    Args:
        api: the kind of server.
        tokenizer: the model's own; or a `PieceTokenizer`, where texts go over the wire and not token ids.
        dialect: `None` for a plain autoregressive model.
        max_positions: longest context.
        stop_ids: tokens that end a text.

    Attributes:
        exact: whether token ids go over the wire, both ways.
        tokens: the dialect bound to the tokenizer; it joins by text where its own join is by keys and values.
        info: what a request has to know of the model.
        end_id: stands for the end of a text of which the server does not say how it ended.
        stops: tokens that end a request on the server, since a branch forks or closes there: so that it writes nothing more
            before it hears of that.
        fields: those of every request, beside prompt and sampling parameters.

    Raises:
        DialectError: a tag of the dialect is no token.
    """

    def __init__(
        self,
        api: Api,
        tokenizer: Any,
        dialect: Dialect | None,
        max_positions: int = UNLIMITED,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.api, self.tokenizer, self.max_positions = api, tokenizer, max_positions
        self.exact = not isinstance(tokenizer, PieceTokenizer)
        self.vocabulary = len(tokenizer)
        self.tokens: TokenDialect | None = resolve(tokenizer, _by_text(dialect)) if dialect is not None else None
        self.roles: Mapping[int, Role] = self.tokens.roles if self.tokens is not None else {}
        own = getattr(tokenizer, "eos_token_id", None)
        self.end_id = own if isinstance(own, int) else min(stop_ids, default=0)
        self.stop_ids = stop_ids | ({own} if isinstance(own, int) else frozenset())
        self.splitter = tokenizer.splitter if isinstance(tokenizer, PieceTokenizer) else Splitter(())
        inside = ends_inside_of(tokenizer) if self.exact else _never
        self.info = ModelInfo(self.tokens, self.decode, max_positions, self.stop_ids, ends_inside=inside)
        self.fields = dict(api.sent)
        self.stops: tuple[int, ...] = ()
        if self.tokens is not None and api.stops and self.exact:
            # Where the model chooses what follows a path, its request goes on for one token.
            ends = (Role.GOAL_CLOSE,) if self.tokens.dialect.after_path == "free" else (Role.GOAL_CLOSE, Role.PATH_CLOSE)
            self.stops = tuple(self.tokens.ids[role] for role in ends)
            self.fields["stop_token_ids"] = list(self.stops)
        if self.tokens is not None and api.preserved is not None:
            self.fields[api.preserved] = list(self.tokens.dialect.tags)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Token ids as text, tags included."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def prompt(self, context: list[int]) -> list[int] | str:
        """A context as it goes over the wire."""
        return context if self.exact else self.decode(context)

    def numbers(self, part: str) -> list[int]:
        """The numbers of a tag, or of a text between tags, that came as text."""
        assert isinstance(self.tokenizer, PieceTokenizer)
        return self.tokenizer.numbers(part)

    def id_of(self, token: int | str) -> int:
        """The id of a token that the server gives by its id, or by its text."""
        if isinstance(token, int):
            return token
        found: list[int] = self.tokenizer.encode(token, add_special_tokens=False) if self.exact else self.numbers(token or " ")
        return found[0] if found else self.end_id

    def check(self, params: SamplingParams) -> None:
        """Raise `RequestError` for a parameter that cannot be honoured."""
        self.api.check(params)
        if self.exact:
            for name, named in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
                for token in named:
                    if not 0 <= token < self.vocabulary:
                        raise RequestError(
                            f"{name} names token id {token}, outside the vocabulary (0 to {self.vocabulary - 1})"
                        )
            return
        for name in ("stop_token_ids", "logit_bias"):
            if getattr(params, name):
                raise RequestError(f"{name} needs token ids, and this server sends text: give tokenizer=, or use stop")
        if params.min_tokens:
            raise RequestError(
                f"min_tokens={params.min_tokens} cannot be honoured where the server sends text: give tokenizer="
            )

    def constrains(self, tokens: Sequence[int]) -> bool:
        """Whether the server can be told to avoid these tokens."""
        if self.exact:
            return "logit_bias" in self.api.fields
        return self.api.biases_text and all(token in self.roles or token in self.stop_ids for token in tokens)

    def constrain(self, only: Sequence[int] | None, banned: Sequence[int], bias: Mapping[int, float]) -> dict[str, Any]:
        """The fields of a request whose first token is one of `only`, if that is given, and none of `banned`.

        Args:
            bias: added to the logits of tokens anyway.
        """
        if only is not None and self.exact and self.api.allowed is not None:
            fields: dict[str, Any] = {self.api.allowed: list(only)}
            return {**fields, "logit_bias": {str(token): value for token, value in bias.items()}} if bias else fields
        changed = dict(bias)
        if only is not None and len(only) <= _MOST_FORCED:
            changed |= {token: _BIAS + bias.get(token, 0.0) for token in only}
        changed |= dict.fromkeys(banned, -_BIAS)
        if self.exact:
            return {"logit_bias": {str(token): value for token, value in changed.items()}}
        ends = any(token in self.stop_ids for token in banned)
        written = [[self.decode([token]), value] for token, value in changed.items() if token in self.roles]
        return {"logit_bias": written, **({"ignore_eos": True} if ends else {})}


def _by_text(dialect: Dialect) -> Dialect:
    """The dialect as another engine can join it: no keys and values go over the wire, and positions are 0, 1, 2, ..."""
    return replace(dialect, join="text" if dialect.join == "kv" else dialect.join, positions="engine")


def _never(token_ids: Sequence[int]) -> bool:  # noqa: ARG001 (pieces of text hold whole characters)
    return False
