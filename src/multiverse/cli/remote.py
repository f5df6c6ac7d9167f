"""A server as a partner: any that speaks OpenAI's chat completions; one of ours shows its branches too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import require
from ..families import FAMILIES
from ..models.about import About
from ..prompting import DEFAULT, read_prompting
from ..streaming import WireEvent
from .errors import InputError

if TYPE_CHECKING:
    import httpx

    from ..prompting import Instruction
    from .partner import Message

_TIMEOUT = 600.0
"""Seconds without a byte after which a request fails."""
OWNER = "multiverse"
"""Owner of the models of our own server."""


class ServerError(InputError):
    """A server cannot be reached, or refuses; the message says which and why."""


class Remote:
    """A server.

    Args:
        url: its address, with or without ``/v1``.
        model: name of one of its models; `None` takes the first.
        key: API key, if it needs one.
        options: further fields of each request, by OpenAI's names.
        extension: fields of `multiverse`, for a server of ours.

    Raises:
        ServerError: it does not answer, needs another key, or has no such model.
        ExtraError: httpx or httpx-sse is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        key: str | None = None,
        options: Mapping[str, Any] | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> None:
        self.base = base_of(url)
        self.options, self.extension = dict(options or {}), dict(extension or {})
        self._httpx, self._sse = require("httpx", "chat"), require("httpx_sse", "chat")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client: httpx.Client = self._httpx.Client(headers=headers, timeout=_TIMEOUT)
        models = self._models(model)
        names = [str(entry.get("id")) for entry in models]
        if model is not None and model not in names:
            raise ServerError(f"{self.base} has no model {model!r}: it offers {', '.join(names) or 'none'}")
        if not models:
            raise ServerError(f"{self.base} offers no model: start the server with one")
        entry = models[names.index(model) if model is not None else 0]
        self.name = str(entry.get("id"))
        self.structured = entry.get("owned_by") == OWNER
        self.instructed = self.structured and bool(entry.get("instructed", True))
        self.about = _about(entry) if self.structured else None
        self.note: str | None = None
        self.family = FAMILIES.get(str(entry.get("preset"))) if self.structured else None
        self.prompting = read_prompting(entry) if self.structured else DEFAULT
        if self.extension and not self.structured:
            raise ServerError(
                f"{self.base} is no multiverse server and does not know {', '.join(self.extension)}: leave it out"
            )
        self._reply: Message | None = None

    def is_unlike(self, question: str) -> bool:
        """See `Partner`."""
        if self.about is None or self.about.least_logprob is None:
            return False
        with self._requesting():
            response = self._client.post(
                f"{self.base.removesuffix('/v1')}/familiarity", json={"model": self.name, "question": question}
            )
        # Only a warning hangs on it: a server that is too busy to say is asked the question itself.
        return bool(response.json().get("unlike")) if response.is_success else False

    def ask(self, messages: list[Message], mode: Instruction) -> Iterator[WireEvent]:
        """See `Partner`."""
        self._reply = None
        body: dict[str, Any] = {"model": self.name, "messages": messages, "stream": True, **self.options}
        body["stream_options"] = {"include_usage": True}
        if self.structured:
            # The messages hold the instruction already: it must be there in later turns too, for the prefix cache.
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

    def _models(self, named: str | None) -> list[dict[str, Any]]:
        """The server's models; of one that has no list, the model that is asked for by name."""
        with self._requesting():
            response = self._client.get(f"{self.base}/models")
            if named is not None and response.status_code in (404, 405):
                return [{"id": named}]
            self._check(response)
        try:
            return [dict(entry) for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise ServerError(f"{self.base}/models is no list of models: is this the address of an OpenAI endpoint?") from None

    def _chunks(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a stream."""
        with (
            self._requesting(),
            self._sse.connect_sse(self._client, "POST", f"{self.base}/chat/completions", json=body) as source,
        ):
            self._check(source.response)
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    return
                try:
                    chunk = json.loads(event.data)
                    if not isinstance(chunk, dict):
                        raise ValueError(f"{event.data[:60]!r} is no object")
                except ValueError as error:
                    raise ServerError(f"{self.base} sent what is no chat completion ({error})") from None
                if chunk.get("error"):
                    raise ServerError(f"the server stopped: {_message(chunk)}")
                yield chunk

    @contextmanager
    def _requesting(self) -> Iterator[None]:
        try:
            yield
        except self._httpx.ConnectError as error:
            raise ServerError(f"no server answers at {self.base} ({error}): check the address, or start one") from None
        except (self._httpx.HTTPError, self._sse.SSEError) as error:
            raise ServerError(f"the connection to {self.base} broke ({error}): ask again") from None

    def _check(self, response: httpx.Response) -> None:
        """Raise `ServerError` if the server refuses."""
        if response.is_success:
            return
        try:
            said = _message(json.loads(response.read()))
        except ValueError:
            said = response.reason_phrase
        if response.status_code in (401, 403):
            raise ServerError(f"{self.base} wants another API key ({said}): set OPENAI_API_KEY, or give --api-key")
        if response.status_code == 404:
            raise ServerError(f"there is no chat at {self.base} ({said}): check the address")
        raise ServerError(f"{self.base} refused: {said}")


class _Answer:
    """One answer, assembled from its chunks."""

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured
        self.reasoning = self.content = ""
        self.answer_text: str | None = None  # an answer that forks, with its tags
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.finish: WireEvent | None = None
        self._begun = time.monotonic()

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[WireEvent]:
        """Take the next chunk."""
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            content = delta.get("content") or ""
            self.reasoning += reasoning
            self.content += content
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.answer_text = (choice.get("multiverse") or {}).get("answer_text") or self.answer_text
            if not self.structured:
                if reasoning:
                    yield WireEvent("token", text=reasoning, role="text")
                if content:
                    yield WireEvent("token", text=content, role="answer" if self.reasoning else "text")
        if self.structured and isinstance(chunk.get("multiverse"), dict):
            try:
                event = WireEvent.from_json(chunk["multiverse"])
            except ValueError as error:
                raise ServerError(f"the server's stream cannot be read: {error}") from None
            if event.event == "finish":
                self.finish = event
            yield event

    def end(self) -> Iterator[WireEvent]:
        """The finish event of a server that is not ours, which sends none.

        Raises:
            ServerError: the stream ended before the answer did.
        """
        if self.finish is not None:
            return
        if self.structured or self.finish_reason is None:
            raise ServerError("the server ended the stream before the answer's end: ask again")
        cached = (self.usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        usage = {
            "prompt_tokens": self.usage.get("prompt_tokens"),
            "total_tokens": self.usage.get("completion_tokens"),
            "cached_tokens": cached,
            "seconds": time.monotonic() - self._begun,
        }
        self.finish = WireEvent("finish", finish_reason=self.finish_reason, usage=usage, answer=self.content.strip())
        yield self.finish

    def message(self) -> Message | None:
        """The answer as a message for the next request."""
        assert self.finish is not None
        if not self.structured:
            return {"role": "assistant", "content": self.content} if self.content else None
        if self.finish.structure_error is not None:
            return None
        content = self.answer_text if self.answer_text is not None else self.content
        message: Message = {"role": "assistant", "content": content}
        return {**message, "reasoning_content": self.reasoning} if self.reasoning else message


def _about(entry: Mapping[str, Any]) -> About | None:
    """What a server's model says of itself; `None` if it says nothing that can be read."""
    found = entry.get("about")
    if not isinstance(found, Mapping) or not isinstance(found.get("text"), str):
        return None
    return About(found["text"], found.get("example"), found.get("otherwise"), found.get("least_logprob"))


def base_of(url: str) -> str:
    """An address up to ``/v1``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"--url {url!r} is not valid: write it as http://127.0.0.1:8000")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"


def _message(body: Any) -> str:
    """The message of an error in OpenAI's shape."""
    error = body.get("error") if isinstance(body, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return str(said or body)[:500]
