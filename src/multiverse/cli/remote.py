"""A server as a partner: any that speaks OpenAI's chat completions; one of ours shows its branches too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ..live import Moment
from .errors import InputError

if TYPE_CHECKING:
    from .chat import Mode
    from .partner import Message

_PATIENCE = 600.0
"""Seconds without a byte after which a server is given up."""
OWNER = "multiverse"
"""By this owner of its models our own server is known."""


class ServerError(InputError):
    """A server cannot be reached, or refuses; the message says which and why."""


class Remote:
    """A server.

    Args:
        url: its address, with or without ``/v1``.
        model: name of one of its models; `None` takes the first.
        key: API key, if it wants one.
        options: further fields of each request, by OpenAI's names.
        extension: fields of ours, for a server of ours.

    Raises:
        ServerError: it does not answer, wants another key, or has no such model.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        key: str | None = None,
        options: Mapping[str, Any] | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> None:
        self.base = _base(url)
        self.key, self.options, self.extension = key, dict(options or {}), dict(extension or {})
        models = self._models()
        names = [str(entry.get("id")) for entry in models]
        if model is not None and model not in names:
            raise ServerError(f"{self.base} has no model {model!r}: it offers {', '.join(names) or 'none'}")
        if not models:
            raise ServerError(f"{self.base} offers no model: start the server with one")
        entry = models[names.index(model) if model is not None else 0]
        self.name = str(entry.get("id"))
        self.structured = entry.get("owned_by") == OWNER
        if self.extension and not self.structured:
            raise ServerError(
                f"{self.base} is no multiverse server and does not know {', '.join(self.extension)}: leave it out"
            )
        self._reply: Message | None = None

    def ask(self, messages: list[Message], mode: Mode) -> Iterator[Moment]:
        """See `Partner`."""
        self._reply = None
        body: dict[str, Any] = {"model": self.name, "messages": messages, "stream": True, **self.options}
        body["stream_options"] = {"include_usage": True}
        if self.structured:
            # The instruction stands in the messages already: so it is there in later turns too, and the cache finds them.
            body["multiverse"] = {"branches": True, "mode": "as-is", **self.extension}
            if mode == "sequential":
                body["multiverse"]["max_depth"] = 0
        answer = _Answer(structured=self.structured)
        for chunk in self._chunks(body):
            yield from answer.feed(chunk)
        yield from answer.end()
        self._reply = answer.message()

    def reply(self) -> Message | None:
        """See `Partner`."""
        return self._reply

    def _models(self) -> list[dict[str, Any]]:
        with self._open("models", None) as response:
            try:
                entries = json.loads(response.read())["data"]
                return [dict(entry) for entry in entries]
            except (ValueError, KeyError, TypeError):
                raise ServerError(
                    f"{self.base}/models is no list of models: is this the address of an OpenAI endpoint?"
                ) from None

    def _chunks(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON objects of a stream, up to its end."""
        with self._open("chat/completions", body) as response:
            try:
                for line in response:
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    chunk = json.loads(data)
                    if not isinstance(chunk, dict):
                        raise ValueError(f"{data[:60]!r} is no object")
                    if chunk.get("error"):
                        raise ServerError(f"the server stopped: {_message(chunk)}")
                    yield chunk
            except (OSError, HTTPException) as error:
                raise ServerError(f"the connection to {self.base} broke ({error}): ask again") from None
            except ValueError as error:
                raise ServerError(f"{self.base} sent what is no chat completion ({error})") from None

    def _open(self, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            return urlopen(Request(f"{self.base}/{path}", data, headers), timeout=_PATIENCE)
        except HTTPError as error:
            with error:
                raise ServerError(self._refusal(error)) from None
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"no server answers at {self.base} ({reason}): check the address, or start one") from None

    def _refusal(self, error: HTTPError) -> str:
        try:
            told = _message(json.loads(error.read()))
        except (ValueError, OSError, HTTPException):
            told = str(error.reason)
        if error.code in (401, 403):
            return f"{self.base} wants another API key ({told}): set OPENAI_API_KEY, or give --api-key"
        if error.code == 404:
            return f"there is no chat at {self.base} ({told}): check the address"
        return f"{self.base} refused: {told}"


class _Answer:
    """One answer, put together from its chunks."""

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured
        self.reasoning = self.content = ""
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.finish: Moment | None = None
        self._begun = time.monotonic()

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Moment]:
        """Take in a chunk."""
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            content = delta.get("content") or ""
            self.reasoning += reasoning
            self.content += content
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if not self.structured:
                if reasoning:
                    yield Moment("token", text=reasoning, role="text")
                if content:
                    yield Moment("token", text=content, role="answer" if self.reasoning else "text")
        if self.structured and isinstance(chunk.get("multiverse"), dict):
            try:
                moment = Moment.from_json(chunk["multiverse"])
            except ValueError as error:
                raise ServerError(f"the server's stream cannot be read: {error}") from None
            if moment.event == "finish":
                self.finish = moment
            yield moment

    def end(self) -> Iterator[Moment]:
        """What a server that is not ours leaves unsaid.

        Raises:
            ServerError: the stream ended before the answer did.
        """
        if self.finish is not None:
            return
        if self.structured or self.finish_reason is None:
            raise ServerError("the server ended the stream before the answer's end: ask again")
        cached = (self.usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        told = {
            "prompt_tokens": self.usage.get("prompt_tokens"),
            "total_tokens": self.usage.get("completion_tokens"),
            "cached_tokens": cached,
            "seconds": time.monotonic() - self._begun,
        }
        self.finish = Moment("finish", finish_reason=self.finish_reason, usage=told, answer=self.content.strip())
        yield self.finish

    def message(self) -> Message | None:
        """What goes back with the next question."""
        assert self.finish is not None
        if not self.structured:
            return {"role": "assistant", "content": self.content} if self.content else None
        if self.finish.structure_error is not None:
            return None
        message: Message = {"role": "assistant", "content": self.content}
        return {**message, "reasoning_content": self.reasoning} if self.reasoning else message


def _base(url: str) -> str:
    """An address up to ``/v1``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"--url {url!r} is not valid: write it as http://127.0.0.1:8000")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"


def _message(body: Any) -> str:
    """What an error in OpenAI's shape says."""
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else error
    return str(told or body)[:500]
