"""Greedy accuracy of a model on this project's task families."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from multiverse import LLM, SamplingParams
from multiverse.evaluation.config import EvaluationConfig
from multiverse.evaluation.providers import in_process
from multiverse.evaluation.report import report
from multiverse.evaluation.run import evaluate
from multiverse.prompting import Mode


def measure(
    llm: LLM, families: Sequence[str], n: int, seed: int, mode: Mode, *, max_tokens: int = 2048, width: int | None = None
) -> list[dict[str, Any]]:
    """What `multiverse eval FAMILY... --limit N --temperature 0 --json` prints, a dictionary for each family."""
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens)
    config = EvaluationConfig(tuple(families), sampling, limit=n, seed=seed, width=width)
    with TemporaryDirectory() as folder:
        run = evaluate(lambda: in_process("model", llm), llm.model_path, config, Path(folder), mode, concurrency=256)
    rows = [group.summary() for group in report([run]).groups]
    return [
        {"family": row.pop("benchmark"), "mode": row.pop("mode"), "n": row.pop("answers"), "seed": seed, **row} for row in rows
    ]
