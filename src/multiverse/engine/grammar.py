"""Answers that follow a grammar: JSON, or JSON of a schema.

The grammar library is llguidance (extra ``json``), imported when the first such request comes. It compiles a schema once, and
gives for every place of an answer the tokens that may stand there. Torch-free.

Where the answer begins is not known here: see `Limits.choices`, and `Request.advance` for what is fed.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from .response_format import ResponseFormat, impossible, refused

_MOST_STATES = 50_000
"""Most states of the automaton of one answer, which grows as it is written."""
_KEPT = 64
"""Most compiled grammars that are kept."""
# One space, or the line end and indentation of the next line: without a bound, models of JSON may write blanks for ever.
_BLANK = r"( |\n {0,24}|\n\t{0,12})"


class GrammarCompiler:
    """Compiles the grammars of answers for a model, when they are first asked for. May be used from any thread.

    Args:
        tokenizer: the model's Hugging Face tokenizer.
        vocabulary: number of tokens that the model has logits for.
        stop_ids: tokens that end a text.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: frozenset[int]) -> None:
        self._tokenizer, self._vocabulary, self._stop_ids = tokenizer, vocabulary, stop_ids
        self._lock = Lock()
        self._bound: Any = None
        self._kept: OrderedDict[ResponseFormat, GrammarMatcher] = OrderedDict()

    def matcher(self, form: ResponseFormat) -> GrammarMatcher:
        """A matcher at the beginning of an answer of this format.

        The first call for a form compiles it, which may take a second, and the first of all reads the tokenizer.

        Raises:
            RequestError: the schema cannot be honoured, or not by this model.
            ExtraError: llguidance is not installed.
        """
        with self._lock:
            if (known := self._kept.get(form)) is not None:
                self._kept.move_to_end(form)
                return known.copy()
        compiled = self._compile(form.schema)
        with self._lock:
            self._kept[form] = compiled
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return compiled.copy()

    def _compile(self, schema: str) -> GrammarMatcher:
        llguidance = require("llguidance", "json")
        with self._lock:
            if self._bound is None:
                self._bound = self._bind()
        options = {"lenient": False, "whitespace_pattern": _BLANK, "coerce_one_of": False}
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
        except ValueError as error:
            raise impossible(str(error)) from None
        limits = llguidance.LLParserLimits(max_lexer_states=_MOST_STATES)
        matcher = llguidance.LLMatcher(self._bound, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise impossible(_words(matcher.get_error()))
        ends = tuple(token for token in self._stop_ids if token < self._vocabulary)
        found = GrammarMatcher(matcher, self._vocabulary, ends)
        if not found.allowed.any():
            raise impossible(_words(matcher.get_error()) or "no answer fits it, or none that this model has tokens for")
        return found

    def _bind(self) -> Any:
        """The tokenizer as llguidance reads it."""
        library = require("llguidance.hf", "json")
        try:
            # Tokens beyond the tokenizer's, which pad the vocabulary, are never allowed.
            return library.from_tokenizer(
                self._tokenizer, n_vocab=max(self._vocabulary, len(self._tokenizer)), eos_token=sorted(self._stop_ids) or None
            )
        except Exception as error:
            raise refused(f"cannot be honoured: this model's tokenizer cannot be read for it ({error})") from None


def _words(error: str) -> str:
    """What is wrong in the library's words, without the state of its parser; the lines of a pattern become one."""
    if error.startswith(("NoExtension", "Parser Error: token")):
        return "no answer fits it"
    return " ".join(error.partition("<state>")[0].split())[:300]


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "grammar")


class GrammarMatcher:
    """Follows an answer as it is written, and says what may come next.

    Args:
        matcher: llguidance's, at the beginning.
        vocabulary: number of tokens that the model has logits for.
        stop_ids: tokens that end a text: allowed where the answer may end.

    Attributes:
        done: the answer is complete, and nothing can follow.
    """

    def __init__(self, matcher: Any, vocabulary: int, stop_ids: tuple[int, ...]) -> None:
        self._matcher, self._vocabulary, self._stop_ids = matcher, vocabulary, list(stop_ids)
        self.done = False
        self._next: Future[bytes] | None = None
        self._allowed: NDArray[np.bool_] | None = None

    def copy(self) -> GrammarMatcher:
        """Another matcher at the same place."""
        other = GrammarMatcher(self._matcher.deep_copy(), self._vocabulary, ())
        other._stop_ids, other._allowed = self._stop_ids, self._allowed
        return other

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether each token may come next [vocabulary]; all false if none may. Not to be changed."""
        if self._allowed is None:
            bits = self._next.result() if self._next is not None else self._matcher.compute_bitmask()
            self._next = None
            allowed = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[: self._vocabulary].astype(np.bool_)
            allowed[self._stop_ids] = self._matcher.is_accepting()
            if self._matcher.is_error():
                allowed[:] = False
            self._allowed = allowed
        return self._allowed

    def feed(self, token: int) -> str | None:
        """The answer has one more token; returns what is wrong if it may not stand there.

        What may follow is computed beside the model's next forward.
        """
        self._allowed = None
        if self._next is not None:  # the matcher belongs to one thread at a time
            self._next.result()
            self._next = None
        if not self._matcher.consume_token(token):
            return f"the answer cannot go on as response_format wants it: {_words(self._matcher.get_error())}"
        self.done = bool(self._matcher.is_stopped())
        if not self.done:
            self._next = _workers().submit(self._matcher.compute_bitmask)
        return None
