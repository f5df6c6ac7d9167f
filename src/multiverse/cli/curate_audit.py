"""`multiverse curate audit`: how much of sequential reasoning could have been done in parallel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .errors import InputError, check_url
from .options import MODEL, OPENAI, OUTPUT, BaseUrl, Concurrency, FirstRows, FolderTokens, Json, Out
from .style import COLORS, clean

if TYPE_CHECKING:
    from rich.console import Console

    from ..curation.client import Client
    from ..curation.config import CurationConfig
    from ..curation.errors import CurationError
    from ..curation.review import Review
    from ..curation.types import Trace

REVIEW = "Review"

_AROUND = 2  # sentences that are shown before and behind an instance
_QUESTION = 400  # characters of the question
_VERDICTS: dict[str, tuple[Any, ...]] = {
    "a": ("accept",),
    "c": ("accept", "collective", False),
    "C": ("accept", "collective", True),
    "s": ("accept", "selective", False),
    "S": ("accept", "selective", True),
    "r": ("reject",),
}
_HELP = "a accept · c collective · s selective (C, S: nested) · r reject · l later · b back · q leave"


def audit(
    out: Out,
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Traces to go through; none to go on with a folder.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Which model to ask.", rich_help_panel=MODEL, show_default=False),
    ] = None,
    base_url: BaseUrl = OPENAI,
    n: FirstRows = None,
    attempts: Annotated[
        int, typer.Option("--attempts", metavar="N", help="How often to ask about a trace, told what was wrong.", min=1)
    ] = 3,
    concurrency: Concurrency = 16,
    max_tokens: FolderTokens = None,
    review: Annotated[
        bool, typer.Option("--review", help="Judge the instances here, one key each.", rich_help_panel=REVIEW)
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="Judge them on a local page; Ctrl-C ends it.", rich_help_panel=REVIEW)
    ] = False,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Port of that page; 0 takes a free one.", min=0, rich_help_panel=REVIEW)
    ] = 0,
    table: Annotated[
        bool, typer.Option("--table", help="Print the table, and write it to table.md and table.json.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Json = False,
) -> None:
    """List the implicit parallelism in sequential reasoning, judge it, count.

    A model lists every place in a trace that could have been done in parallel:
    collective (all parts are needed) or selective (one of them is), in the open or
    nested. A person accepts, rejects or reclassifies each. The table has the share
    of traces with at least one instance, and instances a trace, with their errors.
    Answers and decisions are stored at once; what was interrupted goes on.

    [bold]Examples[/bold]
    multiverse curate audit traces.jsonl --out audit -m my-model --n 50
    multiverse curate audit --out audit --page
    multiverse curate audit --out audit --review --table
    """
    if source is None and not (review or page or table or as_json):
        raise InputError("nothing to do: give an INPUT, or --review, --page or --table for what a folder holds")
    if review and not sys.stdin.isatty():
        raise InputError("--review needs a terminal: use --page, which needs a browser")
    if source is not None:
        if model is None:
            raise InputError("--model is missing: name the model that is to list the instances")
        _list(source, n, out, model, base_url, _Bounds(attempts, concurrency, max_tokens))

    from ..curation.review import Review

    opened = Review(out)
    if page:
        _serve(opened, port)
    if review:
        _judge(opened)
    if table or as_json:
        _count(opened, out, as_json=as_json)


class _Bounds(NamedTuple):
    """How far the listing may go."""

    attempts: int
    concurrency: int
    max_tokens: int | None


def _list(source: str, n: int | None, out: Path, model: str, base_url: str, bounds: _Bounds) -> None:
    from ..curation.budget import Budget
    from ..curation.client import Client, EndpointConfig
    from ..curation.config import CurationConfig
    from ..curation.store import Store

    check_url(base_url)
    traces = _traces(source, n)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be used ({error.strerror}): give --out a folder that can be") from None
    endpoint = EndpointConfig(base_url, model, os.environ.get("OPENAI_API_KEY") or "EMPTY", concurrency=bounds.concurrency)
    store = Store(out / "answers.sqlite")
    try:
        budget = Budget(max_tokens=bounds.max_tokens, spent=store.usage())
        ended = asyncio.run(_listing(traces, out, Client(endpoint, store, budget), CurationConfig(attempts=bounds.attempts)))
    finally:
        store.close()
    if ended is not None:
        raise ended


def _traces(source: str, n: int | None) -> list[Trace]:
    from ..curation.trace import read_traces
    from ..curation.types import Trace

    traces: list[Trace] = []
    for item in islice(read_traces(source), n):
        if isinstance(item, Trace):
            traces.append(item)
        else:
            typer.echo(" ".join(str(item).split()), err=True)
    if not traces:
        raise InputError(f"{source!r} holds no trace: give one that does")
    return traces


async def _listing(traces: list[Trace], out: Path, client: Client, settings: CurationConfig) -> CurationError | None:
    """List what is in the traces, and say what ended it before its end, if anything did."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from ..curation.audit import CANDIDATES, line, list_all
    from ..curation.errors import CurationError
    from ..data.write import whole

    done = 0
    bar = Progress(
        TextColumn("listing"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        redirect_stdout=False,
    )
    async with client:
        with bar, whole(out / CANDIDATES) as part, part.open("w", encoding="utf-8") as stream:
            task = bar.add_task("", total=len(traces))
            try:
                async for listed in list_all(traces, client.ask, settings, at_once=2 * client.endpoint.concurrency):
                    stream.write(line(listed))
                    done += 1
                    bar.update(task, completed=done)
            except CurationError as error:
                if not done:
                    raise  # what an earlier run has listed stays
                return error
    return None


def _serve(review: Review, port: int) -> None:
    from ..curation.audit_page import Page

    try:
        page = Page(review, port)
    except OSError as error:
        raise InputError(f"--port {port} cannot be used ({error.strerror}): give another, or 0") from None
    typer.echo(f"{page.url}  (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        page.serve()
    page.close()


def _judge(review: Review) -> None:
    """Go through what is undecided, one key a decision."""
    from rich.console import Console

    console = Console()
    passed: list[int] = []  # in the order in which they were shown
    later: set[int] = set()
    number = _next(review, later)
    while number is not None:
        _show(console, review, number, len(later))
        key = _key()
        if key in ("q", "\x03", "\x04"):
            break
        if key == "b" and passed:
            number = passed.pop()
            review.decide(number, "open")
            later.discard(number)
            continue
        verdict = _VERDICTS.get(key)
        if key == "l":
            later.add(number)
        elif verdict is not None:
            review.decide(number, *verdict)
        else:
            continue
        passed.append(number)
        number = _next(review, later)
    left = sum(1 for _ in review.open())
    console.print(f"{left:,} undecided" if left else "all are decided")


def _next(review: Review, later: set[int]) -> int | None:
    return next((number for number in review.open() if number not in later), None)


def _key() -> str:
    try:
        return str(typer.getchar())
    except (KeyboardInterrupt, EOFError):
        return "q"


def _show(console: Console, review: Review, number: int, later: int) -> None:
    from rich.rule import Rule
    from rich.text import Text

    from ..curation.audit import shown

    listed, instance = review.candidates[number]
    left = sum(1 for _ in review.open())
    console.print(Rule(f"{number + 1} of {len(review.candidates)} · {left} undecided" + f", {later} for later" * bool(later)))
    console.print(Text(_line(listed.question)[:_QUESTION], "dim"))
    first, last = instance.parts[0].first - _AROUND, instance.parts[-1].last + _AROUND
    for at in range(max(1, first), min(len(listed.sentences), last) + 1):
        part = next((index for index, span in enumerate(instance.parts) if span.first <= at <= span.last), None)
        style = "dim" if part is None else COLORS[part % len(COLORS)]
        console.print(Text(f"{at:>4}  {_line(listed.sentences[at - 1])}", style))
    kind = f"nested {instance.kind}" if instance.nested else instance.kind
    console.print(Text(f"{listed.id}, sentences {shown(instance.parts)}: {kind}", "bold"))
    console.print(Text(_line(instance.reason)))
    console.print(Text(_HELP, "dim"))


def _line(text: str) -> str:
    """A text on one line; half a character, which a terminal cannot show, as a question mark."""
    return " ".join(clean(text).split()).encode(errors="replace").decode()


def _count(review: Review, out: Path, *, as_json: bool) -> None:
    from .jsonio import dump

    table = review.table()
    try:
        (out / "table.md").write_text(table.markdown(), encoding="utf-8")
        (out / "table.json").write_text(dump(table.as_json()) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written to ({error.strerror}): see to the folder") from None
    if as_json:
        typer.echo(dump(table.as_json()))
        return
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("implicit parallelism")
    drawn.add_column("share of traces", justify="right")
    drawn.add_column("instances a trace", justify="right")
    for row in table.rows():
        drawn.add_row(*row)
    console = Console()
    console.print(drawn)
    console.print(table.told(), style="dim", soft_wrap=True)
