"""Benchmarks by name: the published ones, and the families of this project's own tasks."""

from __future__ import annotations

from ...errors import MultiverseError
from . import families, mathematics
from .base import Benchmark, Question
from .rows import questions

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (*mathematics.BENCHMARKS, *families.BENCHMARKS)
}

__all__ = ["BENCHMARKS", "Benchmark", "Question", "questions"]
