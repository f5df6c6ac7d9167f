"""What `multiverse curate` prints: estimate, progress and summary of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import typer

from .jsonio import print_json

if TYPE_CHECKING:
    from ..curation.client import Client
    from ..curation.config import BudgetConfig
    from ..curation.estimate import CostEstimate
    from ..curation.job import Job, Result
    from ..curation.outcomes import Outcomes
    from ..curation.types import Trace


def run_job(job: Job, traces: Callable[[], Iterable[Trace]], *, as_json: bool, **options: Any) -> None:
    """Start a job with live progress on terminals, print its summary, and raise what ended it early.

    Args:
        traces, options: see `Job.start`.

    Raises:
        CurationError: what ended the run early; or no row was curated.
        typer.Exit: the run was interrupted.
    """
    from ..curation.errors import CurationError, StoppedError

    on_start = options.pop("on_start", None)
    progress = Progress(job.rows)

    def started(client: Client, outcomes: Outcomes) -> None:
        progress.watch(client, outcomes)
        if on_start is not None:
            on_start(client, outcomes)

    with progress.live():
        result = job.start(traces, on_start=started, **options)
    if as_json:
        print_json(result.as_json())
    else:
        _print_summary(result)
    if isinstance(result.ended, StoppedError):
        typer.echo(str(result.ended), err=True)
        raise typer.Exit(130)
    if result.ended is not None:
        raise result.ended
    if not result.curated and result.rejected:
        raise CurationError(
            f"none of {result.rejected:,} rows was curated{_commonest(result)}: there is nothing to train on; see "
            f"{result.out / 'report.html'}"
        )


class Progress:
    """Progress of a run, in two or three lines."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._run: tuple[Client, Outcomes] | None = None
        self._began, self._before = time.monotonic(), 0

    def watch(self, client: Client, outcomes: Outcomes) -> None:
        """Show this run from now on."""
        self._began, self._before = time.monotonic(), outcomes.done
        self._run = (client, outcomes)

    def live(self) -> Any:
        """A context in which the lines are shown if stderr is a terminal; they are erased at the end."""
        if not sys.stderr.isatty():
            return nullcontext()
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        def picture() -> Text:
            return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

        return Live(get_renderable=picture, console=Console(stderr=True), refresh_per_second=4, transient=True)

    def lines(self) -> list[str]:
        """The lines as text."""
        if self._run is None:
            return ["starting"]
        from ..curation.outcomes import CURATED, REJECTED

        client, outcomes = self._run
        curated, rejected = outcomes.statuses[CURATED], outcomes.statuses[REJECTED]
        done, limiter, budget = curated + rejected, client.limiter, client.budget
        self.rows = outcomes.expected if outcomes.expected is not None else self.rows
        rows = [f"{done:,} of {self.rows:,} rows", f"{curated:,} curated", f"{rejected:,} rejected"]
        rows += [left] if (left := self._left(done)) else []
        rows += ["stopping: waiting for calls in flight"] if limiter.stopped is not None else []
        calls = [f"{budget.spent.calls:,} calls", f"{_short(budget.spent.tokens)} tokens"]
        calls += [f"cost {budget.cost:,.2f}"] if budget.config.priced else []
        calls += [f"{limiter.in_flight} of {int(limiter.limit)} in flight"]
        calls += [f"{sum(client.failures.values()):,} transient failures"] if client.failures else []
        calls += [f"paused for {_time(limiter.pause_left)} (Retry-After)"] if limiter.pause_left > 1 else []
        stages = " ".join(f"{stage} {number}" for stage, number in sorted(client.stages.items()) if number)
        return [" · ".join(rows), " · ".join(calls), *([f"waiting: {stages}"] if stages else [])]

    def _left(self, done: int) -> str:
        """Time left at the pace since the start."""
        passed, since = time.monotonic() - self._began, done - self._before
        return f"{_time(passed / since * (self.rows - done))} left" if since > 0 and passed > 2 else ""


def print_estimate(estimate: CostEstimate, budget: BudgetConfig) -> None:
    """Print the estimate on one line of stderr."""
    usage = estimate.usage
    money = f", cost {budget.cost(usage):,.2f}" if budget.priced else ""
    tokens = f"{_short(usage.prompt_tokens)} prompt tokens, {_short(usage.completion_tokens)} completion tokens"
    typer.echo(f"{estimate.rows:,} rows: about {usage.calls:,} calls, {tokens}{money}", err=True)


def print_stages(estimate: CostEstimate, budget: BudgetConfig, *, as_json: bool) -> None:
    """Print the estimate by stage, as a table or as JSON."""
    usage = estimate.usage
    if as_json:
        cost = budget.cost(usage) if budget.priced else None
        stages = {name: stage._asdict() for name, stage in estimate.stages.items()}
        print_json({"rows": estimate.rows, **usage._asdict(), "tokens": usage.tokens, "cost": cost, "stages": stages})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for heading in ("calls", "prompt tokens", "completion tokens", *(["cost"] if budget.priced else [])):
        table.add_column(heading, justify="right")
    for name, stage in [*estimate.stages.items(), ("all", usage)]:
        cells = [f"{stage.calls:,}", f"{stage.prompt_tokens:,}", f"{stage.completion_tokens:,}"]
        table.add_row(name, *cells, *([f"{budget.cost(stage):,.2f}"] if budget.priced else []))
    Console().print(table)


def _print_summary(result: Result) -> None:
    summary = f"{result.out}: {result.curated:,} curated, {result.rejected:,} rejected"
    if result.totals is not None and result.totals["not_reached"]:
        summary += f", {result.totals['not_reached']:,} not reached"
    typer.echo(f"{summary}; {result.paid.calls:,} calls, {_short(result.paid.tokens)} tokens")
    if result.totals is not None:
        if result.totals["curated"]:
            typer.echo(_parallelism(result.totals))
        reasons = sorted(result.totals["reasons"].items(), key=lambda item: -item[1])
        for reason, number in reasons[:8]:
            typer.echo(f"  {number:,} × {reason}")
        data = f", training data: {result.out / 'data'}" if result.totals["curated"] else ""
        typer.echo(f"report: {result.out / 'report.html'}{data}")


def _commonest(result: Result) -> str:
    """The commonest reason why rows were rejected, in brackets."""
    reasons = result.totals["reasons"] if result.totals is not None else {}
    return f" ({max(reasons, key=lambda reason: reasons[reason])})" if reasons else ""


def _parallelism(totals: Mapping[str, Any]) -> str:
    documents, forked, wide = (totals[name] for name in ("curated", "forked", "content_above_1.5"))
    mean = totals["content_parallelism"]
    share = f"  {forked:,} documents fork ({forked / documents:.1%})"
    return f"{share}; content parallelism {mean:.2f} on average, above 1.5 in {wide / documents:.1%}"


def _short(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _time(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{hours} h" if hours > 2 else f"{minutes} min" if minutes > 2 else f"{seconds:.0f} s"
