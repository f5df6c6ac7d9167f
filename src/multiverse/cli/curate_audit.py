"""`multiverse curate audit`: how much of sequential reasoning could have been done in parallel."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..curation.config import BudgetConfig, CurationConfig, EndpointConfig
from ..serving.config import ServerConfig
from .curate_input import OPENAI_URL, Traces, api_key
from .declared import Fields, Json, Limit, Out, expand_options
from .errors import InputError, check_url
from .jsonio import dump
from .style import COLORS, clean

if TYPE_CHECKING:
    from rich.console import Console

    from ..curation.audit import Listed
    from ..curation.client import Client
    from ..curation.errors import CurationError
    from ..curation.review import Review
    from ..curation.types import Trace

_AROUND = 2  # sentences shown before and after an instance
_QUESTION = 400  # characters of the question shown
_VERDICTS: dict[str, tuple[Any, ...]] = {
    "a": ("accept",),
    "c": ("accept", "collective", False),
    "C": ("accept", "collective", True),
    "s": ("accept", "selective", False),
    "S": ("accept", "selective", True),
    "r": ("reject",),
}
_HELP = "a accept · c collective · s selective (C, S: nested) · r reject · l later · b back · q quit"


@expand_options
def audit(
    out: Out,
    endpoint: Annotated[
        EndpointConfig,
        Fields(only=("model", "base_url", "concurrency"), defaults={"base_url": OPENAI_URL, "model": ""}),
    ],
    config: Annotated[CurationConfig, Fields(only=("attempts",))],
    budget: Annotated[BudgetConfig, Fields(only=("token_budget",))],
    server: Annotated[ServerConfig, Fields(only=("port",), defaults={"port": 0})],
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Traces to list; none to continue with a folder.", show_default=False),
    ] = None,
    limit: Limit = None,
    review: Annotated[
        bool, typer.Option("--review", help="Judge the instances here, one key each.", rich_help_panel="Review")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="Judge them on a local page; Ctrl-C ends it.", rich_help_panel="Review")
    ] = False,
    table: Annotated[
        bool,
        typer.Option("--table", help="Print the table, and write it to table.md and table.json.", rich_help_panel="Output"),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the implicit parallelism in sequential reasoning, judge it, count.

    A model lists every place in a trace that could have been done in parallel:
    collective (all parts are needed) or selective (one of them is), in the open or
    nested. A person accepts, rejects or reclassifies each. The table has the share
    of traces with at least one instance, and instances a trace, with standard errors.
    Completions and decisions are stored at once; an interrupted audit continues.

    [bold]Examples[/bold]
    multiverse curate audit traces.jsonl --out audit -m my-model --limit 50
    multiverse curate audit --out audit --page
    multiverse curate audit --out audit --review --table
    """
    if source is None and not (review or page or table or as_json):
        raise InputError("nothing to do: give an INPUT, or --review, --page or --table for what a folder holds")
    if review and not sys.stdin.isatty():
        raise InputError("--review needs a terminal: use --page, which needs a browser")
    if source is not None:
        check_url(endpoint.base_url)
        if not endpoint.model:
            raise InputError("--model is missing: name the model that is to list the instances")
        endpoint = replace(endpoint, api_key=api_key())
        found = _list(Traces(source, limit), out, endpoint, config, budget)
        found.report(out, to_stderr=as_json)

    from ..curation.review import Review

    opened = Review(out)
    if page:
        _serve(opened, server.port)
    if review:
        _judge(opened)
    if table or as_json:
        _print_table(opened, out, as_json=as_json)


@dataclass
class _Found:
    """What a listing has found so far.

    Attributes:
        traces: that the model was asked about.
        problems: traces of which no completion was valid, by what was wrong.
    """

    traces: int = 0
    instances: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, listed: Listed) -> None:
        """Count a trace."""
        self.traces += 1
        self.instances += len(listed.instances)
        if listed.problem:
            self.problems[listed.problem.partition(":")[0]] += 1

    def report(self, out: Path, *, to_stderr: bool) -> None:
        """Print it.

        Raises:
            CurationError: nothing could be listed of any trace.
        """
        from ..curation.errors import CurationError

        failed = self.problems.total()
        lines = [f"{out}: {self.traces - failed:,} of {self.traces:,} traces listed, {self.instances:,} instances"]
        lines += [f"  {number:,} × {clean(problem)}" for problem, number in self.problems.most_common(8)]
        for line in lines:
            typer.echo(line, err=to_stderr)
        if failed == self.traces:
            raise CurationError(
                f"no trace could be listed ({self.problems.most_common(1)[0][0]}): check --model, or raise --attempts"
            )


def _list(source: Traces, out: Path, endpoint: EndpointConfig, config: CurationConfig, limits: BudgetConfig) -> _Found:
    from ..curation.budget import Budget
    from ..curation.client import Client
    from ..curation.output import STORE
    from ..curation.store import Store

    traces = list(source.read())
    source.print_faults()
    if not traces:
        raise InputError(f"{source.source!r} holds no trace: give one that does")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be used ({error.strerror}): give another folder with --out") from None
    with contextlib.closing(Store(out / STORE)) as store:
        client = Client(endpoint, store, Budget(limits, store.usage()))
        found = _Found()
        ended = asyncio.run(_listing(traces, out, client, config, found))
    if ended is not None:
        raise ended
    return found


async def _listing(
    traces: list[Trace], out: Path, client: Client, config: CurationConfig, found: _Found
) -> CurationError | None:
    """List the instances of all traces; returns the error that ended it early, if any."""
    from rich.console import Console
    from rich.progress import Progress

    from ..curation.audit import CANDIDATES, line, list_all
    from ..curation.errors import CurationError
    from ..data.write import whole

    bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), redirect_stdout=False)
    async with client:
        with bar, whole(out / CANDIDATES) as part, part.open("w", encoding="utf-8") as stream:
            task = bar.add_task("listing", total=len(traces))
            try:
                async for listed in list_all(traces, client.ask, config, at_once=2 * client.config.concurrency):
                    stream.write(line(listed))
                    found.add(listed)
                    bar.update(task, completed=found.traces)
            except CurationError as error:
                if not found.traces:
                    raise  # keep what an earlier run has listed
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
    """Go through the undecided instances, one key a decision."""
    from rich.console import Console

    console = Console()
    shown: list[int] = []  # numbers, in order
    later: set[int] = set()
    number = _next(review, later)
    while number is not None:
        _show(console, review, number, len(later))
        key = _key()
        if key in ("q", "\x03", "\x04"):
            break
        if key == "b" and shown:
            number = shown.pop()
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
        shown.append(number)
        number = _next(review, later)
    left = sum(1 for _ in review.open())
    console.print(f"{left:,} undecided" if left else "all decided")


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
    """A text on one line, with lone surrogates as question marks."""
    return " ".join(clean(text).split()).encode(errors="replace").decode()


def _print_table(review: Review, out: Path, *, as_json: bool) -> None:
    table = review.table()
    try:
        (out / "table.md").write_text(table.markdown(), encoding="utf-8")
        (out / "table.json").write_text(dump(table.as_json()) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written to ({error.strerror}): check the folder") from None
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
    console.print(table.remarks(), style="dim", soft_wrap=True)
