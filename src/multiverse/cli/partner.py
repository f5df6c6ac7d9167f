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
    from ..prompting import Instruction, Prompting

Message = dict[str, Any]


class Partner(Protocol):
    """Answers a chat.

    Attributes:
        name: of the model.
        structured: whether the model forks.
        instructed: whether questions end with the instruction of a mode.
        about: what the model says of itself.
        note: what to say of its family, and of what is ambiguous there.
        prompting: the instructions of each mode.
    """

    name: str
    structured: bool
    instructed: bool
    about: About | None
    note: str | None
    prompting: Prompting

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
        self.structured, self.instructed = llm.tokens is not None, llm.instructed
        self.about, self.note, self.prompting = llm.about, llm.recognised.line, llm.prompting
        self._reply: Message | None = None
        # Tokens of the answers so far, by their text.
        self._known: dict[str, list[int]] = {}

    def is_unlike(self, question: str) -> bool:
        """See `Partner`."""
        return self.llm.is_unlike(question)

    def ask(self, messages: list[Message], mode: Instruction) -> Iterator[WireEvent]:
        """See `Partner`."""
        from ..engine import FinishEvent

        self._reply = None
        llm = self.llm
        prompt = llm.read_chat(messages, self._known).token_ids
        params = replace(self.params, max_depth=0) if mode == "sequential" else self.params
        params = params.for_chat()  # the prompt is token ids already
        try:
            events = llm.stream(prompt, params)
        except RequestError as error:
            raise InputError(f"{error} (/new begins another conversation)") from None
        with _deferred_interrupt() as interrupted:
            for event in events:
                if isinstance(event, FinishEvent):
                    self._keep(event.generation, thinking=opens_thinking(prompt, llm.tokens))
                yield from wire_events(event)
                if interrupted():
                    raise KeyboardInterrupt

    def reply(self) -> Message | None:
        """See `Partner`."""
        return self._reply

    def _keep(self, generation: Generation, *, thinking: bool) -> None:
        # Cut short, stopped or malformed it is not valid in a prompt; one that speaks of tags is, though it has no tree.
        if generation.tree is None and (generation.finish_reason, generation.stop_reason) != ("stop", None):
            return
        ids = list(generation.token_ids)
        if ids and ids[-1] in self.llm.stop_ids:  # the template writes it
            ids.pop()
        content = generation.text
        tokens = self.llm.tokens
        if thinking and tokens is not None and tokens.dialect.think is not None:
            # The template opened the thinking at the end of the prompt; in an earlier message it does not.
            head = tokens.dialect.think.open + tokens.dialect.sep
            content = head + content.removeprefix(tokens.dialect.sep)
            if content == head + generation.text:
                ids = [*tokens.encode(head), *ids]
            else:  # the model wrote the separator itself
                ids = [*tokens.encode(tokens.dialect.think.open), *ids]
        self._known[content] = ids
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
