"""Benchmarks as inspect's tasks: its data sets, a solver that asks, and a scorer that asks our graders.

Imported only by inspect, or by whoever has it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from inspect_ai import Task
from inspect_ai import task as inspect_task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as Item
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ..prompting import Mode, ask
from .answer import Answer
from .benchmarks import BENCHMARKS, Benchmark, Question, questions
from .judging import graded
from .sample import Sample

_GRADERS = os.cpu_count() or 2
"""Answers of one benchmark that are graded at once: a program under test may take a processor and gigabytes."""


@dataclass(frozen=True)
class Asking:
    """How the questions of one benchmark are asked.

    Attributes:
        mode: which instruction ends each question.
        epochs: how often each is asked.
        seed: each question and epoch is sampled from a seed of its own, derived from this one.
        known: a finished sample, by question and epoch, which need not be asked again; `None` if there is none.
        on_finish: told of each sample that is new.
    """

    mode: Mode
    epochs: int
    seed: int
    known: Callable[[str, int], Sample | None] = lambda _id, _epoch: None
    on_finish: Callable[[Sample], None] = lambda _sample: None


def build(benchmark: Benchmark, asked: list[Question], asking: Asking) -> Task:
    """A benchmark as a task of inspect's."""
    items = [
        Item(id=question.id, input=ask(question.text, asking.mode)[0]["content"], target=question.expected)
        for question in asked
    ]
    by_id = {question.id: question for question in asked}
    return Task(
        dataset=MemoryDataset(items, name=benchmark.name),
        solver=_asks(benchmark.name, asking)(),
        scorer=_grades(benchmark, by_id, asking)(),
        epochs=asking.epochs,
        name=benchmark.name,
        metadata={"mode": asking.mode},
    )


def seed_of(seed: int, benchmark: str, question: str, epoch: int) -> int:
    """The seed from which one question is sampled one time."""
    return (seed * 1_000_003 + zlib.crc32(f"{benchmark}/{question}/{epoch}".encode())) % (1 << 53)


def _asks(benchmark: str, asking: Asking) -> Callable[[], Solver]:
    @solver(name="ask")
    def build_solver() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            name, epoch = str(state.sample_id), state.epoch - 1
            known = asking.known(name, epoch)
            if known is not None:
                state.output = ModelOutput.from_content(str(state.model), known.text)
                return state
            return await generate(state, seed=seed_of(asking.seed, benchmark, name, epoch))

        return solve

    return build_solver


def _grades(benchmark: Benchmark, by_id: Mapping[str, Question], asking: Asking) -> Callable[[], Scorer]:
    @scorer(metrics=[accuracy(), stderr()], name="right")
    def build_scorer() -> Scorer:
        at_once = CapacityLimiter(_GRADERS)

        async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 (inspect's signature)
            name, epoch = str(state.sample_id), state.epoch - 1
            known = asking.known(name, epoch)
            if known is not None:
                return Score(value=known.right, answer=known.answer, explanation="from an earlier start of this run")
            question = by_id[name]
            answer = answer_of(state.output)
            verdict = await to_thread.run_sync(benchmark.grade, question, answer.answer, limiter=at_once)
            sample = graded(benchmark.name, question, answer, verdict, asking.mode, epoch)
            asking.on_finish(sample)
            told = {name: value for name, value in answer.to_json().items() if name != "text"}
            return Score(value=sample.right, answer=sample.answer, explanation=verdict.why or None, metadata=told)

        return score

    return build_scorer


def answer_of(output: ModelOutput) -> Answer:
    """The answer in an output; of a provider that is not ours, all tokens are one chain."""
    told = (output.metadata or {}).get("answer")
    if isinstance(told, dict):
        return Answer(**told)
    total = output.usage.output_tokens if output.usage is not None else 0
    return Answer(
        text=output.completion,
        answer=output.completion,
        finish_reason="stop" if output.stop_reason == "stop" else "length",
        malformed=False,
        forks=0,
        total_tokens=total,
        critical_path_tokens=total,
        seconds=output.time or 0.0,
    )


def _registered(benchmark: Benchmark) -> Callable[..., Task]:
    """The task by which ``inspect eval multiverse/NAME`` finds a benchmark."""

    def make(mode: Mode = "parallel", path: str | None = None, limit: int | None = None, seed: int = 7) -> Task:
        return build(benchmark, questions(benchmark, path=path, limit=limit, seed=seed), Asking(mode, benchmark.epochs, seed))

    make.__doc__ = f"{benchmark.title}, asked in a mode (parallel or sequential), from the hub or a local file."
    return inspect_task(name=benchmark.name)(make)


TASKS = {name: _registered(benchmark) for name, benchmark in BENCHMARKS.items()}
"""The benchmarks, as the entry point of this package shows them to inspect."""
