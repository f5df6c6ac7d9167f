"""Client of the annotating model: any endpoint with OpenAI's chat completions API.

Transient failures (429, 5xx, time-outs, broken connections, bodies without a completion) are retried with exponential backoff.
Permanent ones end the run, or the row if only one request is refused. The retries of the `openai` library are not used: they
know no limiter, budget or long `Retry-After`, and cannot be stopped.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from ..errors import require
from ..transport.limiter import ConcurrencyLimiter
from ..transport.retry import LONGEST_WAIT, OVERLOADED, backoff, is_transient, seconds_after
from .budget import Budget
from .config import EndpointConfig
from .errors import CurationError, EndpointError, RefusedError
from .store import Store
from .types import Completion, Request, Usage

Generate = Callable[[Request], Awaitable[Completion]]
"""A model of this process."""

# Largest body that is read: this many bytes, and so many a token. A token has about four characters, and a character up to
# twelve bytes as JSON. A longer body does not respect `max_tokens`.
_BODY_BYTES, _TOKEN_BYTES = 65_536, 32
_NEVER_CONNECTED = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}


class _TransientError(Exception):
    """A call failed, and may succeed when it is repeated.

    Attributes:
        kind: what happened, as a word or a status.
        overloaded: whether the endpoint is overloaded.
        retry_after: seconds that the endpoint asks to wait.
    """

    def __init__(self, kind: str, *, overloaded: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(kind)
        self.kind, self.overloaded, self.retry_after = kind, overloaded, retry_after


class Client:
    """Sends requests, each once: `ask` is an `Ask`. Used inside ``async with``.

    Args:
        generate: a model of this process that is asked instead of the endpoint.
        read: parses the body of a response; `read_completion` unless given.

    Attributes:
        paid: completed calls since the start, and their tokens; completions from the store are not counted.
        failures: transient failures, by kind.
        stages: requests that wait for their completion, by stage.
        limiter: limits the calls in flight.

    Raises:
        ExtraError: openai is not installed.
    """

    def __init__(
        self,
        config: EndpointConfig,
        store: Store,
        budget: Budget,
        *,
        generate: Generate | None = None,
        read: Callable[[bytes, Request], Completion] | None = None,
    ) -> None:
        self._openai = require("openai", "curate")
        self.config, self.store, self.budget = config, store, budget
        self._generate, self._read = generate or self._post, read or read_completion
        self.limiter: ConcurrencyLimiter[CurationError] = ConcurrencyLimiter(config.concurrency)
        self.paid = Usage()
        self.failures: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()
        self._http = self._openai.AsyncOpenAI(
            api_key=config.api_key or "EMPTY", base_url=config.base_url, timeout=config.timeout, max_retries=0
        )
        # Whether a request ever succeeded: then key, URL and model are right, and a refusal concerns only its request.
        self._works = budget.spent.calls > 0
        self._reached = False
        self._limit_name = "max_tokens"

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.close()

    async def ask(self, request: Request) -> Completion:
        """The completion of a request, from the store or from the endpoint.

        Raises:
            RefusedError: this one request cannot be completed.
            CurationError: no request can; or the client was stopped.
        """
        key = request.key(**self.config.sampling)
        self.stages[request.stage] += 1
        try:
            return await self.store.get_or_create(key, request, lambda: self._retried(request, key))
        finally:
            self.stages[request.stage] -= 1

    def stop(self, reason: CurationError) -> None:
        """Start no more calls: `ask` raises this error. Calls in flight are completed and stored."""
        self.limiter.stop(reason)
        self.budget.close(reason)

    async def _retried(self, request: Request, key: str) -> Completion:
        config = self.config
        draw, before = random.Random(f"{config.seed}/{key}"), self.paid.calls
        lately = before
        for number in range(1, config.tries + 1):
            if number == config.tries // 2:
                lately = self.paid.calls
            try:
                return await self._limited(request)
            except _TransientError as error:
                self.failures[error.kind] += 1
                kind, wait = error.kind, error.retry_after
            if number < config.tries:
                await self.limiter.sleep(max(wait, backoff(config.backoff, number, draw)))
        message = f"{config.address} failed {config.tries} times on the same request, last with: {kind}"
        # An endpoint that broke off answered others just before: only who was answered since then counts.
        if self.paid.calls > (lately if kind == "connection" else before):
            raise RefusedError(f"{message}; other requests succeeded meanwhile")
        raise EndpointError(f"{message}: check the endpoint and start again; completions are stored")

    async def _limited(self, request: Request) -> Completion:
        """One call, within the limits of concurrency and budget."""
        acquired = await self.limiter.acquire()
        completion, overloaded = None, False
        try:
            reserved = await self.budget.reserve(request)
            try:
                completion = await self._generate(request)
                self.paid = self.paid.plus(completion)
                return completion
            except _TransientError as error:
                overloaded = error.overloaded
                if error.retry_after > 0:
                    self.limiter.pause(error.retry_after)
                raise
            finally:
                self.budget.settle(reserved, completion)
        finally:
            self.limiter.release(acquired, overloaded=overloaded, success=completion is not None)

    async def _post(self, request: Request) -> Completion:
        # Lone surrogates, quoted from a completion, cannot be sent.
        messages = [{"role": role, "content": text.encode(errors="replace").decode()} for role, text in request.messages]
        options = {name: value for name, value in self.config.sampling.items() if value is not None}
        options[self._limit_name] = request.max_tokens
        openai = self._openai
        try:
            # The time-out of the library is for each chunk that is read, this one for the whole call.
            async with asyncio.timeout(self.config.timeout):
                create = self._http.chat.completions.with_streaming_response.create
                async with create(messages=messages, **options) as response:
                    self._reached = True
                    body = await _body(response, _BODY_BYTES + _TOKEN_BYTES * request.max_tokens)
        except openai.APIStatusError as error:
            self._reached = True
            return await self._refused(error, request)
        except (TimeoutError, openai.APITimeoutError) as error:
            self._check_reached(error)
            raise _TransientError("time-out", overloaded=True) from None
        except openai.APIConnectionError as error:
            self._check_reached(error)
            raise _TransientError("connection") from None
        if body is None:  # too long: nothing of it is kept
            completion = Completion("", "length", _estimated(request), request.max_tokens)
        else:
            completion = self._read(body, request)
        self._works = True
        return completion

    def _check_reached(self, error: BaseException) -> None:
        cause = error.__cause__
        if not self._reached and type(cause).__name__ in _NEVER_CONNECTED:
            reason = " ".join(str(cause).split()) or type(cause).__name__
            raise EndpointError(f"{self.config.address} cannot be reached ({reason}): check the endpoint and --base-url")

    async def _refused(self, error: Any, request: Request) -> Completion:
        """Raise what an HTTP error means, or repeat the call with `max_completion_tokens`."""
        status, reason, url = error.status_code, _reason(error), self.config.address
        if status == 429 and error.code == "insufficient_quota":
            raise EndpointError(f"{url} reports that the credit is spent (429: {reason}): top it up and start again")
        if is_transient(status):
            wait = seconds_after(error.response.headers.get("retry-after"), datetime.now(UTC))
            if wait > LONGEST_WAIT:
                raise EndpointError(f"{url} asks to wait {wait:,.0f} s ({status}): start again after that")
            raise _TransientError(str(status), overloaded=status in OVERLOADED, retry_after=wait)
        if status == 400 and "max_completion_tokens" in reason and self._limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"  # newer models accept only this name
            return await self._post(request)
        if status == 401:
            raise EndpointError(f"{url} does not accept the key (401: {reason}): set the right one in the environment")
        if status in (402, 403):
            raise EndpointError(f"{url} does not allow access to {self.config.model!r} ({status}: {reason}): check the account")
        if status == 404:
            raise EndpointError(f"{url} has no model {self.config.model!r} (404: {reason}): check --model and --base-url")
        message = f"{url} refuses the request ({status}: {reason})"
        if self._works or "context length" in reason:
            raise RefusedError(message)
        raise EndpointError(f"{message}: check --model, --temperature and --seed")


async def _body(response: Any, most: int) -> bytes | None:
    """The body of a response; `None` if it has more than `most` bytes."""
    body = bytearray()
    try:
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > most:
                return None
    except Exception as error:  # whatever the HTTP library raises here, the connection is broken
        raise _TransientError("connection") from error
    return bytes(body)


def read_completion(body: bytes, request: Request) -> Completion:
    """The completion in the body of a response. Token counts that the endpoint does not send are estimated."""
    try:
        value = json.loads(body)
        choice = value["choices"][0]
        text = choice["message"].get("content")
        text = "" if text is None else text
        if not isinstance(text, str):
            raise TypeError("the content is not a string")
        usage = value.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        reason = str(choice.get("finish_reason") or "stop")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _TransientError("no completion") from None
    return Completion(text, reason, _count(prompt, _estimated(request)), _count(completion, len(text) // 4 + 1))


def _count(value: Any, otherwise: int) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else otherwise


def _estimated(request: Request) -> int:
    """Tokens of a prompt, at four characters each."""
    return sum(len(content) for _, content in request.messages) // 4 + 1


def _reason(error: Any) -> str:
    """The endpoint's error message on one line."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(message or error.message).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
