"""Protocol of a worker: one JSON object per line, requests on stdin and results on stdout. Standard library only.

The first request loads the engine, each further one measures one decode.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Opening(NamedTuple):
    """The request that loads the engine.

    Attributes:
        folder: the weights as transformers saves them.
        threads: number of threads to compute with.
        rows: most sequences at once.
        positions: longest sequence, prompt included.
        kind: of the weights, by llama.cpp's names; other engines know bfloat16 alone.
    """

    folder: str
    threads: int
    rows: int
    positions: int
    kind: str = "BF16"


class Decode(NamedTuple):
    """One measurement: `rows` continuations of one prompt, `steps` tokens each, side by side in one batch."""

    rows: int
    prompt: list[int]
    steps: int


class Opened(NamedTuple):
    """A loaded engine: its name and version for the report, and a function that returns the seconds of the decode steps."""

    version: str
    measure: Callable[[Decode], float]


def serve(open_engine: Callable[[Opening], Opened]) -> None:
    """Handle requests until stdin closes or the benchmark's process ends."""
    if sys.platform == "linux":
        # A worker that is stopped (SIGSTOP) when the benchmark is killed would not see its stdin close.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Engines print to stdout: redirect that to stderr, so that stdout carries results alone.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**fields: object) -> None:
        print(json.dumps(fields), file=results, flush=True)

    opened: Opened | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if opened is None:
                opened = open_engine(Opening(**request))
                reply(version=opened.version)
            else:
                reply(seconds=opened.measure(Decode(**request)))
        except Exception as error:  # reported to the benchmark, which continues
            traceback.print_exc()
            reply(error=f"{type(error).__name__}: {error}")
