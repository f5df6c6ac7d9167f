"""`multiverse curate dataflow`: documents that fork from solutions that carry their arithmetic, without a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ..curation.config import IN_PROCESS, DataflowConfig, EndpointConfig
from .curate_input import print_faults
from .curate_progress import run_job
from .declared import Fields, Fresh, Json, KeepXml, Limit, OnError, Out, Seed, Split, expand_options
from .errors import InputError

if TYPE_CHECKING:
    from ..curation.dataflow.solution import Solution
    from ..data import Fault

GSM8K = "openai/gsm8k"


@expand_options
def dataflow(
    out: Out,
    config: Annotated[DataflowConfig, Fields(only=("min_gain", "keep_sequential", "dialect", "validation"))],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A .jsonl, .json or .parquet file, a folder of them, or a hub id.")
    ] = GSM8K,
    split: Split = None,
    subset: Annotated[
        str | None,
        typer.Option(
            "--subset", metavar="NAME", help="Configuration of a hub data set.", show_default=f"main for {GSM8K}, else none"
        ),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    on_error: OnError = "stop",
    fresh: Fresh = False,
    keep_xml: KeepXml = False,
    as_json: Json = False,
) -> None:
    """Find the parallel structure of worked solutions by their arithmetic; no model is needed.

    A record has a [bold]question[/bold] and a solution (under [bold]solution[/bold], [bold]answer[/bold] or
    [bold]reasoning[/bold]) whose steps carry their arithmetic, as GSM8K's: 48/2 = <<48/2=24>>24, with the
    answer behind ####. Which step needs the result of which makes a graph, and
    independent chains become paths. Solutions whose arithmetic is wrong, or whose
    numbers can be read in several ways that matter, are rejected with the reason.
    Every document is evaluated again with what each path sees. Without --split, only
    the training split is read where there is one. The folder is like that of
    [bold]multiverse curate[/bold], and a run that was stopped or killed continues.

    [bold]Examples[/bold]
    multiverse curate dataflow --out forked
    multiverse curate dataflow train.jsonl --out forked --min-gain 10
    multiverse curate dataflow solutions/ --out forked --dialect threadweaver --json
    """
    from ..curation.dataflow.curate import DataflowCurator
    from ..curation.job import Job

    solutions = _Solutions(source, limit, split, subset)
    rows = _survey(solutions)
    if not rows:
        raise InputError(f"{source!r} holds no solution: give a file, a folder or a hub id that does")
    if solutions.faults and on_error == "stop":
        raise InputError(
            f"{len(solutions.faults):,} of the input's rows cannot be read: nothing was done; correct them, or skip them "
            "with --on-error skip"
        )
    endpoint = EndpointConfig(base_url=IN_PROCESS, model="none", seed=seed)
    job = Job(out, endpoint, config, source, rows, documents=keep_xml)
    curator = DataflowCurator(config)
    run_job(job, solutions.read, as_json=as_json, fresh=fresh, faults=solutions.faults, curate=curator.curate)


class _Solutions:
    """The solutions of an input; `faults` is complete once `read` is exhausted."""

    def __init__(self, source: str, limit: int | None, split: str | None, subset: str | None) -> None:
        from ..curation.dataflow.solution import read_solutions

        self.source, self.limit = source, limit
        self._open = partial(read_solutions, source, split=split, config=subset)
        self.faults: list[Fault] = []

    def read(self) -> Iterator[Solution]:
        """Read the input from the beginning."""
        from ..curation.dataflow.solution import Solution

        self.faults = []
        for item in islice(self._open(), self.limit):
            if isinstance(item, Solution):
                yield item
            else:
                self.faults.append(item)


def _survey(solutions: _Solutions) -> int:
    """The number of solutions; prints a line for each fault."""
    from rich.console import Console

    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"reading {solutions.source}"):
        rows = sum(1 for _ in solutions.read())
    print_faults(solutions.faults)
    return rows
