"""What `multiverse curate` and its commands share: the API key, and the traces of an input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import typer

from .errors import InputError

if TYPE_CHECKING:
    from ..curation.types import Trace
    from ..data import Fault

OPENAI_URL = "https://api.openai.com/v1"


def api_key(variable: str | None = None) -> str | None:
    """The API key in an environment variable (`InputError` if it is not set), by default in OPENAI_API_KEY if that is set."""
    key = os.environ.get(variable or "OPENAI_API_KEY")
    if variable is not None and not key:
        raise InputError(f"--api-key-env {variable!r} is not set in the environment: set it to the key")
    return key


def print_faults(faults: Iterable[Fault]) -> None:
    """Print a line for each fault to stderr."""
    for fault in faults:
        typer.echo(" ".join(str(fault).split()), err=True)


class Traces:
    """The traces of an input.

    Args:
        source: a .jsonl or .parquet file, a folder of them, or a hub id.
        limit: number of first rows to read, or `None`.
        split: only this split of a hub data set.

    Attributes:
        faults: rows that could not be read, complete once `read` is exhausted.
    """

    def __init__(self, source: str, limit: int | None, split: str | None = None) -> None:
        self.source, self.limit, self.split = source, limit, split
        self.faults: list[Fault] = []

    def read(self) -> Iterator[Trace]:
        """Read the input from the beginning."""
        from ..curation.trace import read_traces
        from ..curation.types import Trace

        self.faults = []
        for item in islice(read_traces(self.source, split=self.split), self.limit):
            if isinstance(item, Trace):
                yield item
            else:
                self.faults.append(item)

    def print_faults(self) -> None:
        """Print a line for each fault to stderr."""
        print_faults(self.faults)
