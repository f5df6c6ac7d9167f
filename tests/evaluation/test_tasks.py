"""Scoring: right, wrong, malformed and cut short, each counted as what it is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse import SamplingParams
from multiverse.evaluation.sample import Sample
from multiverse.evaluation.tasks import TaskSet, evaluate, judge
from multiverse.structure import MULTIVERSE, Document
from multiverse.tasks import Problem
from tests.cli.scripted import Write, scripted_llm

TASKS = TaskSet("worksheet", 8, seed=3)
GREEDY = SamplingParams(temperature=0)


def writing(problems: list[Problem]) -> Write:
    """Right in parallel, right in a line, wrong, breaking the grammar, right but not canonical; then again."""
    think = MULTIVERSE.think
    assert think is not None

    def write(prompt: str) -> Document | str:
        index = next(index for index, problem in enumerate(problems) if problem.question in prompt)
        problem = problems[index]
        return (
            problem.structured,
            problem.sequential,
            replace(problem.structured, answer="Answer: 100000"),
            f"{think.open}\nLet's see.{MULTIVERSE.outline.open}",
            f"{think.open} careless {think.close}\n\nAnswer: {problem.answer}",
        )[index % 5]

    return write


@pytest.fixture(scope="module")
def folder(model_folders: dict[str, Path]) -> Path:
    return model_folders["qwen3"]


def test_report(folder: Path) -> None:
    llm = scripted_llm(folder, writing(TASKS.problems()))
    heard: list[Sample] = []
    report = evaluate(llm, TASKS, GREEDY, heard.append)
    right = [sample.right for sample in report.samples]
    assert right == [True, True, False, False, True, True, True, False]
    assert [sample.malformed for sample in report.samples] == [False, False, False, True, True, False, False, False]
    assert [sample.forked for sample in report.samples] == [True, False, True, False, False, True, False, True]
    assert (report.accuracy, report.malformed, report.forked) == (5 / 8, 2, 4 / 8)
    assert report.stderr == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 8))
    assert report.total_tokens == pytest.approx(sum(sample.total_tokens for sample in report.samples) / 8)
    assert report.samples[1].parallelism == 1 < report.samples[0].parallelism
    assert 1 < report.parallelism < report.samples[0].parallelism + 1
    assert (report.model, report.n, report.seed) == (str(folder), 8, 3)
    assert report.seconds > 0
    assert sorted(heard, key=lambda sample: sample.question) == sorted(report.samples, key=lambda sample: sample.question)
    assert [sample.expected for sample in report.samples] == [problem.answer for problem in TASKS.problems()]
    assert "samples" not in report.summary()


def test_cut_short_is_wrong_and_not_malformed(folder: Path) -> None:
    llm = scripted_llm(folder, writing(TASKS.problems()))
    report = evaluate(llm, replace(TASKS, n=2), replace(GREEDY, max_tokens=30))
    assert (report.accuracy, report.malformed) == (0, 0)
    assert {sample.finish_reason for sample in report.samples} == {"length"}


def test_right_answer_needs_an_end(folder: Path) -> None:
    llm = scripted_llm(folder, writing(TASKS.problems()))
    problem = TASKS.problems()[0]
    generation = llm.generate(f"{problem.question}", GREEDY)[0]
    assert judge(problem, generation).right
    assert not judge(problem, replace(generation, finish_reason="length")).right


def test_each_question_is_sampled_from_its_own_seed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = scripted_llm(folder, writing(TASKS.problems()))
    seeds: list[int | None] = []
    submit = llm.engine.submit

    def note(prompt: list[int], params: SamplingParams, **options: bool) -> object:
        seeds.append(params.seed)
        return submit(prompt, params, **options)

    monkeypatch.setattr(llm.engine, "submit", note)
    for _ in range(2):
        evaluate(llm, replace(TASKS, n=3), replace(GREEDY, max_tokens=2))
    assert len(set(seeds[:3])) == 3
    assert seeds[:3] == seeds[3:]


def test_mode_sets_the_instruction(folder: Path) -> None:
    prompts: list[str] = []

    def write(prompt: str) -> Document:
        prompts.append(prompt)
        return Document(None, "Answer: 1")

    llm = scripted_llm(folder, write)
    evaluate(llm, replace(TASKS, n=1, mode="parallel"), GREEDY)
    evaluate(llm, replace(TASKS, n=1, mode="sequential"), GREEDY)
    assert ["in parallel" in prompt for prompt in prompts] == [True, False]


@pytest.mark.parametrize(
    ("tasks", "named"),
    [(TaskSet("worksheet", 0, 1), "n is 0"), (TaskSet("nope", 1, 1), "nope"), (TaskSet("chain", 1, 1, width=2), "width 2")],
)
def test_bad_task_sets(tasks: TaskSet, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tasks.problems()
