"""Benchmarks by name: the published ones, and the families of this project's own tasks."""

from __future__ import annotations

from . import families, gpqa, ifeval, livecodebench, mathematics
from .base import Benchmark, Question
from .rows import questions

_ALL = (
    *mathematics.BENCHMARKS,
    *gpqa.BENCHMARKS,
    *ifeval.BENCHMARKS,
    *livecodebench.BENCHMARKS,
    *families.BENCHMARKS,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}

__all__ = ["BENCHMARKS", "Benchmark", "Question", "questions"]
