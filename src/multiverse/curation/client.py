"""The way to the model that annotates: any endpoint that speaks OpenAI's chat completions.

A call that fails in passing (429, 5xx, a time-out, a dropped connection, an answer that is none) is repeated after a while;
what no repetition mends ends the run at once, or the row if only the one request is to blame.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import ExtraError
from .budget import Budget
from .errors import CurationError, EndpointError, RefusedError
from .limiter import ConcurrencyLimiter
from .store import Store, Usage
from .types import Completion, Request

LONGEST_WAIT = 600.0
"""An endpoint that wants more seconds than these is left alone."""

_LONGEST_BACKOFF = 60.0
# A body is read up to this many bytes, and so many a token: a token is some four characters, and a character up to twelve
# bytes as JSON. An endpoint that sends more does not keep to `max_tokens`.
_BODY_BYTES, _TOKEN_BYTES = 65_536, 32
_IN_PASSING = {408, 409, 425, 429}
_OVERLOADED = {408, 429, 503, 529}
_NEVER_CONNECTED = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}


@dataclass(frozen=True)
class EndpointConfig:
    """Which model is asked, and how.

    Attributes:
        base_url: up to and with ``/v1``.
        temperature, seed: sent where they are not `None`; elsewhere the endpoint's own.
        concurrency: most calls in flight.
        timeout: seconds that a call may take.
        tries: how often a call is made that fails in passing.
        backoff: seconds before the second try; they double from try to try.
    """

    base_url: str
    model: str
    key: str = "EMPTY"
    temperature: float | None = None
    seed: int | None = None
    concurrency: int = 16
    timeout: float = 300.0
    tries: int = 8
    backoff: float = 0.5

    @property
    def address(self) -> str:
        """The base URL, without what may be secret in it."""
        url = urlsplit(self.base_url)
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))

    @property
    def settings(self) -> dict[str, Any]:
        """What an answer depends on, beside the request."""
        return {"model": self.model, "temperature": self.temperature, "seed": self.seed}


class _TransientError(Exception):
    """A call failed, and may well succeed when it is repeated.

    Attributes:
        kind: what happened, in a word or a number.
        overloaded: whether the endpoint has too much to do.
        after: seconds the endpoint wants to be left alone.
    """

    def __init__(self, kind: str, *, overloaded: bool = False, after: float = 0.0) -> None:
        super().__init__(kind)
        self.kind, self.overloaded, self.after = kind, overloaded, after


class Client:
    """Puts requests to an endpoint, each once: `ask` is an `Ask`. Used inside ``async with``.

    Attributes:
        paid: calls that were answered since the start, and their tokens; what came from the store is not among them.
        failures: calls that failed in passing, by what happened.
        stages: requests that wait for their answer, by stage.
        gate: how many calls are in flight.

    Raises:
        ExtraError: openai is not installed.
    """

    def __init__(self, endpoint: EndpointConfig, store: Store, budget: Budget) -> None:
        try:
            self._openai = import_module("openai")
        except ImportError as error:
            raise ExtraError("openai", "curate") from error
        self.endpoint, self.store, self.budget = endpoint, store, budget
        self.gate = ConcurrencyLimiter(endpoint.concurrency)
        self.paid = Usage()
        self.failures: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()
        self._http = self._openai.AsyncOpenAI(
            api_key=endpoint.key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0
        )
        # Whether the model has ever answered: then key, URL and model are right, and what is refused is refused for itself.
        self._works = budget.spent.calls > 0
        self._reached = False
        self._bound = "max_tokens"

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.close()

    async def ask(self, request: Request) -> Completion:
        """The answer to a request, from the store or from the endpoint.

        Raises:
            RefusedError: this one request cannot be answered.
            CurationError: nothing can; or the client was stopped.
        """
        key = request.key(**self.endpoint.settings)
        self.stages[request.stage] += 1
        try:
            return await self.store.answer(key, request, lambda: self._repeated(request, key))
        finally:
            self.stages[request.stage] -= 1

    def stop(self, reason: CurationError) -> None:
        """Begin no call any more; who asks gets this error. Calls in flight come to their end, and are stored."""
        self.gate.stop(reason)
        self.budget.close(reason)

    async def _repeated(self, request: Request, key: str) -> Completion:
        draw, before = random.Random(f"{self.endpoint.seed}/{key}"), self.paid.calls
        for number in range(1, self.endpoint.tries + 1):
            try:
                return await self._paid(request)
            except _TransientError as error:
                self.failures[error.kind] += 1
                kind, wait = error.kind, error.after
            if number < self.endpoint.tries:
                doubled = min(self.endpoint.backoff * 2 ** (number - 1), _LONGEST_BACKOFF)
                await self.gate.sleep(max(wait, doubled * draw.uniform(0.5, 1)))
        told = f"{self.endpoint.address} failed {self.endpoint.tries} times on the same request, at last with: {kind}"
        if self.paid.calls > before:
            raise RefusedError(f"{told}; others were answered meanwhile")
        raise EndpointError(f"{told}: see to the endpoint and start again; what was answered is stored")

    async def _paid(self, request: Request) -> Completion:
        """One call, inside the gate and the budget."""
        entered = await self.gate.enter()
        answer, overloaded = None, False
        try:
            reserved = await self.budget.reserve(request)
            try:
                answer = await self._call(request)
                return answer
            except _TransientError as error:
                overloaded = error.overloaded
                if error.after > 0:
                    self.gate.hold(error.after)
                raise
            finally:
                self.budget.settle(reserved, answer)
        finally:
            self.gate.leave(entered, overloaded=overloaded, well=answer is not None)

    async def _call(self, request: Request) -> Completion:
        # Half a character, quoted from an answer, cannot be sent.
        messages = [{"role": role, "content": text.encode(errors="replace").decode()} for role, text in request.messages]
        settings = {name: value for name, value in self.endpoint.settings.items() if value is not None}
        settings[self._bound] = request.max_tokens
        openai = self._openai
        try:
            # Around all of it: the library's own time-out is for each piece that is read.
            async with asyncio.timeout(self.endpoint.timeout):
                create = self._http.chat.completions.with_streaming_response.create
                async with create(messages=messages, **settings) as response:
                    self._reached = True
                    body = await _read(response, _BODY_BYTES + _TOKEN_BYTES * request.max_tokens)
        except openai.APIStatusError as error:
            self._reached = True
            return await self._refused(error, request)
        except (TimeoutError, openai.APITimeoutError) as error:
            self._check_reached(error)
            raise _TransientError("time-out", overloaded=True) from None
        except openai.APIConnectionError as error:
            self._check_reached(error)
            raise _TransientError("connection") from None
        answer = self.read(body, request) if body is not None else _too_long(request)
        self._works, self.paid = True, self.paid.plus(answer)
        return answer

    def read(self, body: bytes, request: Request) -> Completion:
        """The answer in the body of a response."""
        return read_answer(body, request)

    def _check_reached(self, error: BaseException) -> None:
        cause = error.__cause__
        if not self._reached and type(cause).__name__ in _NEVER_CONNECTED:
            reason = " ".join(str(cause).split()) or type(cause).__name__
            raise EndpointError(f"{self.endpoint.address} cannot be reached ({reason}): see to the endpoint, or --base-url")

    async def _refused(self, error: Any, request: Request) -> Completion:
        """What to make of a status that is none of success."""
        status, reason, url = error.status_code, _reason(error), self.endpoint.address
        if status == 429 and error.code == "insufficient_quota":
            raise EndpointError(f"{url} says that your credit is spent (429: {reason}): see to it and start again")
        if status in _IN_PASSING or status >= 500:
            after = seconds_after(error.response.headers.get("retry-after"), datetime.now(UTC))
            if after > LONGEST_WAIT:
                raise EndpointError(f"{url} wants to be left alone for {after:,.0f} s ({status}): start again after that")
            raise _TransientError(str(status), overloaded=status in _OVERLOADED, after=after)
        if status == 400 and "max_completion_tokens" in reason and self._bound == "max_tokens":
            self._bound = "max_completion_tokens"  # newer models know the bound by this name alone
            return await self._call(request)
        if status == 401:
            raise EndpointError(f"{url} does not accept the key (401: {reason}): put the right one in the environment")
        if status in (402, 403):
            raise EndpointError(f"{url} does not let you ask {self.endpoint.model!r} ({status}: {reason}): see to your account")
        if status == 404:
            raise EndpointError(f"{url} knows no {self.endpoint.model!r} (404: {reason}): check --model and --base-url")
        told = f"{url} refuses the request ({status}: {reason})"
        if self._works or "context length" in reason:
            raise RefusedError(told)
        raise EndpointError(f"{told}: check --model, --temperature and --seed")


async def _read(response: Any, most: int) -> bytes | None:
    """The body of a response; `None` if it is longer than this, and then nothing of it is kept."""
    body = bytearray()
    try:
        async for piece in response.iter_bytes():
            body += piece
            if len(body) > most:
                return None
    except Exception as error:  # whatever the library below raises here, the connection broke
        raise _TransientError("connection") from error
    return bytes(body)


def read_answer(body: bytes, request: Request) -> Completion:
    """The answer in the body of a response. Where the endpoint counts no tokens, they are estimated."""
    try:
        value = json.loads(body)
        choice = value["choices"][0]
        text = choice["message"].get("content")
        text = "" if text is None else text
        if not isinstance(text, str):
            raise TypeError("the content is no text")
        usage = value.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        reason = str(choice.get("finish_reason") or "stop")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _TransientError("no completion") from None
    return Completion(
        text,
        reason,
        _count(prompt, _estimated(request)),
        _count(completion, len(text) // 4 + 1),
    )


def _count(value: Any, otherwise: int) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else otherwise


def _estimated(request: Request) -> int:
    return sum(len(content) for _, content in request.messages) // 4 + 1


def _too_long(request: Request) -> Completion:
    return Completion("", "length", _estimated(request), request.max_tokens)


def _reason(error: Any) -> str:
    """What the endpoint says, on one line."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(said or error.message).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def seconds_after(header: str | None, now: datetime) -> float:
    """How long a `Retry-After` asks to wait, whether it gives seconds or a date; 0 where it gives neither."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return seconds if 0 < seconds < float("inf") else 0.0
