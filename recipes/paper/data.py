"""Training and test questions of the comparison, the same for every arm; those of training depend only on the seed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from multiverse.tasks import Problem, generate
from recipes.mini.data import drawn, record

FAMILIES = ("worksheet", "countdown", "nested")
WIDE = (5, 6)
DEPTH = 2
"""Deeper documents are left out: with a text join their inner paths are computed three times, which slows training."""

DOCUMENTS = 2_500
NARROW = 400
TEST_SEED = 2027


def training(seed: int, count: int = DOCUMENTS) -> Iterator[Problem]:
    """Problems of the training split in training order, mostly narrow ones first."""
    endless = drawn(seed, 1 << 60, NARROW, dict.fromkeys(FAMILIES, 1.0))
    return islice((problem for problem in endless if problem.structured.depth <= DEPTH), count)


def held_out(family: str, n: int, width: int | None = None) -> list[Problem]:
    """Problems of the test split, the same for every arm and seed."""
    return generate(family, n, seed=TEST_SEED, width=width, depth=DEPTH if family == "nested" else None)


def prepare(runs: Path, seed: int, count: int = DOCUMENTS) -> Path:
    """Write a seed's training data, unless the file exists; safe with several processes at once."""
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"data-{seed}.jsonl"
    if not path.exists():
        part = runs / f"data-{seed}.{os.getpid()}.part"
        part.write_text("".join(f"{json.dumps(record(problem), ensure_ascii=False)}\n" for problem in training(seed, count)))
        part.replace(path)
    return path
