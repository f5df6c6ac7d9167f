"""`multiverse chat`: a conversation on the terminal; each answer is drawn while it forks and joins."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ..common import CommonOptions
from ..engine.params import SamplingParams
from ..errors import MultiverseError
from ..options import Options, like, option
from ..prompting import Instruction
from ..serving.config import ServerConfig
from .declared import Fields, expand_options
from .errors import InputError, known
from .introduce import introduce, warn_tagless, warn_unlike
from .loading import BY_PRESET, NOT_OFFERED, ONE_PROCESS, ModelOptions
from .watch import watch

if TYPE_CHECKING:
    from ..streaming import WireEvent
    from .partner import Message, Partner

MODES: tuple[Instruction, ...] = get_args(Instruction)
FIELDS = {
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "stop", "max_tokens", "min_tokens", "ignore_eos"),
}
"""Sampling parameters that are fields of a request; the others are fields of `multiverse`, which only our server knows."""
WIRE_NAMES = {"max_tokens": "max_completion_tokens", "reserved_tokens": "tail_tokens"}
HELP = """\
  /new              begin another conversation
  /mode [NAME]      instruction that ends questions: parallel, sequential, or as-is
  /save FILE        write the conversation as JSON; the server's page replays it
  /help             this
  /quit             leave (so does Ctrl-D)
  //...             a question that begins with a slash
Ctrl-C stops an answer, and keeps the chat."""


@dataclass(frozen=True)
class ChatOptions(Options):
    """Who answers, and how questions are put."""

    url: str | None = option(
        None,
        "Talk to this server, any with OpenAI's chat completions, instead of loading a model; needs the extra chat.",
        metavar="URL",
        group="Model",
    )
    api_key: str | None = like(CommonOptions, "api_key")
    mode: Instruction | None = like(ServerConfig, "mode", None, group="Chat", show_default="parallel, if the model forks")
    system: str | None = option(None, "System message that begins the conversation.", metavar="TEXT", group="Chat")


@expand_options
def chat(
    options: ChatOptions,
    model: Annotated[
        ModelOptions,
        Fields(
            only=ONE_PROCESS,
            aliases={"upstream": "--base-url"},
            show_default={"model": "multiverse-mini, or the server's first"},
        ),
    ],
    sampling: Annotated[
        dict[str, Any],
        Fields(
            of=SamplingParams,
            leave_out=NOT_OFFERED,
            show_default={name: f"{shown}, or the server's" for name, shown in BY_PRESET.items()},
        ),
    ],
) -> None:
    """Talk with a model, and watch its answers fork and join.

    Earlier turns go back with their reasoning, structure included, so that the
    prefix cache has them. /help lists the commands of the chat.

    [bold]Examples[/bold]
    multiverse chat
    multiverse chat --url http://127.0.0.1:8000
    echo "Start with 7. Add 5, then double it. What do you get?" | multiverse chat
    """
    partner: Partner
    if options.url is not None:
        from .remote import Remote

        model.check_remote()
        if model.upstream is not None or model.tokenizer is not None:
            raise InputError("--url has a server answer chats, --upstream one that runs the model for us: give one of them")
        fields, extension = _wire(sampling)
        partner = Remote(options.url, model.model, options.api_key, fields, extension)
    else:
        from .partner import Local

        llm = model.connect(options.api_key) if model.upstream is not None else model.load()
        if getattr(llm.tokenizer, "chat_template", None) is None:
            raise InputError(f"the model {llm.model_path!r} has no chat template: use multiverse generate --raw")
        if options.mode == "parallel":
            warn_tagless(llm, model.name)
        partner = Local(llm, llm.sampling(**sampling), model.name)
    mode = options.mode if options.mode is not None else "parallel" if partner.structured else "as-is"
    Chat(Conversation(partner, mode, options.system)).run()


def _wire(sampling: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sampling parameters as a request's own fields, by the names of OpenAI and vLLM, and as those of `multiverse`."""
    if "max_seconds" in sampling:
        raise InputError("--max-seconds is for a model that is loaded here: a server has its own limit")
    fields: dict[str, Any] = {}
    extension: dict[str, Any] = {}
    for name, value in sampling.items():
        own = fields if name in FIELDS else extension
        own[WIRE_NAMES.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return fields, extension


class Conversation:
    """The conversation so far.

    Args:
        partner: answers.
        mode: instruction that ends questions.
        system: system message that begins the conversation.
    """

    def __init__(self, partner: Partner, mode: Instruction, system: str | None = None) -> None:
        self.partner, self.mode, self.system = partner, mode, system
        self.messages: list[Message] = []
        # Of the last answer: the question as it was typed, and the events with their times.
        self.question = ""
        self.events: list[WireEvent] = []
        self.turns: list[dict[str, Any]] = []  # the complete ones, as they are saved
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.question, self.events, self.turns = "", [], []

    def ask(self, question: str) -> Iterator[WireEvent]:
        """Ask; question and answer are kept if the answer is complete.

        Raises:
            MultiverseError: there is no answer.
        """
        asked: list[Message] = [*self.messages, {"role": "user", "content": question}]
        if self.partner.instructed or not self.partner.structured:
            asked = self.partner.prompting.instruct(asked, self.mode)
        started = time.monotonic()
        self.question, self.events = question, []
        with contextlib.closing(_closable(self.partner.ask(asked, self.mode))) as events:
            for event in events:
                timed = event if event.seconds is not None else replace(event, seconds=time.monotonic() - started)
                self.events.append(timed)
                yield timed
        reply = self.partner.reply()
        if reply is not None:
            self.messages = [*asked, reply]
            self.turns.append(self._turn())

    def _turn(self) -> dict[str, Any]:
        """The last question and its answer as a turn of the server's page."""
        moments = [event.to_json() for event in self.events]
        return {"question": self.question, "model": self.partner.name, "runs": [{"mode": self.mode, "moments": moments}]}

    def save(self, file: Path) -> None:
        """Write the conversation in the format that the server's page opens: the last answer, and all turns if there are more.

        Raises:
            InputError: there is no answer, or the file exists already or cannot be written.
        """
        if not self.events:
            raise InputError("there is nothing to save: ask something first")
        last = self._turn()
        turns = self.turns if last in self.turns else [*self.turns, last]
        recording = {
            "format": "multiverse-recording",
            "version": 1,
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
            **last,
            **({"turns": turns} if len(turns) > 1 else {}),
            "messages": self.messages,
        }
        try:
            with file.open("x", encoding="utf-8") as out:
                json.dump(recording, out, ensure_ascii=False)
        except FileExistsError:
            raise InputError(f"there is a file {str(file)!r} already: choose another name") from None
        except OSError as error:
            raise InputError(f"{str(file)!r} cannot be written ({error.strerror}): choose another name") from None


def _closable(events: Iterator[WireEvent]) -> Any:
    """A generator around an iterator, whose `close` closes the iterator if it is a generator."""
    yield from events


class Chat:
    """The conversation on a terminal, or over pipes, where each line of the input is a question."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.typed = sys.stdin.isatty()
        self.drawn = sys.stdout.isatty()

    def run(self) -> None:
        """Run until the input ends, or /quit."""
        if self.typed:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (input() then knows earlier lines)
            self._say(f"{self.conversation.partner.name} · {self.conversation.mode} · /help says what you can type")
        introduce(self.conversation.partner.about, self.conversation.partner.note)
        while (line := self._read()) is not None:
            text = line.strip()
            try:
                if text in ("/quit", "/exit"):
                    return
                if text.startswith("/") and not text.startswith("//"):
                    self._run_command(text)
                elif text:
                    self._answer(text.removeprefix("/") if text.startswith("//") else text)
            except MultiverseError as error:
                if not self.typed:
                    raise
                self._say(f"error: {' '.join(str(error).split())}", "red")

    def _read(self) -> str | None:
        """The next line; `None` at the end of the input."""
        while True:
            try:
                line = input("> ") if self.typed else sys.stdin.readline()
            except EOFError:
                typer.echo()
                return None
            except KeyboardInterrupt:
                if not self.typed:
                    raise
                self._say("\n/quit or Ctrl-D leaves")
                continue
            except UnicodeDecodeError as error:
                raise InputError(f"standard input is not UTF-8 text (byte {error.start}): type or pipe in text") from None
            if not self.typed and not line:
                return None
            try:
                line.encode()
            except UnicodeEncodeError:
                if not self.typed:
                    raise InputError("the question holds bytes that are not UTF-8: write it in UTF-8") from None
                self._say("error: the question holds bytes that are not UTF-8: write it in UTF-8", "red")
                continue
            return line

    def _run_command(self, text: str) -> None:
        command, _, rest = text.partition(" ")
        rest = rest.strip()
        if command == "/new":
            self.conversation.begin()
            self._say("a new conversation")
        elif command == "/mode":
            if rest:
                known("mode", rest, MODES)
                self.conversation.mode = next(mode for mode in MODES if mode == rest)
            self._say(f"mode: {self.conversation.mode}")
        elif command == "/save":
            if not rest:
                raise InputError("/save needs the name of a file: /save chat.json")
            self.conversation.save(Path(rest).expanduser())
            self._say(f"saved to {rest}")
        elif command == "/help":
            self._say(HELP)
        else:
            known("command", command, ("/new", "/mode", "/save", "/help", "/quit"))

    def _answer(self, question: str) -> None:
        """Ask and show the answer; one that is stopped or breaks off is not kept."""
        conversation = self.conversation
        before = conversation.messages
        if conversation.partner.is_unlike(question):
            warn_unlike(conversation.partner.about)
        try:
            if self.drawn:
                watch(conversation.ask(question))
            else:
                self._print(conversation.ask(question))
        except KeyboardInterrupt:
            if not self.typed:
                raise
            self._say("\nstopped; this question is dropped", "yellow")
            return
        if self.drawn:
            self._say(_from_cache(conversation.events[-1]).removeprefix(" · "))
        if conversation.messages is before:
            self._say("this answer is not complete, so question and answer are dropped", "yellow")

    def _print(self, events: Iterator[WireEvent]) -> None:
        """The answer alone, for pipes."""
        from .picture import ending, usage_line

        content = ""
        for event in events:
            if event.event == "token" and event.role in ("text", "answer") and not event.branch:
                content += event.text or ""
            if event.event == "finish":
                typer.echo(f"answer: {event.answer if event.answer is not None else content.strip()}")
                typer.echo(f"usage: {usage_line(event.usage or {})}{_from_cache(event)}")
                if ending(event):
                    typer.echo(ending(event), err=True)

    def _say(self, text: str, style: str = "dim") -> None:
        """Print a line that is not the model's, on a terminal only."""
        if not (self.typed or self.drawn) or not text.strip():
            return
        from rich.console import Console
        from rich.text import Text

        Console(stderr=not self.drawn).print(Text(text, style), soft_wrap=True)


def _from_cache(finish: WireEvent) -> str:
    """How many tokens of the conversation the prefix cache had."""
    usage = finish.usage or {}
    if not usage.get("cached_tokens") or not usage.get("prompt_tokens"):
        return ""
    return f" · {usage['cached_tokens']} of {usage['prompt_tokens']} prompt tokens from the cache"
