"""Benchmarks as inspect tasks: data set, solver and scorer. The scorer calls the graders of this package.

Needs inspect, so it is imported by inspect and by `run.evaluate` only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from anyio import CapacityLimiter, to_thread
from inspect_ai import Task
from inspect_ai import task as inspect_task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ..prompting import Mode, ask
from ..threads import usable_cores
from .benchmarks import BENCHMARKS, Benchmark, Question, questions
from .config import EvaluationConfig
from .graders.verdict import Verdict
from .journal import Key
from .response import Response
from .sample import Sample

_GRADERS = usable_cores()
"""Answers of one benchmark that are graded at once: a tested program may use a core and gigabytes of memory."""


@dataclass(frozen=True)
class TaskConfig:
    """How the questions of one benchmark are asked.

    Attributes:
        mode: which instruction ends each question.
        epochs: how often each is asked.
        seed: the seed of each question and epoch is derived from it.
        budgeted: an answer that was closed for a budget is graded like one that finished with `stop`.
        finished: samples that are not asked again.
        on_finish: called with each new sample.
        before_asking: called before each question; what it raises is the question's error.
        boxed: the model's instructions ask for a final answer within a box, so that questions need not.
    """

    mode: Mode
    epochs: int
    seed: int
    budgeted: bool = False
    finished: Mapping[Key, Sample] = field(default_factory=dict)
    on_finish: Callable[[Sample], None] = lambda _: None
    before_asking: Callable[[], None] = lambda: None
    boxed: bool = False


def build_task(benchmark: Benchmark, asked: list[Question], config: TaskConfig) -> Task:
    """A benchmark as an inspect task."""
    samples = [
        InspectSample(
            id=question.id, input=ask(question.asked(config.boxed), config.mode)[0]["content"], target=question.expected
        )
        for question in asked
    ]
    by_id = {question.id: question for question in asked}
    return Task(
        dataset=MemoryDataset(samples, name=benchmark.name),
        solver=_solver(benchmark.name, config)(),
        scorer=_scorer(benchmark, by_id, config)(),
        epochs=config.epochs,
        name=benchmark.name,
        metadata={"mode": config.mode},
    )


def sample_seed(seed: int, benchmark: str, question: str, epoch: int) -> int:
    """Sampling seed of one question in one epoch."""
    return (seed * 1_000_003 + zlib.crc32(f"{benchmark}/{question}/{epoch}".encode())) % (1 << 53)


def _solver(benchmark: str, config: TaskConfig) -> Callable[[], Solver]:
    @solver(name="ask")
    def build_solver() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            key = _key(benchmark, state)
            if key in config.finished:
                state.output = ModelOutput.from_content(str(state.model), config.finished[key].text)
                return state
            config.before_asking()
            return await generate(state, seed=sample_seed(config.seed, *key))

        return solve

    return build_solver


def _scorer(benchmark: Benchmark, by_id: Mapping[str, Question], config: TaskConfig) -> Callable[[], Scorer]:
    @scorer(metrics=[accuracy(), stderr()], name="right")
    def build_scorer() -> Scorer:
        limiter = CapacityLimiter(_GRADERS)

        async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 (inspect's signature)
            key = _key(benchmark.name, state)
            if key in config.finished:
                sample = config.finished[key]
                return Score(value=sample.right, answer=sample.answer, explanation="from an earlier start of this run")
            question = by_id[str(state.sample_id)]
            response = response_of(state.output)
            given = benchmark.given(response.answer, response.whole)
            verdict = await to_thread.run_sync(benchmark.grade, question, given, limiter=limiter)
            sample = make_sample(key, question, response, verdict, config)
            config.on_finish(sample)
            measured = {name: value for name, value in asdict(response).items() if name not in ("text", "content")}
            return Score(value=sample.right, answer=sample.answer, explanation=verdict.why or None, metadata=measured)

        return score

    return build_scorer


def _key(benchmark: str, state: TaskState) -> Key:
    return benchmark, str(state.sample_id), state.epoch - 1


def make_sample(key: Key, question: Question, response: Response, verdict: Verdict, config: TaskConfig) -> Sample:
    """The graded sample. Wrong whatever the verdict, unless the response finished with `stop` or for the budget of the run."""
    task, name, epoch = key
    ended = response.finish_reason == "stop" or (config.budgeted and response.finish_reason == "budget")
    measured = {**asdict(response), "answer": verdict.answer or response.answer, "right": ended and verdict.right}
    del measured["content"], measured["cached_tokens"]  # the end of the text, and what single questions have none of
    return Sample(task, name, epoch, config.mode, question.text, question.expected, **measured)


def response_of(output: ModelOutput) -> Response:
    """The response in a model's output. Of a provider that is not of this package, all tokens count as one chain."""
    measured = (output.metadata or {}).get("answer")
    if isinstance(measured, dict):
        # Logs of earlier versions do not count steps.
        return Response(**{"critical_path_steps": measured["critical_path_tokens"], **measured})
    total = output.usage.output_tokens if output.usage is not None else 0
    return Response(
        text=output.completion,
        answer=output.completion,
        finish_reason="stop" if output.stop_reason == "stop" else "length",
        malformed=False,
        forks=0,
        total_tokens=total,
        critical_path_tokens=total,
        critical_path_steps=total,
        seconds=output.time or 0.0,
    )


def _registered(benchmark: Benchmark) -> Callable[..., Task]:
    """The task that ``inspect eval multiverse/NAME`` runs."""

    def make(mode: Mode = "parallel", path: str | None = None, limit: int | None = None, seed: int = 7) -> Task:
        data = {} if path is None else {benchmark.name: path}
        config = EvaluationConfig((benchmark.name,), limit=limit, seed=seed, data=data)
        return build_task(benchmark, questions(benchmark, config), TaskConfig(mode, benchmark.epochs, seed))

    make.__doc__ = f"{benchmark.title}, asked in a mode (parallel or sequential), from the hub or a local file."
    return inspect_task(name=benchmark.name)(make)


TASKS = {name: _registered(benchmark) for name, benchmark in BENCHMARKS.items()}
"""The benchmarks by name, for inspect's entry point of this package."""
