"""Budgets: what counts, what is compared, and that nothing is run twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse import LLM, SamplingParams
from multiverse.errors import DataError
from multiverse.evaluation.answer import Answer
from multiverse.evaluation.budget import POINTS, Asked, Plan, System, curves, judge, measure, of_families
from multiverse.evaluation.budget_report import write_budget
from multiverse.evaluation.sample import RUN, SAMPLES, Sample, read_run
from multiverse.prompting import Mode
from multiverse.structure import Block, Document
from multiverse.tasks import generate
from tests.cli.scripted import scripted_llm
from tests.evaluation.samples import run, sample

PARALLEL = Document(("Two.", Block(("a", "b"), (("1+2=3.",), ("4+5=9.",)), "3+9=12.")), "Answer: 12")
SEQUENTIAL = Document(("1+2=3. 4+5=9. 3+9=12.",), "Answer: 12")
QUESTIONS = tuple(
    Asked(task, str(number), f"{task} {number}?", "12", lambda answer: answer == "12")
    for task in ("one", "other")
    for number in range(2)
)
PLAN = Plan(
    questions=QUESTIONS,
    budgets=(40, 400),
    params=SamplingParams(temperature=0),
    epochs=2,
    seed=3,
    description={"made": "up"},
    machine="a machine",
)


@pytest.fixture(scope="module")
def llm(model_folders: dict[str, Path]) -> LLM:
    """A model that knows the answer, in both modes."""
    return scripted_llm(model_folders["qwen3"], lambda prompt: PARALLEL if "in parallel" in prompt else SEQUENTIAL)


def system(llm: LLM, mode: Mode = "parallel") -> System:
    return System(mode, "tiny", mode, lambda: llm)


def never() -> LLM:
    raise AssertionError("there was nothing left to run")


# ---- running


def test_points_are_runs_under_their_budget(llm: LLM, tmp_path: Path) -> None:
    heard: list[Sample] = []
    tight, wide = measure(system(llm), PLAN, tmp_path, heard.append).values()
    assert len(heard) == 2 * PLAN.size == 16
    assert all(one.critical_path_tokens <= 40 for one in tight.samples)
    assert {one.finish_reason for one in wide.samples} == {"stop"}
    assert all(one.right for one in wide.samples)
    assert all(one.forks == 1 for one in wide.samples)
    assert [(one.task, one.id, one.epoch) for one in wide.samples[:3]] == [
        ("one", "0", 0),
        ("one", "0", 1),
        ("one", "1", 0),
    ]
    assert read_run(tmp_path / POINTS / "parallel-400") == wide
    assert wide.settings["sampling"]["max_critical_path_tokens"] == 400


def test_a_finished_point_is_not_run_again(llm: LLM, tmp_path: Path) -> None:
    first = measure(system(llm), PLAN, tmp_path)
    heard: list[Sample] = []
    again = measure(system(llm)._replace(load=never), PLAN, tmp_path, heard.append)
    assert again == first
    assert len(heard) == 16  # the bar of a resumed run begins where it was


def test_a_point_that_was_killed_goes_on_where_it_stopped(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, budgets=(400,))
    whole = measure(system(llm), plan, tmp_path / "whole")[400]
    folder = tmp_path / "cut" / POINTS / "parallel-400"
    measure(system(llm), plan, tmp_path / "cut")
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES).write_bytes(b"".join(lines[:5]) + lines[5][:40])  # killed while it wrote the sixth
    asked: list[int] = []
    chat = llm.chat
    monkeypatch.setattr(
        llm, "chat", lambda prompts, *rest, **named: asked.append(len(prompts)) or chat(prompts, *rest, **named)
    )
    resumed = measure(system(llm), plan, tmp_path / "cut")[400]
    assert asked == [3]
    texts = [[(one.task, one.id, one.epoch, one.text) for one in of.samples] for of in (resumed, whole)]
    assert texts[0] == texts[1]


def test_an_interruption_leaves_what_is_finished(llm: LLM, tmp_path: Path) -> None:
    def stop(_: Sample) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(system(llm), PLAN, tmp_path, stop)
    kept = read_run(tmp_path / POINTS / "parallel-40")
    assert len(kept.samples) == 1
    assert kept.seconds > 0
    assert len(measure(system(llm), PLAN, tmp_path)[40].samples) == PLAN.size


def test_a_folder_of_another_plan_is_refused(llm: LLM, tmp_path: Path) -> None:
    measure(system(llm), PLAN, tmp_path)
    with pytest.raises(DataError, match="seed = 3, and this one has 4"):
        measure(system(llm), replace(PLAN, seed=4), tmp_path)
    with pytest.raises(DataError, match="holds a run with model"):
        measure(system(llm)._replace(model="other"), PLAN, tmp_path)


def test_samples_are_drawn_anew_each_epoch_but_alike_in_each_run(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[list[int]] = []
    chat = llm.chat
    monkeypatch.setattr(
        llm, "chat", lambda prompts, each, **named: seeds.append([one.seed for one in each]) or chat(prompts, each, **named)
    )
    for name in ("a", "b"):
        measure(system(llm), PLAN, tmp_path / name)
    assert len(set(seeds[0])) == PLAN.size
    assert seeds[0] == seeds[1] == seeds[2] == seeds[3]


def test_the_project_s_own_questions() -> None:
    questions = of_families(["nested", "chain"], 3, seed=5)
    problems = generate("nested", 3, seed=5, split="test")
    assert [(one.task, one.id) for one in questions[2:4]] == [("nested", "2"), ("chain", "0")]
    assert [one.question for one in questions[:3]] == [problem.question for problem in problems]
    assert questions[0].right(problems[0].answer)
    assert not questions[0].right("no number")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budgets": ()}, "at least one"),
        ({"budgets": (64, 32)}, "smallest first"),
        ({"budgets": (0, 32)}, "not valid"),
        ({"budgets": (5000,)}, "never reached with max_tokens=2048"),
        ({"epochs": 0}, "at least one"),
    ],
)
def test_bad_plans(changes: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named):
        replace(PLAN, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("reason", "counts"), [("stop", True), ("budget", True), ("length", False), ("malformed", False)])
def test_an_answer_that_the_budget_called_for_counts(reason: str, counts: bool) -> None:
    answer = Answer("text", "7", reason, False, 0, 10, 10, 1.0)
    asked = Asked("t", "0", "q", "7", lambda text: text == "7")
    assert judge(asked, 0, "parallel", answer).right == counts
    assert not judge(asked, 0, "parallel", replace(answer, answer="8")).right


# ---- comparing

First = Callable[[int, int], bool]


def side(right: First, budgets: tuple[int, ...] = (100, 200), task: str = "t") -> dict[int, object]:
    return {
        budget: run(str(budget), [sample(number, right(budget, number), task=task) for number in range(20)])
        for budget in budgets
    }


def test_gains_are_paired_by_question_and_averaged_over_budgets() -> None:
    better = side(lambda budget, number: number < (15 if budget == 100 else 20))
    worse = side(lambda _, number: number < 10, budgets=(100, 200, 400))
    made = curves(("better", "worse"), better, worse)  # type: ignore[arg-type]
    assert [point.budget for point in made.points[0]] == [100, 200]
    assert [gain.mean for gain in made.gains] == [0.25, 0.5]
    assert made.mean_gain.mean == pytest.approx(0.375)
    assert made.mean_gain.questions == 20
    assert made.mean_gain.p == 2**-9  # ten questions gained, none lost
    assert made.task_gains == {"t": made.mean_gain}
    # Averaged over budgets first: five questions gain 1, five a half, ten nothing.
    assert made.mean_gain.high - made.mean_gain.low == pytest.approx(2 * 2.093 * 0.4552 / 20**0.5, rel=0.1)


def test_nothing_in_common_is_told() -> None:
    one = side(lambda *_: True)
    with pytest.raises(DataError, match="no common budget"):
        curves(("a", "b"), one, side(lambda *_: True, budgets=(7,)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="0 questions in common"):
        curves(("a", "b"), one, side(lambda *_: True, task="other"))  # type: ignore[arg-type]


def test_the_files_of_a_comparison(llm: LLM, tmp_path: Path) -> None:
    systems = system(llm), system(llm, "sequential")
    first, second = (measure(one, PLAN, tmp_path) for one in systems)
    runs = [*first.values(), *second.values()]
    write_budget(curves(("parallel", "sequential"), first, second), systems, PLAN, runs, tmp_path)
    text = (tmp_path / "budget.md").read_text()
    assert "| 400 | [100.0 ± 0.0](points/parallel-400/samples.jsonl) |" in text
    assert (tmp_path / "points/parallel-400" / RUN).is_file()
    values = json.loads((tmp_path / "budget.json").read_text())
    assert values["budgets"] == [40, 400]
    assert values["points"]["sequential"][1]["right"]["mean"] == 1
    assert (values["date"], values["machine"], values["questions"]) == (runs[0].date, "a machine", 4)
    assert values["mean_gain"]["questions"] == 4
    assert set(values["task_gains"]) == {"one", "other"}
    assert "a machine" in (tmp_path / "budget.svg").read_text()
