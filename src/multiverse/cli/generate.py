"""`multiverse generate`: one question, watched while it is answered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import InputError
from .loading import open_model
from .options import BOUNDS, SAMPLING, Device, Dtype, DtypeOption, Json, MaxTokens, Model, Temperature, ThinkingBudget
from .watch import moments, watch

if TYPE_CHECKING:
    from ..engine import Event, Generation, SamplingParams
    from ..llm import LLM

PROMPT = "Prompt"


def generate(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="What to ask; - reads it from standard input.", show_default=False)
    ],
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Ask for thinking in a line, and let nothing fork.", rich_help_panel=PROMPT)
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Continue the text as it is: no chat template, no instruction.", rich_help_panel=PROMPT),
    ] = False,
    model: Model = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    temperature: Temperature = 0.0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", metavar="P", help="Keep the likeliest tokens that together reach P.", rich_help_panel=SAMPLING),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option("--top-k", metavar="K", help="Keep the K likeliest tokens; 0 keeps all.", rich_help_panel=SAMPLING)
    ] = 0,
    min_p: Annotated[
        float,
        typer.Option(
            "--min-p", metavar="P", help="Drop tokens less likely than P times the likeliest.", rich_help_panel=SAMPLING
        ),
    ] = 0.0,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            "--repetition-penalty", metavar="R", help="Above 1 discourages repetition; 1 is off.", rich_help_panel=SAMPLING
        ),
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Makes sampling repeatable.", rich_help_panel=SAMPLING, show_default="fresh"),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="TEXT",
            help="End before this text; may be given again.",
            rich_help_panel=BOUNDS,
            show_default=False,
        ),
    ] = None,
    max_tokens: MaxTokens = 2048,
    max_depth: Annotated[
        int,
        typer.Option(
            "--max-depth", metavar="N", help="Blocks nest at most this deep; 0 forbids forking.", rich_help_panel=BOUNDS
        ),
    ] = 8,
    max_branches: Annotated[
        int,
        typer.Option("--max-branches", metavar="N", help="Most branches overall; 0 forbids forking.", rich_help_panel=BOUNDS),
    ] = 64,
    max_width: Annotated[
        int, typer.Option("--max-width", metavar="N", help="Most paths of one block.", rich_help_panel=BOUNDS)
    ] = 32,
    thinking_budget: ThinkingBudget = None,
    max_critical_path_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-critical-path",
            metavar="N",
            help="Longest chain of tokens altogether.",
            rich_help_panel=BOUNDS,
            show_default="none",
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", metavar="S", help="Wind up after so many seconds.", rich_help_panel=BOUNDS)
    ] = 3600.0,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard/--no-guard", help="Keep the model to the grammar; without, bounds cut.", rich_help_panel=SAMPLING
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Ask a question and watch the answer fork and join.

    On a terminal, branches fill side by side as they are written. Piped, the
    text streams as the model writes it, then come the answer and what it took.

    [bold]Examples[/bold]
    multiverse generate "Mia starts with 7, adds 5, doubles it and takes away 9. \
        Tom starts with 12, triples it, takes away 4 and adds 9. What is the total?"
    multiverse generate --sequential "Start with 7. Add 5, then double it, then take away 3, then add 11. What do you get?"
    multiverse generate --temperature 0.6 --top-p 0.95 --seed 1 - < question.txt
    multiverse generate --json "QUESTION" | jq .usage
    """
    from ..engine import SamplingParams

    params = SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
        max_tokens=max_tokens,
        max_depth=0 if sequential else max_depth,
        max_branches=max_branches,
        max_width=max_width,
        thinking_budget=thinking_budget,
        max_critical_path_tokens=max_critical_path_tokens,
        max_seconds=max_seconds,
        guard=guard,
    )
    text = _question(question)
    llm = open_model(model, device=device, dtype=dtype.value)
    events = _ask(llm, text, params, sequential=sequential, raw=raw)
    if as_json:
        _print_json(events)
    elif sys.stdout.isatty():
        watch(moments(events, llm))
    else:
        _stream(llm, events, live=not params.stop)


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


def _ask(llm: LLM, question: str, params: SamplingParams, *, sequential: bool, raw: bool) -> Iterator[Event]:
    from ..prompting import ask

    if raw:
        return llm.stream(question, params)
    if getattr(llm.tokenizer, "chat_template", None) is None:
        raise InputError(f"the model {llm.model_path!r} has no chat template: use --raw")
    return llm.stream(ask(question, "sequential" if sequential else "parallel"), params)


def _print_json(events: Iterator[Event]) -> None:
    from ..engine import FinishEvent
    from .jsonio import dump

    for event in events:
        if isinstance(event, FinishEvent):
            typer.echo(dump(_generation_json(event.generation)))


def _generation_json(generation: Generation) -> dict[str, Any]:

    usage = generation.usage
    return {
        "text": generation.text,
        "answer": generation.answer,
        "tree": generation.tree.to_json() if generation.tree is not None else None,
        "finish_reason": generation.finish_reason,
        "structure_error": generation.structure_error,
        "closed": [{"branch": label, "reason": reason} for label, reason in generation.closed],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "total_tokens": usage.total_tokens,
            "critical_path_tokens": usage.critical_path_tokens,
            "parallelism": usage.parallelism,
            "cached_tokens": usage.cached_tokens,
            "seconds": usage.seconds,
        },
    }


def _stream(llm: LLM, events: Iterator[Event], *, live: bool) -> None:
    """The text as it is, then the answer and what it took.

    `live` is false with stop strings: they cut text that has been written already, so it is known only at the end.
    """
    from ..engine import FinishEvent
    from ..live import Reader, Transcript
    from .picture import ending, usage_line

    reader, transcript = Reader(llm.engine.tokens), Transcript(llm.engine.loaded.stop_ids)
    written = ""
    for event in events:
        text = transcript.feed(event)
        if live and text:
            typer.echo(text, nl=False)
            sys.stdout.flush()
            written += text
        if isinstance(event, FinishEvent):
            generation = event.generation
            typer.echo(generation.text.removeprefix(written) if generation.text.startswith(written) else "")
            typer.echo()
            if generation.answer != generation.text.strip():
                typer.echo(f"answer: {generation.answer}")
            (finish,) = reader.feed(event)
            typer.echo(f"usage: {usage_line(finish.usage or {})}")
            if ending(finish):
                typer.echo(ending(finish), err=True)
