"""Whole evaluations: every benchmark in process and through a live server, and a run that is killed on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
pytest.importorskip("math_verify", reason="the extra [eval] is not installed")
pytest.importorskip("langdetect", reason="the extra [eval] is not installed")

from multiverse import LLM
from multiverse.errors import DataError
from multiverse.evaluation.benchmarks import BENCHMARKS
from multiverse.evaluation.providers import at_server, in_process
from multiverse.evaluation.run import EvaluationError, Progress, Settings, close, evaluate
from multiverse.evaluation.sample import SAMPLES, Run, Sample, read_run
from multiverse.evaluation.summary import summarise
from tests.evaluation.endpoint import Endpoint
from tests.evaluation.endpoint import serving as serving_theirs
from tests.evaluation.rows import RIGHT, ROWS, write
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
    settings = Settings(NAMES, data=data, limit=1, epochs=1, max_tokens=8)
    heard: list[Sample] = []
    api = in_process("mini", mini)
    multiverse, zero = evaluate(
        api, "mini", settings, tmp_path / "out", prompts=("multiverse", "zero"), progress=Progress(finish=heard.append)
    )
    close(api)
    for run, mode in ((multiverse, "parallel"), (zero, "sequential")):
        assert run == read_run(tmp_path / "out" / str(run.settings["prompt"]))
        assert Counter(sample.task for sample in run.samples) == dict.fromkeys(NAMES, 1)
        assert {sample.mode for sample in run.samples} == {mode}
        assert all(0 < sample.total_tokens <= 8 and sample.seconds > 0 for sample in run.samples)
        assert {sample.finish_reason for sample in run.samples} <= {"length", "stop", "budget"}
        assert [line.benchmark for line in summarise(run)] == list(NAMES)
    assert len(heard) == 2 * len(NAMES)
    assert list((tmp_path / "out" / "zero" / "inspect").glob("*.eval"))


def test_every_benchmark_through_a_server(mini: LLM, data: dict[str, str], tmp_path: Path) -> None:
    with serving(mini) as site:
        run = served(site, Settings(NAMES, data=data, limit=2, epochs=1, max_tokens=12), tmp_path / "out")
    assert Counter(sample.task for sample in run) == dict.fromkeys(NAMES, 2)
    assert all(0 < sample.total_tokens <= 12 for sample in run)


def served(site: Site, settings: Settings, out: Path) -> tuple[Sample, ...]:
    api = at_server(site.runner.model_name, f"{site.url}/v1")
    try:
        return evaluate(api, site.url, settings, out)[0].samples
    finally:
        close(api)


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


def ask(theirs: Endpoint, settings: Settings, out: Path, **options: Any) -> Run:
    api = at_server("their-model", f"{theirs.url}/v1")
    try:
        return evaluate(api, "theirs", settings, out, **options)[0]
    finally:
        close(api)


def test_right_answers_are_right(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    run = ask(theirs, Settings(tuple(ROWS), data=data), tmp_path / "out")
    assert all(sample.right for sample in run.samples), [sample for sample in run.samples if not sample.right]
    # The paper's settings: eight samples on AIME, one elsewhere, each sampled from a seed of its own.
    assert Counter(sample.task for sample in run.samples) == {name: 16 if "aime" in name else 2 for name in ROWS}
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in theirs.bodies} == {(0.6, 0.95, 32768)}
    assert len({body["seed"] for body in theirs.bodies}) == len(theirs.bodies) == 40
    assert all(question.endswith("Think step by step and in parallel before answering.") for question in theirs.questions)


def test_nothing_is_asked_twice(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(("aime25", "math500"), data={name: data[name] for name in ("aime25", "math500")})
    first = ask(theirs, settings, tmp_path)
    again = ask(theirs, settings, tmp_path)
    assert again.samples == first.samples
    assert len(theirs.bodies) == len(first.samples) == 18


def test_what_could_not_be_asked_is_told_and_asked_again(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(("math500",), data={"math500": data["math500"]})
    theirs.refuse = (400,)
    with pytest.raises(EvaluationError, match=r"1 of 2 answers could not be had .*not now"):
        ask(theirs, settings, tmp_path, concurrency=1)
    assert len(read_run(tmp_path / "multiverse").samples) == 1
    assert len(ask(theirs, settings, tmp_path).samples) == 2
    assert len(theirs.bodies) == 3


def test_answers_to_other_questions_are_not_taken(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(("math500",), data={"math500": data["math500"]})
    ask(theirs, settings, tmp_path / "out")
    path = Path(data["math500"])
    path.write_text(path.read_text().replace("half", "twice"))
    with pytest.raises(DataError, match="answers to other questions of math500"):
        ask(theirs, settings, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(("nope",)), "no benchmark 'nope'"),
        (Settings(("chain",), data={"math500": "x.jsonl"}), "data for math500, which is not asked"),
    ],
)
def test_bad_settings(settings: Settings, told: str, theirs: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        ask(theirs, settings, tmp_path)


def test_killed_on_the_way(theirs: Endpoint, data: dict[str, str], tmp_path: Path) -> None:
    """`kill -9` after a few answers; started again, what was finished is not asked again, and nothing is missing."""
    theirs.delay = 0.15
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "multiverse", "eval", "aime24", "math500", "--server", theirs.url, "--out", str(out)),
        *("--data", f"aime24={data['aime24']}", "--data", f"math500={data['math500']}", "--concurrency", "2", "--json"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = out / "multiverse" / SAMPLES
    deadline = time.monotonic() + 120
    while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") < 5):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it came to its end"
    whole = lines.read_bytes().rpartition(b"\n")[0].splitlines()
    finished = {(sample["id"], sample["epoch"]) for sample in map(json.loads, whole)}
    assert 5 <= len(finished) < 18
    before = Counter((body["messages"][0]["content"], body["seed"]) for body in theirs.bodies)

    theirs.delay = 0
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = {line["benchmark"]: line["answers"] for line in json.loads(done.stdout)["results"]}
    assert answers == {"aime24": 16, "math500": 2}
    after = Counter((body["messages"][0]["content"], body["seed"]) for body in theirs.bodies) - before
    twice = set(before) & set(after)
    # What was on its way when it was killed is asked again; of that there were no more than were in flight.
    assert len(twice) <= 2
    assert len(after) == 18 - len(finished)
    assert len(theirs.bodies) == 18 + len(before) - len(finished)


def test_standard_errors_are_clustered() -> None:
    def one(id: str, epoch: int, right: bool) -> Sample:  # noqa: A002
        return Sample("t", id, epoch, "parallel", "", "", "", "", right, "stop", False, 0, 4, 2, 1.0)

    def stderr(samples: list[Sample]) -> float:
        (line,) = summarise(Run("run", "model", {}, "machine", "2026-11-27", samples=tuple(samples)))
        return line.stderr

    same = [one(name, epoch, name == "a") for name in "ab" for epoch in range(8)]
    # Two questions, one always right and one never: the sixteen answers are worth two.
    assert stderr(same) == pytest.approx((0.5 / 2) ** 0.5)
    assert stderr(same[:8]) == 0, "of a single question nothing can be said"
    assert same[0].parallelism == 2
