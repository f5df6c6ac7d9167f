"""How a worker is talked to: one JSON object a line, a question on stdin, its answer on stdout. Standard library only.

The first question opens the engine, every further one asks for one decode. A worker only ever does what it is asked, so
an engine that waits for a question costs nothing.
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
    """What a worker has to know before it loads anything.

    Attributes:
        folder: the weights as transformers saves them.
        threads: processor threads to compute with.
        rows: most sequences at once.
        positions: longest sequence, prompt included.
    """

    folder: str
    threads: int
    rows: int
    positions: int


class Decode(NamedTuple):
    """One measurement: `rows` continuations of one prompt, `steps` tokens each, side by side in one batch."""

    rows: int
    prompt: list[int]
    steps: int


class Opened(NamedTuple):
    """The engine as it should stand in a report, and a way to measure: seconds that the steps took, the prompt left out."""

    version: str
    measure: Callable[[Decode], float]


def serve(open_engine: Callable[[Opening], Opened]) -> None:
    """Answer questions until stdin closes or the benchmark is gone."""
    if sys.platform == "linux":
        # A worker that was stopped when the benchmark was killed would never see its stdin close.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Engines print as they please: what they write to stdout goes to stderr, and only answers go to the real one.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields: object) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    opened: Opened | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if opened is None:
                opened = open_engine(Opening(**question))
                answer(version=opened.version)
            else:
                answer(seconds=opened.measure(Decode(**question)))
        except Exception as error:  # whatever went wrong over there, the benchmark is to hear of it and go on
            traceback.print_exc()
            answer(error=f"{type(error).__name__}: {error}")
