"""Budgets: a sweep of evaluations, what is compared, and that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")

from multiverse import LLM, SamplingParams
from multiverse.errors import DataError
from multiverse.evaluation.benchmarks import Question
from multiverse.evaluation.budget import POINTS, System, check_budgets, curves, sweep
from multiverse.evaluation.budget_report import write_budget
from multiverse.evaluation.config import EvaluationConfig
from multiverse.evaluation.providers import in_process
from multiverse.evaluation.run import Progress
from multiverse.evaluation.sample import RUN, SAMPLES, Run, Sample, read_run, write_run
from multiverse.prompting import Mode
from multiverse.structure import Block, Document
from multiverse.tasks import generate
from tests.cli.scripted import scripted_llm
from tests.evaluation.samples import run, sample

# inspect is behind the newest release of a library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")

PARALLEL = Document(("Two.", Block(("a", "b"), (("1+2=3.",), ("4+5=9.",)), "3+9=12.")), "Answer: 12")
SEQUENTIAL = Document(("1+2=3. 4+5=9. 3+9=12.",), "Answer: 12")
PROBLEM = next(problem for problem in generate("chain", 999, seed=1) if problem.answer == "12")
SETS = {
    task: [Question(str(number), f"{task} {number}?", "12", {"problem": PROBLEM}) for number in range(2)]
    for task in ("worksheet", "chain")
}
CONFIG = EvaluationConfig(("worksheet", "chain"), SamplingParams(temperature=0), repeats=2, seed=3)
BUDGETS = (40, 400)
SAMPLES_OF_A_POINT = 8


@pytest.fixture(scope="module")
def llm(model_folders: dict[str, Path]) -> LLM:
    """A model that knows the answer, in both modes."""
    return scripted_llm(model_folders["qwen3"], lambda prompt: PARALLEL if "in parallel" in prompt else SEQUENTIAL)


def system(llm: LLM, mode: Mode = "parallel") -> System:
    return System(mode, "tiny", mode, lambda: in_process("tiny", llm))


def never() -> Any:
    raise AssertionError("there was nothing left to ask")


def measure(system: System, out: Path, config: EvaluationConfig = CONFIG, progress: Progress | None = None) -> dict[int, Run]:
    return sweep(system, config, BUDGETS, out, sets=SETS, progress=progress)


# ---- running


def test_points_are_runs_under_their_budget(llm: LLM, tmp_path: Path) -> None:
    heard: list[Sample] = []
    tight, wide = measure(system(llm), tmp_path, progress=Progress(finish=heard.append)).values()
    assert len(heard) == 2 * SAMPLES_OF_A_POINT
    assert all(one.critical_path_tokens <= 40 for one in tight.samples)
    assert {one.finish_reason for one in wide.samples} == {"stop"}
    assert all(one.right for one in wide.samples)
    assert all(one.forks == 1 for one in wide.samples)
    assert {(one.task, one.id, one.epoch) for one in wide.samples} == {
        (task, number, epoch) for task in SETS for number in ("0", "1") for epoch in (0, 1)
    }
    assert read_run(tmp_path / POINTS / "parallel-400") == wide
    assert wide.settings["bounds"] == {"max_critical_path_tokens": 400}
    assert wide.settings["budget"] == 400


def test_a_finished_point_is_not_run_again(llm: LLM, tmp_path: Path) -> None:
    first = measure(system(llm), tmp_path)
    begun: list[tuple[int, int]] = []
    progress = Progress(begin=lambda _name, _mode, total, done: begun.append((total, len(done))))
    again = measure(system(llm)._replace(open_api=never), tmp_path, progress=progress)
    assert [run.samples for run in again.values()] == [run.samples for run in first.values()]
    assert begun == [(4, 4)] * 4  # the bar of a resumed run begins where it was


def test_a_point_that_was_killed_is_resumed(llm: LLM, tmp_path: Path) -> None:
    whole = measure(system(llm), tmp_path)[400]
    folder = tmp_path / POINTS / "parallel-400"
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    (folder / SAMPLES).write_bytes(b"".join(lines[:5]) + lines[5][:40])  # killed while it wrote the sixth
    heard: list[Sample] = []
    resumed = measure(system(llm), tmp_path, progress=Progress(finish=heard.append))[400]
    assert len(heard) == 3
    texts = [[(one.task, one.id, one.epoch, one.text) for one in of.samples] for of in (resumed, whole)]
    assert texts[0] == texts[1]


def test_a_folder_of_other_settings_is_refused(llm: LLM, tmp_path: Path) -> None:
    measure(system(llm), tmp_path)
    with pytest.raises(DataError, match="seed = 3, and this one has 4"):
        measure(system(llm), tmp_path, replace(CONFIG, seed=4))
    with pytest.raises(DataError, match="holds a run with model"):
        measure(system(llm)._replace(model="other"), tmp_path)


def test_a_folder_of_an_earlier_version_is_refused(llm: LLM, tmp_path: Path) -> None:
    settings = {"families": ["chain"], "n": 2, "mode": "parallel", "sampling": {"max_critical_path_tokens": 40}}
    write_run(tmp_path / POINTS / "parallel-40", run("parallel-40", [sample(0, True)], settings=settings))
    with pytest.raises(DataError, match="parallel-40 was written by an earlier version of this command: choose another folder"):
        measure(system(llm), tmp_path)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [((), "not valid"), ((64, 32), "smallest first"), ((0, 32), "not valid"), ((5000,), "never reached with max_tokens=2048")],
)
def test_bad_budgets(budgets: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_budgets(budgets, CONFIG)


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


def test_nothing_in_common_is_refused() -> None:
    one = side(lambda *_: True)
    with pytest.raises(DataError, match="no budget in common"):
        curves(("a", "b"), one, side(lambda *_: True, budgets=(7,)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="0 questions in common"):
        curves(("a", "b"), one, side(lambda *_: True, task="other"))  # type: ignore[arg-type]


def test_the_files_of_a_comparison(llm: LLM, tmp_path: Path) -> None:
    systems = system(llm), system(llm, "sequential")
    first, second = (measure(one, tmp_path) for one in systems)
    runs = [*first.values(), *second.values()]
    write_budget(curves(("parallel", "sequential"), first, second), systems, CONFIG, runs, tmp_path)
    text = (tmp_path / "budget.md").read_text()
    assert "| 400 | [100.0 ± 0.0](points/parallel-400/samples.jsonl) |" in text
    assert (tmp_path / "points/parallel-400" / RUN).is_file()
    values = json.loads((tmp_path / "budget.json").read_text())
    assert values["budgets"] == [40, 400]
    assert values["points"]["sequential"][1]["right"]["mean"] == 1
    assert (values["date"], values["machine"]) == (runs[0].date, runs[0].machine)
    assert (values["questions"], values["samples"]) == (4, 8)
    assert values["mean_gain"]["questions"] == 4
    assert set(values["task_gains"]) == {"worksheet", "chain"}
    assert "4 questions (worksheet, chain), 8 samples" in (tmp_path / "budget.svg").read_text()
