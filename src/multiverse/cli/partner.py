"""What answers a chat: the engine of this process, or (see `remote.py`) a server.

A partner gets the whole conversation and returns the events of its answer in the wire form. It also gives the message that
stands for that answer in the next request: reasoning goes back with its structure, so that the prefix cache has it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import RequestError
from ..streaming import WireEvent, opens_thinking, wire_events
from .errors import InputError

if TYPE_CHECKING:
    from ..engine import Generation, SamplingParams
    from ..llm import LLM
    from ..models.about import About
    from ..prompting import Instruction

Message = dict[str, Any]


class Partner(Protocol):
    """Answers a chat.

    Attributes:
        name: of the model.
        structured: whether the model forks.
        instructed: whether questions end with the instruction of a mode.
        about: what the model says of itself.
    """

    name: str
    structured: bool
    instructed: bool
    about: About | None

    def is_unlike(self, question: str) -> bool:
        """Whether a question is unlike those that the model was trained on, as far as that is known."""
        ...

    def ask(self, messages: list[Message], mode: Instruction) -> Iterator[WireEvent]:
        """Answer the last message. Closing the iterator early stops the answer.

        Raises:
            MultiverseError: it cannot; raised before the first event or between two.
        """
        ...

    def reply(self) -> Message | None:
        """The last answer as a message for the next request; `None` if it was not complete."""
        ...


class Local:
    """The engine of this process.

    Args:
        llm: the model.
        params: how to sample.
    """

    def __init__(self, llm: LLM, params: SamplingParams, name: str) -> None:
        self.llm, self.params, self.name = llm, params, name
        self.structured, self.instructed = llm.engine.tokens is not None, llm.instructed
        self.about = llm.about
        self._reply: Message | None = None
        # The conversation so far, as text and as the tokens of prompt and answers.
        self._text = ""
        self._token_ids: list[int] = []

    def is_unlike(self, question: str) -> bool:
        """See `Partner`."""
        return self.llm.is_unlike(question)

    def ask(self, messages: list[Message], mode: Instruction) -> Iterator[WireEvent]:
        """See `Partner`."""
        from ..engine import FinishEvent

        self._reply = None
        llm = self.llm
        text = self._render(messages)
        prompt = self._encode(text)
        params = replace(self.params, max_depth=0) if mode == "sequential" else self.params
        try:
            events = llm.stream(prompt, params)
        except RequestError as error:
            raise InputError(f"{error} (/new begins another conversation)") from None
        with _deferred_interrupt() as interrupted:
            for event in events:
                if isinstance(event, FinishEvent):
                    self._keep(text, event.generation, thinking=opens_thinking(prompt, llm.engine.tokens))
                yield from wire_events(event)
                if interrupted():
                    raise KeyboardInterrupt

    def reply(self) -> Message | None:
        """See `Partner`."""
        return self._reply

    def _render(self, messages: list[Message]) -> str:
        text: str = self.llm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def _encode(self, text: str) -> list[int]:
        """The conversation as tokens; those of earlier turns are kept as they were."""
        known = len(self._text) if self._text and text.startswith(self._text) else 0
        rest = list(self.llm.tokenizer.encode(text[known:], add_special_tokens=False))
        return [*self._token_ids, *rest] if known else rest

    def _keep(self, prompt: str, generation: Generation, *, thinking: bool) -> None:
        if generation.tree is None:  # cut short or malformed: not valid as part of a prompt
            return
        ids = [*generation.prompt_token_ids, *generation.token_ids]
        if ids[-1] in self.llm.engine.loaded.stop_ids:  # the template writes it
            ids.pop()
        self._text, self._token_ids = prompt + generation.text, ids
        content = generation.text
        tokens = self.llm.engine.tokens
        if thinking and tokens is not None and tokens.dialect.think is not None:
            # The template opened the thinking at the end of the prompt; in an earlier message it does not.
            content = tokens.dialect.think.open + tokens.dialect.sep + content.removeprefix(tokens.dialect.sep)
        self._reply = {"role": "assistant", "content": content}


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Keep Ctrl-C from interrupting a step of the engine: it is checked between two. A second one interrupts at once."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread only
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
