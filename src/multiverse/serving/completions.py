"""`POST /v1/completions`: raw text is continued, and told as it is, tags and all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..live import Reader, opens_thinking
from .answer import Answer, Names, text_logprobs
from .errors import invalid
from .job import Job
from .parts import Parts, Piece, text_of
from .prepare import asks, check_stream, note
from .translate import check_model
from .wire import CompletionRequest

if TYPE_CHECKING:
    from starlette.responses import Response

    from ..llm import LLM
    from .runner import Runner


class TextForm:
    """How text completions are told.

    Args:
        name: text of a token, to tell log-probabilities; `None` if they were not asked for.
        echo: the prompt of each choice, to begin its text with; empty if not asked for.
    """

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def __init__(self, name: Names | None = None, echo: Sequence[str] = ()) -> None:
        self._name = name
        self._echo = echo

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The text."""
        text = text_of(answer.pieces, "content")
        return {"text": self._prompt(answer) + text, "logprobs": self._logprobs(answer.pieces, 0)}

    def opening(self, answer: Answer) -> dict[str, Any] | None:
        """The prompt, if it is to be echoed."""
        return {"text": self._prompt(answer), "logprobs": None} if self._echo else None

    def piece(self, answer: Answer, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        """More of the text."""
        text = text_of(pieces, "content")
        if not text and not (pieces and self._name is not None):
            return None
        return {"text": text, "logprobs": self._logprobs(pieces, answer.length - len(text))}

    def nothing(self) -> dict[str, Any]:
        """A chunk without text."""
        return {"text": "", "logprobs": None}

    def _prompt(self, answer: Answer) -> str:
        return self._echo[answer.index] if self._echo else ""

    def _logprobs(self, pieces: Sequence[Piece], offset: int) -> dict[str, Any] | None:
        return text_logprobs(pieces, offset, self._name) if self._name is not None else None


async def complete(request: CompletionRequest, runner: Runner) -> Response:
    """Continue one prompt or several.

    Raises:
        ApiError: the request cannot be honoured, or did not come to an answer.
    """
    check_model(request.model, runner.model_name)
    check_stream(request)
    note(request)
    if request.echo and request.logprobs is not None:
        raise invalid("logprobs cannot be given for an echoed prompt: leave one of the two out", "logprobs")
    if request.multiverse is not None and request.multiverse.mode is not None:
        raise invalid("multiverse.mode is for chats: write the instruction into the prompt", "multiverse.mode")
    engine = runner.llm.engine
    given = _several(request.prompt)
    prompts = await asyncio.to_thread(_encode, runner.llm, given)
    wanted = asks(request, runner, prompts, "prompt")
    stops = wanted[0].params.stop_strings
    echo = []
    if request.echo:
        texts = [prompt if isinstance(prompt, str) else engine.decode(prompt) for prompt in given]
        echo = [text for text in texts for _ in range(request.n or 1)]
    job = Job(
        runner,
        wanted,
        [Answer(index, Parts(engine.tokens, stops, whole=True)) for index in range(len(wanted))],
        TextForm((lambda token: engine.decode([token])) if request.logprobs is not None else None, echo),
        "prompt",
        include_usage=request.stream_options is not None and bool(request.stream_options.include_usage),
    )
    if request.multiverse is not None and request.multiverse.branches:
        thinking = opens_thinking(prompts[0], engine.tokens)
        job.reader = Reader(engine.tokens, engine.loaded.stop_ids, prompt_thinking=thinking)
    return await job.run(stream=bool(request.stream))


def _several(prompt: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    several: Any = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return list(several)


def _encode(llm: LLM, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    return [list(llm.tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt for prompt in prompts]
