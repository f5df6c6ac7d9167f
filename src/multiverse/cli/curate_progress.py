"""What `multiverse curate` shows: the estimate, a run as it goes, and what came of it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..curation.budget import Prices
    from ..curation.client import Client
    from ..curation.errors import CurationError
    from ..curation.estimate import Estimate
    from ..curation.job import Result
    from ..curation.outcomes import Outcomes


class Live:
    """A run as it goes, in two lines; on a terminal only, where nothing of it stays."""

    def __init__(self, rows: int, prices: Prices) -> None:
        self.rows, self.prices = rows, prices
        self._seen: tuple[Client, Outcomes] | None = None
        self._began, self._before = time.monotonic(), 0
        self._live: Any = None

    def watch(self, client: Client, outcomes: Outcomes) -> None:
        """Show this run from now on."""
        self._began, self._before = time.monotonic(), outcomes.done
        self._seen = (client, outcomes)

    def __enter__(self) -> Live:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live as RichLive

            console = Console(stderr=True)
            self._live = RichLive(get_renderable=self._picture, console=console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def _picture(self) -> Any:
        from rich.text import Text

        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    def lines(self) -> list[str]:
        """The lines."""
        if self._seen is None:
            return ["beginning"]
        client, outcomes = self._seen
        curated, aside = outcomes.statuses["curated"], outcomes.statuses["set aside"]
        done, gate, spent = curated + aside, client.gate, client.budget.spent
        parts = [f"{done:,} of {self.rows:,} rows", f"{curated:,} curated", f"{aside:,} set aside", self._left(done)]
        calls = [f"{spent.calls:,} calls", f"{_short(spent.tokens)} tokens"]
        calls += [f"cost {client.budget.cost:,.2f}"] if any(self.prices) else []
        calls += [f"{gate.flying} of {int(gate.allowed)} in flight"]
        calls += [f"{sum(client.failures.values()):,} failed in passing"] if client.failures else []
        calls += [f"held for {_time(gate.held)}, as the endpoint asks"] if gate.held > 1 else []
        first = " · ".join(part for part in parts if part)
        if gate.stopped is not None:
            first += " · ending: calls in flight are waited for"
        stages = " ".join(f"{stage} {number}" for stage, number in sorted(client.stages.items()) if number)
        return [first, " · ".join(calls), *([f"in hand: {stages}"] if stages else [])]

    def _left(self, done: int) -> str:
        """How long it will take yet, at the pace since the start."""
        passed, since = time.monotonic() - self._began, done - self._before
        return f"{_time(passed / since * (self.rows - done))} left" if since > 0 and passed > 2 else ""


def print_estimate(estimate: Estimate, prices: Prices, *, as_json: bool = False) -> None:
    """What a run will take, by stage: a line on stderr; as JSON, or for its own sake, on stdout."""
    usage, cost = estimate.usage, prices.cost(estimate.usage)
    if as_json:
        from .jsonio import dump

        stages = {name: stage._asdict() for name, stage in estimate.stages.items()}
        whole = {"rows": estimate.rows, **usage._asdict(), "tokens": usage.tokens, "cost": cost if any(prices) else None}
        typer.echo(dump({**whole, "stages": stages}))
        return
    money = f", cost {cost:,.2f}" if any(prices) else ""
    told = f"{estimate.rows:,} rows: about {usage.calls:,} calls, {_short(usage.prompt_tokens)} tokens asked"
    typer.echo(f"{told}, {_short(usage.completion_tokens)} answered{money}", err=True)


def print_stages(estimate: Estimate, prices: Prices) -> None:
    """The estimate in full."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for heading in ("calls", "tokens asked", "answered", *(["cost"] if any(prices) else [])):
        table.add_column(heading, justify="right")
    for name, stage in [*estimate.stages.items(), ("all", estimate.usage)]:
        cells = [f"{stage.calls:,}", f"{stage.prompt_tokens:,}", f"{stage.completion_tokens:,}"]
        table.add_row(name, *cells, *([f"{prices.cost(stage):,.2f}"] if any(prices) else []))
    Console().print(table)


def print_summary(result: Result, *, as_json: bool = False) -> None:
    """What came of a run."""
    if as_json:
        from .jsonio import dump

        typer.echo(dump(result.as_json()))
        return
    told = f"{result.out}: {result.curated:,} curated, {result.set_aside:,} set aside"
    if result.totals is not None and result.totals["not_reached"]:
        told += f", {result.totals['not_reached']:,} not reached"
    typer.echo(f"{told}; {result.paid.calls:,} calls, {_short(result.paid.tokens)} tokens")
    if result.totals is not None:
        reasons = sorted(result.totals["reasons"].items(), key=lambda item: -item[1])
        for reason, number in reasons[:8]:
            typer.echo(f"  {number:,} × {reason}")
        typer.echo(f"look at {result.out / 'report.html'}, train on {result.out / 'data'}")


def leave(ended: CurationError | None) -> None:
    """Leave the command as what ended its run demands; `None` is the run's own end."""
    from ..curation.errors import StoppedError

    if isinstance(ended, StoppedError):
        typer.echo(str(ended), err=True)
        raise typer.Exit(130)
    if ended is not None:
        raise ended


def _short(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _time(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{hours} h" if hours > 2 else f"{minutes} min" if minutes > 2 else f"{seconds:.0f} s"
