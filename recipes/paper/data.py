"""What a cell starts from: the questions, the same for every arm, and fresh weights. Functions of the seed alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from multiverse.tasks import Problem, generate
from recipes.mini import start
from recipes.mini.data import drawn, record

FAMILIES = ("worksheet", "countdown", "nested")
WIDE = (5, 6)
DEPTH = 2
"""Deeper documents are left out: under a text join their inner paths are read three times, and training takes as long."""

DOCUMENTS = 8_000
NARROW = 1_500
TEST_SEED = 2027


def training(seed: int, count: int = DOCUMENTS) -> Iterator[Problem]:
    """Problems of the training split in the order in which they are learned, mostly narrow ones first."""
    endless = drawn(seed, 1 << 60, NARROW, dict.fromkeys(FAMILIES, 1.0))
    return islice((problem for problem in endless if problem.structured.depth <= DEPTH), count)


def held_out(family: str, n: int, width: int | None = None) -> list[Problem]:
    """Problems of the test split, the same for every arm and seed."""
    return generate(family, n, seed=TEST_SEED, width=width, depth=DEPTH if family == "nested" else None)


def prepare(runs: Path, seed: int, shape: str = "paper", count: int = DOCUMENTS) -> None:
    """Write what a seed's cells start from, data and weights, unless it is there. Several processes may do so at once."""
    runs.mkdir(parents=True, exist_ok=True)
    data, model = runs / f"data-{seed}.jsonl", runs / f"start-{seed}"
    own = runs / f".prepare-{os.getpid()}"
    try:
        if not data.exists():
            own.mkdir(exist_ok=True)
            (own / "data").write_text("".join(f"{json.dumps(record(p), ensure_ascii=False)}\n" for p in training(seed, count)))
            (own / "data").replace(data)
        if not model.exists():
            start.write(own / "model", shape, seed)
            try:
                (own / "model").rename(model)
            except OSError:  # another process was first, with the same weights
                if not model.exists():
                    raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
