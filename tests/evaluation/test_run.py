"""Whole evaluations: every benchmark in process and through a live server, and a run that is killed on the way."""

from __future__ import annotations

import json
import math
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
pytest.importorskip("math_verify", reason="the extra [eval] is not installed")
pytest.importorskip("langdetect", reason="the extra [eval] is not installed")

from multiverse import LLM, SamplingParams
from multiverse.errors import ConfigError, DataError
from multiverse.evaluation.benchmarks import BENCHMARKS, Question
from multiverse.evaluation.config import FOLDERS, EvaluationConfig
from multiverse.evaluation.graders.verdict import Verdict
from multiverse.evaluation.inspecting import TaskConfig, make_sample
from multiverse.evaluation.providers import in_process
from multiverse.evaluation.report import report
from multiverse.evaluation.response import Response
from multiverse.evaluation.run import EvaluationError, Progress, evaluate
from multiverse.evaluation.sample import SAMPLES, Run, Sample, read_run
from multiverse.evaluation.server import at_server
from multiverse.prompting import Mode
from multiverse.structure import MULTIVERSE, Document
from multiverse.tasks import generate
from tests.cli.scripted import scripted_llm
from tests.evaluation.endpoint import Endpoint
from tests.evaluation.endpoint import serving as serving_theirs
from tests.evaluation.rows import RIGHT, ROWS, write
from tests.forks import forks
from tests.serving.conftest import Site, serving

NAMES = tuple(BENCHMARKS)
# inspect is behind the newest release of a library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def mini() -> LLM:
    return LLM(kv_memory=64 << 20)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    return {name: str(write(tmp_path, name)) for name in ROWS}


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing may be left in the user's home, nor where the command was called."""
    home, here = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("here")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert [path for path in [*home.rglob("*"), *here.rglob("*")] if path.is_file()] == []


def test_every_benchmark_in_process(mini: LLM, data: dict[str, str], tmp_path: Path) -> None:
    config = EvaluationConfig(NAMES, SamplingParams(max_tokens=8), data=data, limit=1, repeats=1)
    heard: list[Sample] = []
    for mode, folder in FOLDERS.items():
        out = tmp_path / folder
        run = evaluate(lambda: in_process("mini", mini), "mini", config, out, mode, progress=Progress(finish=heard.append))
        assert run == read_run(out)
        assert Counter(sample.task for sample in run.samples) == dict.fromkeys(NAMES, 1)
        assert {sample.mode for sample in run.samples} == {mode}
        assert all(0 < sample.total_tokens <= 8 and sample.seconds > 0 for sample in run.samples)
        assert {sample.finish_reason for sample in run.samples} <= {"length", "stop"}
        assert [group.task for group in report([run]).groups] == list(NAMES)
        assert list((out / "inspect").glob("*.eval"))
    assert len(heard) == 2 * len(NAMES)


def test_every_benchmark_through_a_server(mini: LLM, data: dict[str, str], tmp_path: Path) -> None:
    with serving(mini) as site:
        run = served(
            site, EvaluationConfig(NAMES, SamplingParams(max_tokens=12), data=data, limit=2, repeats=1), tmp_path / "out"
        )
    assert Counter(sample.task for sample in run) == dict.fromkeys(NAMES, 2)
    assert all(0 < sample.total_tokens <= 12 for sample in run)


def served(site: Site, config: EvaluationConfig, out: Path) -> tuple[Sample, ...]:
    return evaluate(lambda: at_server(site.service.model_name, f"{site.url}/v1"), site.url, config, out).samples


def answering(question: str) -> str:
    """The right answer to each made-up question."""
    asked = question.partition(" Put the final")[0]
    for name, rows in ROWS.items():
        for row, right in zip(rows, RIGHT[name], strict=True):
            text = (
                row.get("problem") or row.get("Problem") or row.get("Question") or row.get("prompt") or row["question_content"]
            )
            if text in asked:
                return right
    raise AssertionError(question)


@pytest.fixture
def theirs() -> Iterator[Endpoint]:
    with serving_theirs(Endpoint(answering)) as endpoint:
        yield endpoint


def ask(theirs: Endpoint, config: EvaluationConfig, out: Path, **options: Any) -> Run:
    return evaluate(lambda: at_server("their-model", f"{theirs.url}/v1"), "theirs", config, out, **options)


def test_right_answers_are_right(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    run = ask(theirs, EvaluationConfig(tuple(ROWS), data=data), tmp_path / "out")
    assert all(sample.right for sample in run.samples), [sample for sample in run.samples if not sample.right]
    # The paper's settings: eight samples on AIME, one elsewhere, each sampled from a seed of its own.
    assert Counter(sample.task for sample in run.samples) == {name: 16 if "aime" in name else 2 for name in ROWS}
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in theirs.bodies} == {(0.6, 0.95, 32768)}
    assert len({body["seed"] for body in theirs.bodies}) == len(theirs.bodies) == 40
    assert all(question.endswith("Think step by step and in parallel before answering.") for question in theirs.questions)


def test_nothing_is_asked_twice(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    config = EvaluationConfig(("aime25", "math500"), data={name: data[name] for name in ("aime25", "math500")})
    theirs.delay = 0.02
    first = ask(theirs, config, tmp_path, concurrency=3)
    assert 1 < theirs.most <= 3  # the rest is asked as these end, and each is kept as it ends
    again = ask(theirs, config, tmp_path)
    assert again.samples == first.samples
    assert len(theirs.bodies) == len(first.samples) == 18


def test_failed_questions_are_reported_and_repeated(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    config = EvaluationConfig(("math500",), data={"math500": data["math500"]})
    theirs.refuse = (400,)
    with pytest.raises(EvaluationError, match=r"1 questions could not be asked .*not now"):
        ask(theirs, config, tmp_path, concurrency=1)
    assert len(read_run(tmp_path).samples) == 1
    assert len(ask(theirs, config, tmp_path).samples) == 2
    assert len(theirs.bodies) == 3


def test_answers_to_other_questions_are_not_taken(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    config = EvaluationConfig(("math500",), data={"math500": data["math500"]})
    ask(theirs, config, tmp_path / "out")
    path = Path(data["math500"])
    path.write_text(path.read_text().replace("half", "twice"))
    with pytest.raises(DataError, match="answers to other questions of math500"):
        ask(theirs, config, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvaluationConfig(("nope",)), "no benchmark 'nope'"),
        (EvaluationConfig(("chain",), data={"math500": "x.jsonl"}), "data was given for math500, which is not evaluated"),
    ],
)
def test_bad_settings(config: EvaluationConfig, message: str, theirs: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        ask(theirs, config, tmp_path)


def test_a_killed_run_is_resumed(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    """`kill -9` after a few answers; started again, what was finished is not asked again, and nothing is missing."""
    theirs.delay = 0.15
    out, printed = tmp_path / "out", tmp_path / "printed"
    command = [
        *("multiverse", "eval", "aime24", "math500", "--server", theirs.url, "--out", str(out)),
        *("--data", f"aime24={data['aime24']}", "--data", f"math500={data['math500']}", "--concurrency", "2", "--json"),
    ]
    with forks(tmp_path, "multiverse.cli", "multiverse.evaluation.run", "multiverse.evaluation.server") as processes:
        process = processes.start(*command)
        lines = out / "multiverse" / SAMPLES
        deadline = time.monotonic() + 120
        while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") < 5):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it came to its end"
        whole = lines.read_bytes().rpartition(b"\n")[0].splitlines()
        finished = {(sample["id"], sample["epoch"]) for sample in map(json.loads, whole)}
        assert 5 <= len(finished) < 18
        before = Counter((body["messages"][0]["content"], body["seed"]) for body in theirs.bodies)

        theirs.delay = 0
        done = processes.start(*command, stdout=printed)
        assert done.wait() == 0, done.stderr
    answers = {line["benchmark"]: line["answers"] for line in json.loads(printed.read_text())["results"]}
    assert answers == {"aime24": 16, "math500": 2}
    after = Counter((body["messages"][0]["content"], body["seed"]) for body in theirs.bodies) - before
    twice = set(before) & set(after)
    # What was on its way when it was killed is asked again; of that there were no more than were in flight.
    assert len(twice) <= 2
    assert len(after) == 18 - len(finished)
    assert len(theirs.bodies) == 18 + len(before) - len(finished)


def test_sampling_parameters_that_inspect_has_no_name_for() -> None:
    sampling = SamplingParams(temperature=0, max_critical_path_tokens=90, top_k=3)
    config = EvaluationConfig(("chain",), sampling)
    assert config.limits == {"max_critical_path_tokens": 90, "top_k": 3}
    assert EvaluationConfig(("chain",), sampling, budget=60).limits == {"max_critical_path_tokens": 60, "top_k": 3}
    for refused in (SamplingParams(seed=1), SamplingParams(n=2)):
        with pytest.raises(ConfigError, match="set repeats and seed"):
            EvaluationConfig(("chain",), refused)


# ---- the project's own families, in process

FAMILY = EvaluationConfig(("worksheet",), SamplingParams(temperature=0), limit=8, seed=3)
PROBLEMS = generate("worksheet", 8, seed=3)


def write_solution(prompt: str) -> Document | str:
    """Right in parallel, right sequentially, wrong, breaking the grammar, right but not canonical; then again."""
    think = MULTIVERSE.think
    assert think is not None
    index = next(index for index, problem in enumerate(PROBLEMS) if problem.question in prompt)
    problem = PROBLEMS[index]
    return (
        problem.structured,
        problem.sequential,
        replace(problem.structured, answer="Answer: 100000"),
        f"{think.open}\nLet's see.{MULTIVERSE.outline.open}",
        f"{think.open} careless {think.close}\n\nAnswer: {problem.answer}",
    )[index % 5]


@pytest.fixture(scope="module")
def scripted(model_folders: dict[str, Path]) -> LLM:
    return scripted_llm(model_folders["qwen3"], write_solution)


def in_order(llm: LLM, config: EvaluationConfig, out: Path, mode: Mode = "parallel") -> list[Sample]:
    """The samples by number of the question."""
    run = evaluate(lambda: in_process("tiny", llm), "tiny", config, out, mode)
    return sorted(run.samples, key=lambda sample: int(sample.id))


def test_answers_are_graded_and_measured(scripted: LLM, tmp_path: Path) -> None:
    samples = in_order(scripted, FAMILY, tmp_path)
    assert [sample.right for sample in samples] == [True, True, False, False, True, True, True, False]
    assert [sample.malformed for sample in samples] == [False, False, False, True, True, False, False, False]
    assert [sample.forked for sample in samples] == [True, False, True, False, False, True, False, True]
    assert [sample.expected for sample in samples] == [problem.answer for problem in PROBLEMS]
    assert samples[1].parallelism == 1 < samples[0].parallelism
    (group,) = report([read_run(tmp_path)]).groups
    row = group.summary()
    assert (row["benchmark"], row["mode"], row["answers"]) == ("worksheet", "parallel", 8)
    assert (row["accuracy"], row["malformed"], row["forked"], row["cut_short"]) == (5 / 8, 2, 4 / 8, 0)
    assert row["stderr"] == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 7))
    assert row["total_tokens"] == pytest.approx(sum(sample.total_tokens for sample in samples) / 8)


@pytest.mark.parametrize(
    ("finish_reason", "budgeted", "right"),
    [
        ("stop", False, True),
        ("budget", False, False),
        ("budget", True, True),
        ("length", True, False),
        ("malformed", True, False),
    ],
)
def test_a_right_answer_counts_if_it_finished_with_stop_or_for_the_budget(
    finish_reason: str, budgeted: bool, right: bool
) -> None:
    response = Response("text", "7", finish_reason, finish_reason == "malformed", 0, 10, 10, 10, 1.0)
    config = TaskConfig("parallel", 1, 7, budgeted)
    question = Question("0", "What is 7?", "7")
    sample = make_sample(("chain", "0", 0), question, response, Verdict(True, "7"), config)
    assert (sample.right, sample.answer, sample.finish_reason) == (right, "7", finish_reason)
    assert not make_sample(("chain", "0", 0), question, response, Verdict(False, "7"), config).right


def test_each_question_has_its_own_seed_and_the_instruction_of_the_mode(
    scripted: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int | None] = []
    submit = scripted.engine.submit

    def note(prompt: list[int], params: SamplingParams, **options: Any) -> object:
        seeds.append(params.seed)
        asked.append(scripted.tokenizer.decode(prompt))
        return submit(prompt, params, **options)

    asked: list[str] = []
    monkeypatch.setattr(scripted.engine, "submit", note)
    config = replace(FAMILY, limit=3, sampling=SamplingParams(temperature=0, max_tokens=9), repeats=2)
    in_order(scripted, config, tmp_path / "a")
    assert len(set(seeds)) == 6
    assert all("in parallel before answering" in prompt for prompt in asked)
    in_order(scripted, config, tmp_path / "b", "sequential")
    assert sorted(map(str, seeds[6:])) == sorted(map(str, seeds[:6]))
    assert not any("in parallel" in prompt for prompt in asked[6:])


def test_standard_errors_are_clustered() -> None:
    def one(id: str, epoch: int, right: bool) -> Sample:  # noqa: A002
        return Sample("t", id, epoch, "parallel", "", "", "", "", right, "stop", False, 0, 4, 2, 2, 1.0)

    def stderr(samples: list[Sample]) -> float:
        (group,) = report([Run("run", "model", {}, "machine", "2026-11-27", samples=tuple(samples))]).groups
        return float(group.summary()["stderr"])

    same = [one(name, epoch, name == "a") for name in "ab" for epoch in range(8)]
    # Two questions, one always right and one never: the sixteen answers are worth two.
    assert stderr(same) == pytest.approx((0.5 / 2) ** 0.5)
    assert stderr(same[:8]) == 0, "of a single question nothing can be said"
    assert same[0].parallelism == 2
