"""`StockLLM`: `LLM` over a server of another engine (vLLM, SGLang, llama.cpp, any with OpenAI's ``/v1/completions``)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from ..engine.events import FinishEvent
from ..engine.params import SamplingParams
from ..errors import ModelError, RequestError, UpstreamError
from ..families import AUTO, bind, choose, read_instruction
from ..inputs import Messages, called, dialect_of, join_of, priority_of, text_or_ids
from ..llm import LLM
from ..models import resolve as find_model
from ..progress import counting
from ..prompting import read_instructed
from ..structure import DIALECTS, ChatEncoder, ChatPrompt, Dialect, Joins, TokenDialect
from .engine import StockEngine
from .model import UNLIMITED, StockModel
from .pieces import PieceTokenizer
from .probe import probe
from .server import ServerOptions, look_up

if TYPE_CHECKING:
    from ..engine import Event, Generation
    from ..engine.scoring import Score


class StockLLM(LLM):
    """A model that a server of another engine runs, with fork and join over it.

        llm = StockLLM("http://localhost:8000/v1", tokenizer="./my-model")
        out = llm.chat([{"role": "user", "content": "…"}], SamplingParams(temperature=0))[0]

    The model is decoded to a fork, then each path by a request of its own over the text before it, and after the join the
    server reads the paths' text in one line. So models with a text join give what they give with the engine of this package;
    those whose paths are joined by keys and values are only approximated. docs/stock-engines.md says what is exact.

    Args:
        base_url: address of the server, with or without ``/v1``.
        model: its name there; `None` takes the first that the server offers.
        tokenizer: the model's tokenizer: a name, a folder or a hub id. With it, and a server that gives token ids, ids go over
            the wire both ways, and chats have the model's template. Without, texts do.
        dialect: as of `LLM`; without a tokenizer it has to be given.
        join: what a parent reads of its paths: their ``text``, or a ``message`` of each; `None` is what the dialect says, and
            text where that is keys and values.
        options: `preset` and `instruction_file`, as of `LLM`; `api_key`, `concurrency`, `stall_timeout`, `tries`, `backoff`, as
            of `ServerOptions`.

    Attributes:
        exact: whether token ids go over the wire both ways.
        server: kind of the server, such as ``vLLM``.

    Raises:
        UpstreamError: the server cannot be reached, refuses, or has no such model.
        ModelError: the tokenizer cannot be read, or is not that of the model.
        DialectError: the dialect does not fit the tokenizer.
        RequestError: another argument is not valid.
        ExtraError: httpx is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        tokenizer: str | Path | None = None,
        dialect: Dialect | str | None = None,
        join: Joins | None = None,
        **options: Any,
    ) -> None:
        wanted, join = dialect_of(dialect), join_of(join)
        if join == "kv":
            raise RequestError(
                "join='kv' cannot be had over a server: keys and values do not go over the wire; use join='text'"
            )
        preset, instruction_file = options.pop("preset", AUTO), options.pop("instruction_file", None)
        given = ServerOptions(base_url, model, **options)
        about = look_up(given)
        own, config = _read_tokenizer(tokenizer) if tokenizer is not None else (None, None)
        self.recognised = choose(preset, str(tokenizer or about.model), own, config, wanted)
        instruction = read_instruction(find_model(tokenizer) if tokenizer is not None else None, instruction_file)
        bound = bind(self.family, own, config, wanted, instruction)
        self.prompting, self._form = bound.prompting, bound.form
        if own is not None:
            wanted = bound.tokens.dialect if bound.tokens is not None else None
        if own is None and wanted is None:
            raise RequestError(
                f"dialect=None needs the model's tokenizer, which tells it: give tokenizer=, or one of {', '.join(DIALECTS)}"
            )
        if wanted is not None and join is not None:
            wanted = replace(wanted, join=join)
        seen = probe(given, about, own)
        template = getattr(own, "chat_template", None)
        pieces = PieceTokenizer(wanted, template) if wanted is not None and not (own is not None and seen.ids) else None
        if pieces is None and not seen.ids:
            raise ModelError(f"{given.address} sends no token ids, and its model has no tags: there is nothing to fork")
        self.model_path = about.model
        self.tokenizer = pieces if pieces is not None else own
        self.about = None
        self._own_tokenizer = own
        ends = _stop_ids(config) | (self.family.end_ids(own) if self.family is not None else frozenset())
        self._stock = StockModel(seen.api, self.tokenizer, wanted, about.max_positions or UNLIMITED, ends)
        self.instructed = wanted is not None and (config is None or read_instructed(config))
        self.exact, self.server = self._stock.exact, seen.api.name
        self._chats = ChatEncoder(own, self._stock.tokens, self._form) if self.exact else None  # type: ignore[assignment]
        if self.family is not None:
            self._stock.info = self._stock.info._replace(read_answer=self.family.read_answer)
        if self.exact and self._stock.tokens is not None and bound.tokens is not None:
            self._stock.tokens.turns = bound.tokens.turns
        self._engine = None
        self._remote = StockEngine(given, about, self._stock)

    @property
    def tokens(self) -> TokenDialect | None:
        """The dialect bound to the tokenizer, or to pieces of text; `None` for a plain autoregressive model."""
        return self._stock.tokens

    @property
    def max_positions(self) -> int:
        """Longest context, as the server says."""
        return self._stock.max_positions

    @property
    def room(self) -> int:
        """Most tokens of a request: the longest context."""
        return self._stock.max_positions

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._stock.vocabulary

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        return self._stock.stop_ids

    def decode(self, token_ids: list[int]) -> str:
        """Token ids as text, tags included."""
        return self._stock.decode(token_ids)

    @property
    def engine(self) -> Never:
        """There is none in this process.

        Raises:
            RequestError: always.
        """
        raise RequestError(f"{self.model_path!r} runs on a server: there is no engine in this process (see async_engine)")

    def async_engine(self) -> StockEngine:
        """What runs generations for tasks of event loops, with connections of its own."""
        return StockEngine(self._remote.options, self._remote.about, self._stock)

    def close(self) -> None:
        """Abort what is running, here and on the server. May be called again."""
        self._remote.close()

    def __repr__(self) -> str:
        how = "ids" if self.exact else "text"
        return f"StockLLM({self.model_path!r} at {self._remote.options.address}, {self.server}, by {how})"

    def check(self, prompt: list[int], params: SamplingParams) -> None:
        """Raise `RequestError` if a request could never run."""
        self._remote.check(prompt, params)

    def score(self, texts: Any, *, share_every: int | None = None, as_trained: bool = False) -> list[Score]:  # noqa: ARG002
        """Refused: see `StockEngine.score`."""
        raise RequestError("scores need a model in this process: a server of another engine generates only")

    def is_unlike(self, question: str) -> bool:  # noqa: ARG002 (as LLM has it)
        """Whether a question is unlike those of the training, which is not known here."""
        return False

    def read_chat(self, messages: Messages, known: Mapping[str, Sequence[int]] | None = None) -> ChatPrompt:
        """As `LLM.read_chat`. Where texts go over the wire, control tokens in messages cannot be told from the template's.

        Raises:
            RequestError: there is no chat template, or it refuses the messages.
        """
        if self._template is None:
            raise RequestError(
                f"chats with {self.model_path!r} need its chat template: give tokenizer= a folder or hub id that has it, "
                "or use generate() with a raw prompt"
            )
        if self.exact:
            return super().read_chat(messages, known)
        assert self._own_tokenizer is not None
        try:
            text = self._own_tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **self._form.switches
            )
        except Exception as error:  # templates refuse by raising exceptions of any kind
            raise RequestError(f"the model's chat template refuses these messages: {error}") from None
        return ChatPrompt(self.tokenizer.encode(text))

    def _encode(self, prompt: Any) -> list[int]:
        given = text_or_ids(prompt, len(self.tokenizer))
        if isinstance(given, str):
            return list(self.tokenizer.encode(given))
        if not self.exact:
            raise RequestError("token ids need the model's tokenizer and a server that gives ids: give tokenizer=, or a text")
        return given

    def _events(self, token_ids: list[int], params: SamplingParams) -> Iterator[Event]:
        arrived: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()

        def take(events: Sequence[tuple[int, Event]], error: Exception | None, *, admitted: bool | None) -> None:  # noqa: ARG001
            for _, event in events:
                arrived.put(event)
            if error is not None:
                arrived.put(error)

        abort = self._remote.launch([token_ids], [params], 0, take, listening=True)
        try:
            while True:
                event = arrived.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, FinishEvent):
                    return
        finally:
            abort()

    def _run(
        self,
        prompts: list[list[int]],
        params: list[SamplingParams],
        priority: int,
        on_finish: Callable[[int, Generation], None] | None,
        progress: bool | None,
    ) -> list[Generation]:
        priority = priority_of(priority)
        called(on_finish, "on_finish")
        for number, (prompt, own) in enumerate(zip(prompts, params, strict=True)):
            try:
                self.check(prompt, own)
            except RequestError as error:
                raise RequestError(f"prompt {number}: {error}" if len(prompts) > 1 else str(error)) from None
        total = sum(own.n for own in params)
        results: dict[int, Generation] = {}
        failures: list[tuple[int, Exception]] = []
        arrived: queue.SimpleQueue[tuple[int, int, Generation | Exception]] = queue.SimpleQueue()
        aborts = []
        try:
            first = 0
            for number, (prompt, own) in enumerate(zip(prompts, params, strict=True)):
                sink = partial(_collect, arrived, number, first)
                aborts.append(self._remote.launch([prompt], [own], priority, sink, listening=False))
                first += own.n
            unfinished = {number: own.n for number, own in enumerate(params)}
            with counting("generations", total, progress) as advance:
                while unfinished:
                    number, index, result = arrived.get()
                    if isinstance(result, Exception):
                        failures.append((number, result))
                        unfinished.pop(number, None)
                        continue
                    results[index] = result
                    unfinished[number] -= 1
                    if not unfinished[number]:
                        del unfinished[number]
                    advance()
                    if on_finish is not None:
                        on_finish(index, result)
        finally:
            for abort in aborts:
                abort()
        if failures:
            raise _failed(failures, len(prompts))
        return [results[number] for number in range(total)]


def _collect(
    arrived: queue.SimpleQueue[tuple[int, int, Any]],
    number: int,
    first: int,
    events: Sequence[tuple[int, Any]],
    error: Exception | None,
    *,
    admitted: bool | None,  # noqa: ARG001 (nobody waits for it here)
) -> None:
    """Hand on the results of one prompt."""
    for index, event in events:
        if isinstance(event, FinishEvent):
            arrived.put((number, first + index, event.generation))
    if error is not None:
        arrived.put((number, first, error))


def _failed(failures: list[tuple[int, Exception]], count: int) -> Exception:
    """The error of a call of which some prompts failed; the others have finished."""
    number, first = min(failures, key=lambda failure: failure[0])
    if count == 1:
        return first
    others = f", and so did {len(failures) - 1} others" if len(failures) > 1 else ""
    message = f"prompt {number} failed{others}: {first}"
    error = RequestError(message) if isinstance(first, RequestError) else UpstreamError(message, getattr(first, "status", None))
    error.__cause__ = first
    return error


def _read_tokenizer(name: str | Path) -> tuple[Any, Any]:
    """A tokenizer and, where its folder or repository has one, the model's configuration; else `None`."""
    from transformers import AutoConfig, AutoTokenizer

    source = str(find_model(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"tokenizer={str(name)!r} could not be read: give a folder or hub id with a tokenizer ({reason})"
        ) from None
    try:
        return tokenizer, AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError):
        return tokenizer, None


def _stop_ids(config: Any) -> frozenset[int]:
    """The tokens that end a text, as far as the model's configuration names them."""
    ids = getattr(config, "eos_token_id", None)
    return frozenset([ids] if isinstance(ids, int) else ids or ())
