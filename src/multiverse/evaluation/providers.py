"""The engine of this process as a model provider for inspect, and the base class that it shares with `server.py`.

    inspect eval multiverse/countdown --model multiverse/mini

Sampling settings of inspect are passed on, or refused by name. Those that inspect has no name for come through ``extra_body``,
in the field ``multiverse`` as in requests to the server: ``{"multiverse": {"max_critical_path_tokens": 4096}}``. The
measurements are in the output's metadata, as the fields of a `Response`.

Needs inspect, so it is imported by inspect, or where it has been required.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ContentImage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from ..engine.params import SamplingParams
from ..errors import EngineError, RequestError
from ..prompting import DEFAULT, Prompting, without_instruction
from .config import MAX_TOKENS
from .response import Response

if TYPE_CHECKING:
    from ..engine.generating import Generating
    from ..llm import LLM

_FEW = 8
"""Questions that are always answered at once."""
_WEEK = 7 * 86_400.0
"""Seconds that a request may take, including the wait for others of its evaluation."""

# Settings that have the same name here. inspect's other settings are about connections, or refused.
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "max_tokens")
_CONNECTION = (
    *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections"),
    *("system_message", "cache", "extra_headers", "reasoning_history", "fail_on_refusal"),
)
_STOP_REASONS = {"stop": "stop", "length": "max_tokens", "budget": "max_tokens", "deadline": "max_tokens"}


class ChatAPI(ModelAPI):
    """Base of both providers: settings of inspect to ours, and a `Response` to inspect's output."""

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 (inspect's signature)
        tools: list[ToolInfo],
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a chat.

        Raises:
            RequestError: a setting is not supported, or the request is refused.
            EngineError: the generation failed.
        """
        given, extension = sampling_settings(tools, config)
        chat = [{"role": message.role, "content": _content(message)} for message in input]
        response, prompt_tokens = await self.respond(chat, given, extension, config)
        message = ChatMessageAssistant(content=response.text, model=self.model_name, source="generate")
        reason: Any = _STOP_REASONS.get(response.finish_reason, "unknown")
        total = prompt_tokens + response.total_tokens
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
            usage=ModelUsage(input_tokens=prompt_tokens, output_tokens=response.total_tokens, total_tokens=total),
            time=response.seconds,
            metadata={"answer": asdict(response), "said": self.said(response)},
        )

    def said(self, response: Response) -> str:
        """A response as later turns of its dialogue hold it: all of its text, which is read as the structure that it is."""
        return response.text

    @abstractmethod
    async def respond(
        self, chat: list[dict[str, Any]], given: dict[str, Any], extension: dict[str, Any], config: GenerateConfig
    ) -> tuple[Response, int]:
        """The response to a chat, and the number of tokens of its prompt.

        Args:
            chat: the content of a message is a text, or a list of OpenAI's parts where it holds an image.
            given, extension: see `sampling_settings`.
            config: all of inspect's settings.
        """


class EngineAPI(ChatAPI):
    """The engine of this process. Concurrent questions are batched.

    Args:
        model_name: a folder or hub id; ``mini`` is multiverse-mini.
        llm: a model that is loaded already.
        model_args: otherwise, options of `LLM`, such as ``device`` or ``kv_memory``.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect's signature)
        *,
        llm: LLM | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if base_url is not None:
            raise RequestError(f"base_url={base_url!r} is for a server: use the provider multiverse-server")
        if llm is None:
            from ..llm import LLM

            llm = LLM(None if model_name == "mini" else model_name, **model_args)
        self.llm = llm
        self._lock = threading.Lock()
        self._engine: Generating | None = None
        self._places: asyncio.Semaphore | None = None
        self._room = 0  # by which the number of places may still grow

    async def respond(
        self,
        chat: list[dict[str, Any]],
        given: dict[str, Any],
        extension: dict[str, Any],
        config: GenerateConfig,
    ) -> tuple[Response, int]:
        """As `ChatAPI.respond`."""
        if has_images(chat):
            raise RequestError("models in this process read no images: ask a server that does")
        if self.llm.tokens is not None:
            chat, extension = as_asked(chat, extension, self.llm.prompting if self.llm.instructed else None)
        given.setdefault("max_tokens", MAX_TOKENS)
        # Only requested limits end a generation: a path may be as long as the whole.
        extension = {"max_branch_tokens": given["max_tokens"], "max_seconds": _WEEK, **extension}
        if "tail_tokens" in extension:  # its name in requests to the server
            extension["reserved_tokens"] = extension.pop("tail_tokens")
        try:
            params = SamplingParams(**given, **extension).for_chat()
        except TypeError as error:
            raise RequestError(f"the field multiverse of extra_body is not valid: {error}") from None
        prompt = await asyncio.to_thread(self.llm.encode_chat, chat)
        async with self._admitted(config.max_connections or self.max_connections()):
            generation = await self._running().generate(prompt, params)
        if generation.finish_reason in ("abort", "error"):
            raise EngineError(f"the generation failed ({generation.structure_error or generation.finish_reason})")
        return Response.from_generation(generation), generation.usage.prompt_tokens

    def max_connections(self) -> int:
        """Concurrent questions by default; the engine queues what does not fit into a batch."""
        return 64

    async def aclose(self) -> None:
        """Stop the engine's thread; running requests are aborted."""
        with self._lock:
            engine, self._engine, self._places = self._engine, None, None
        if engine is not None:
            await engine.aclose()

    @asynccontextmanager
    async def _admitted(self, most: int) -> AsyncIterator[None]:
        """Wait for a place in the batch.

        Answers that begin together end together, late. So an evaluation begins with a quarter of the questions that may be in
        flight, and each answer that ends makes room for two: the first answers are kept early.
        """
        if self._places is None:
            self._places = asyncio.Semaphore(max(_FEW, most // 4))
            self._room = most - max(_FEW, most // 4)
        places = self._places  # closing forgets them
        async with places:
            yield
        if self._room > 0:
            self._room -= 1
            places.release()

    def _running(self) -> Generating:
        with self._lock:
            if self._engine is None:
                self._engine = self.llm.async_engine()
            return self._engine


def sampling_settings(tools: list[ToolInfo], config: GenerateConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sampling parameters by the names that the engine and OpenAI share, and those of the field ``multiverse``.

    Raises:
        RequestError: a setting is not supported.
    """
    if tools:
        raise RequestError("these models use no tools: leave them out")
    asked = config.model_dump(exclude_none=True)
    given = {name: asked.pop(name) for name in _SAMPLING if name in asked}
    if stop := asked.pop("stop_seqs", None):
        given["stop"] = list(stop)
    if bias := asked.pop("logit_bias", None):
        given["logit_bias"] = dict(bias)
    body = asked.pop("extra_body", {})
    extension = dict(body.get("multiverse", {}))
    if schema := asked.pop("response_schema", None):
        form = {"name": schema["name"], "schema": schema["json_schema"], "strict": bool(schema.get("strict"))}
        given["response_format"] = {"type": "json_schema", "json_schema": form}
    if "reasoning_tokens" in asked:
        extension["thinking_budget"] = asked.pop("reasoning_tokens")
    unknown = [
        *(name for name in asked if name not in _CONNECTION),
        *(f"extra_body.{name}" for name in body if name != "multiverse"),
    ]
    if unknown:
        raise RequestError(f"{unknown[0]} is not supported: leave it out")
    return given, extension


def has_images(chat: list[dict[str, Any]]) -> bool:
    """Whether a message of a chat holds an image."""
    return any(not isinstance(message["content"], str) for message in chat)


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    """The content of a message as OpenAI has it: a text, or parts if it holds an image."""
    if isinstance(message.content, str) or not any(isinstance(part, ContentImage) for part in message.content):
        return message.text
    return [
        {"type": "image_url", "image_url": {"url": part.image}}
        if isinstance(part, ContentImage)
        else {"type": "text", "text": getattr(part, "text", "")}
        for part in message.content
    ]


def as_asked(
    chat: list[dict[str, Any]], extension: dict[str, Any], prompting: Prompting | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Questions that end with the paper's instruction, as a model is asked that has others, or none.

    ``sequential`` becomes a limit on the depth there: other models were not trained to tell the two apart.

    Args:
        prompting: its instructions; `None` if it was trained without.
    """
    _, mode = without_instruction(chat)
    if prompting == DEFAULT or mode is None:
        return chat, extension
    # Of a dialogue, each question ends with it.
    plain = [without_instruction([message])[0][0] if message["role"] == "user" else message for message in chat]
    return (
        prompting.instruct_chat(plain, mode) if prompting is not None else plain,
        {"max_depth": 0, **extension} if mode == "sequential" else extension,
    )


@modelapi(name="multiverse")
def multiverse() -> type[ModelAPI]:
    """The provider ``multiverse/FOLDER``."""
    return EngineAPI


def in_process(name: str, llm: LLM) -> ModelAPI:
    """The provider of a model that is loaded already.

    Args:
        name: in inspect's logs.
    """
    make: Any = multiverse  # inspect requires providers to be made by their registered name
    api: ModelAPI = make(name, llm=llm)
    return api
