"""`multiverse generate`: one question, watched while it is answered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import CommonOptions
from ..engine.params import SamplingParams
from ..options import Options, like, option
from ..prompting import Instruction
from ..serving.config import ServerConfig
from .declared import Fields, Json, expand_options
from .errors import InputError
from .introduce import introduce, warn_tagless, warn_unlike
from .jsonio import print_json
from .loading import BY_PRESET, NOT_OFFERED, ModelOptions
from .watch import watch

if TYPE_CHECKING:
    from ..engine import Event, Generation
    from ..llm import LLM

_PROMPT = "Prompt"


@dataclass(frozen=True)
class PromptOptions(Options):
    """How the question is put to the model."""

    mode: Instruction = like(ServerConfig, "mode", group=_PROMPT)
    raw: bool = option(False, "Continue the text as it is: no chat template, no instruction.", group=_PROMPT)


@dataclass(frozen=True)
class KeyOptions(Options):
    """The key for a server that runs the model."""

    api_key: str | None = like(CommonOptions, "api_key")


@expand_options
def generate(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="What to ask; - reads it from standard input.", show_default=False)
    ],
    prompt: PromptOptions,
    model: Annotated[ModelOptions, Fields(aliases={"upstream": "--base-url"})],
    server: KeyOptions,
    sampling: Annotated[
        dict[str, Any],
        Fields(
            of=SamplingParams,
            leave_out=NOT_OFFERED,
            show_default=BY_PRESET,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Ask a question and watch the answer fork and join.

    On a terminal, branches are drawn side by side while they are generated.
    Piped, the text is streamed, followed by the answer and the token counts.
    With --mode sequential nothing forks. What the model says of itself, and a
    warning about a question that is unlike those it was trained on, go to stderr.

    [bold]Examples[/bold]
    multiverse generate "Mia starts with 7, adds 5, doubles it and takes away 9. \\
        Tom starts with 12, triples it, takes away 4 and adds 9. What is the total?"
    multiverse generate --mode sequential "Start with 7. Add 5, then double it, then take away 3, then add 11. What do you get?"
    multiverse generate --temperature 0 - < question.txt
    multiverse generate --json "QUESTION" | jq .usage
    multiverse generate --base-url http://127.0.0.1:8000/v1 --tokenizer ./my-model "QUESTION"
    """
    from ..streaming import wire_events

    text = _question(question)
    llm = model.connect(server.api_key) if model.upstream is not None else model.load()
    introduce(llm.about, llm.recognised.line)
    params = llm.sampling(**sampling)
    if prompt.mode == "sequential":
        params = replace(params, max_depth=0)
    if prompt.mode == "parallel" and not prompt.raw:
        warn_tagless(llm, model.name)
    if not prompt.raw and llm.is_unlike(text):
        warn_unlike(llm.about)
    events = _events(llm, text, params, prompt)
    if as_json:
        for generation in _finished(events):
            print_json(_generation_json(generation))
    elif sys.stdout.isatty():
        watch(wired for event in events for wired in wire_events(event))
    else:
        _stream(events)


def _question(argument: str) -> str:
    if argument == "-":
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise InputError(f"standard input is not UTF-8 text (byte {error.start}): pipe in a question as text") from None
    else:
        text = argument
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("the question holds bytes that are not UTF-8: write it in UTF-8") from None
    if not text.strip():
        where = " on standard input" if argument == "-" else ""
        raise InputError(f"the question{where} is empty: write one, or - to read it from standard input")
    return text


def _events(llm: LLM, question: str, params: SamplingParams, prompt: PromptOptions) -> Iterator[Event]:
    if prompt.raw:
        return llm.stream(question, params)
    if getattr(llm.tokenizer, "chat_template", None) is None:
        raise InputError(f"the model {llm.model_path!r} has no chat template: use --raw")
    return llm.stream([{"role": "user", "content": question}], params, mode=prompt.mode)


def _finished(events: Iterator[Event]) -> Iterator[Generation]:
    from ..engine import FinishEvent

    return (event.generation for event in events if isinstance(event, FinishEvent))


def _generation_json(generation: Generation) -> dict[str, Any]:
    return {
        "text": generation.text,
        "answer": generation.answer,
        "tree": generation.tree.to_json() if generation.tree is not None else None,
        "finish_reason": generation.finish_reason,
        "stop_reason": generation.stop_reason,
        "structure_error": generation.structure_error,
        "closed": [{"branch": label, "reason": reason} for label, reason in generation.closed],
        "usage": generation.usage.to_json(
            "prompt_tokens",
            "total_tokens",
            "critical_path_tokens",
            "critical_path_steps",
            "parallelism",
            "cached_tokens",
            "reread_tokens",
            "seconds",
        ),
    }


def _stream(events: Iterator[Event]) -> None:
    """Print the text as it is generated, then the answer and the token counts."""
    from ..engine import FinishEvent
    from ..streaming import DocumentOrder, wire_events
    from .picture import ending, usage_line

    order, written = DocumentOrder(), ""
    for event in events:
        text = order.feed_text(event)
        typer.echo(text, nl=False)
        sys.stdout.flush()
        written += text
        if isinstance(event, FinishEvent):
            generation = event.generation
            typer.echo(generation.text.removeprefix(written))
            typer.echo()
            if generation.answer != generation.text.strip():
                typer.echo(f"answer: {generation.answer}")
            (finish,) = wire_events(event)
            typer.echo(f"usage: {usage_line(finish.usage or {})}")
            if ending(finish):
                typer.echo(ending(finish), err=True)
