"""Distillation: which samples are kept, resumption, and the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from multiverse.cli import curate_distill
from multiverse.curation.client import Client
from multiverse.curation.config import DistillConfig, EndpointConfig
from multiverse.curation.distill import (
    Distiller,
    Question,
    check_independent,
    normalised,
    read_questions,
    rows,
    same_answer,
    whole_text,
)
from multiverse.curation.errors import EndpointError, RefusedError, ValidationError
from multiverse.curation.job import Job, Result
from multiverse.curation.types import Completion, Curated, Outcome, Rejected, Request, Trace
from multiverse.data import read
from multiverse.structure import MULTIVERSE, NPR, Block, Body, Document, render
from tests.curation.endpoint import Endpoint, Reply, completion, serving

QUESTION = "What is 4 times 5, and what is 3 plus 8, together?"


def document(*paths: str, answer: str = "Answer: 31", conclusion: str = "20+11=31.") -> Document:
    bodies: tuple[Body, ...] = tuple((path,) for path in paths)
    return Document((Block(tuple(f"part {n}" for n in range(len(paths))), bodies, conclusion),), answer)


GOOD = document("Four times five: 4*5 is 20 in the end.", "Three plus eight: 3+8 is 11 in the end.")
OTHER = document(
    "It is five and five and five and five, which makes twenty.", "Counting on from eight gives nine, ten, eleven."
)
THINK = MULTIVERSE.think
assert THINK is not None


def judged(*samples: Document | str | Completion, rules: DistillConfig | None = None, **parts: Any) -> list[Outcome]:
    """What becomes of these samples of one question."""
    answers = [
        Completion(render(one) if isinstance(one, Document) else one) if not isinstance(one, Completion) else one
        for one in samples
    ]

    async def ask(request: Request) -> Completion:
        return answers[request.attempt]

    async def all_of_them() -> list[Outcome]:
        distiller = Distiller(rules or DistillConfig(), **parts)
        return [await distiller.distil(row, ask) for row in rows([Question("q", QUESTION, "31")], len(answers))]

    return asyncio.run(all_of_them())


def reasons(*samples: Document | str | Completion, **parts: Any) -> list[str]:
    return ["" if isinstance(one, Curated) else one.reason for one in judged(*samples, **parts)]


# -- what stays --------------------------------------------------------------------------------------------------------


def test_valid_samples_are_kept_unchanged() -> None:
    (outcome,) = judged(GOOD)
    assert isinstance(outcome, Curated)
    assert outcome.document == outcome.refilled == GOOD
    assert outcome.trace.question == QUESTION
    assert outcome.trace.reasoning == ""
    assert outcome.attempts == {"sample": 1}


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Completion(render(GOOD), "length"), "cut short"),
        (render(GOOD).removesuffix(THINK.close + "\n\nAnswer: 31"), "malformed"),
        (render(GOOD).replace("2: part", "3: part"), "malformed"),
        ("31", "not parallel"),
        ("", "wrong answer"),
        (document("Four times five is 20.", "Three plus eight is 12.", answer="Answer: 32"), "wrong answer"),
        (Document(("4*5=20, 3+8=11, 20+11=31.",), "Answer: 31"), "not parallel"),
        (document("All of it, alone: 4*5=20, 3+8=11."), "not parallel"),
        (document("Four times  five is 20.", "four times five\nIS 20."), "same paths"),
        (document("Four times five is 20. " * 60, "And 11."), "hardly parallel"),
        (document("4*173 = 692 and a little more.", "Since it was 692, the rest is easily found."), "not independent"),
        ("x" * 200_000, "too long"),
    ],
)
def test_invalid_samples_are_rejected_with_a_reason(sample: Document | str | Completion, reason: str) -> None:
    (outcome,) = judged(sample)
    assert isinstance(outcome, Rejected)
    assert (outcome.stage, outcome.reason) == ("sample", reason)
    text = sample if isinstance(sample, str) else render(sample) if isinstance(sample, Document) else sample.text
    assert text[:20_000] in outcome.detail, "what was sampled can be looked at"


def test_repeated_samples_are_rejected() -> None:
    near = document(*(path[0] for path in GOOD.thinking[0].paths), conclusion="20+11 = 31.")  # type: ignore[index, union-attr]
    wrong = document("Four times five: 21.", "Three plus eight: 11.", answer="Answer: 32")
    assert reasons(wrong, GOOD, GOOD, near, OTHER, OTHER) == [
        "wrong answer",
        "",
        "duplicate",
        "near duplicate",
        "",
        "duplicate",
    ]
    assert reasons(GOOD, near, rules=DistillConfig(min_difference=0.0)) == ["", ""]


def test_the_judgement_is_the_same_in_any_order() -> None:
    """Rows that are worked on alone, backwards: each asks for those before it."""
    samples = [Completion(render(one)) for one in (GOOD, GOOD, OTHER, GOOD)]
    asked: list[int] = []

    async def ask(request: Request) -> Completion:
        asked.append(request.attempt)
        return samples[request.attempt]

    found: dict[int, str] = {}
    for row in reversed(list(rows([Question("q", QUESTION, "31")], 4))):
        distiller = Distiller(DistillConfig())
        outcome = asyncio.run(distiller.distil(row, ask))
        found[row.line] = "" if isinstance(outcome, Curated) else outcome.reason
    assert found == {1: "", 2: "duplicate", 3: "", 4: "duplicate"}
    assert asked == [0, 1, 2, 3, 0, 1, 2, 0, 1, 0]


def test_a_refused_sample_does_not_affect_others() -> None:
    async def ask(request: Request) -> Completion:
        if request.attempt == 0:
            raise RefusedError("no")
        return Completion(render(GOOD))

    first, second = rows([Question("q", QUESTION, "31")], 2)
    distiller = Distiller(DistillConfig())
    with pytest.raises(RefusedError):
        asyncio.run(distiller.distil(first, ask))
    assert isinstance(asyncio.run(distiller.distil(second, ask)), Curated)


def test_another_check_and_another_dialect() -> None:
    assert reasons(
        document("a is 20", "b is 11", answer="about thirty"), check=lambda _, right, given: right == "31" and "thirty" in given
    ) == [""]
    plain = Document((*(GOOD.thinking or ()), "Answer: 31"))
    assert reasons(render(plain, NPR), rules=DistillConfig(dialect="npr")) == [""]


def test_a_question_is_asked_once_and_with_its_instruction() -> None:
    asked = list(rows([Question("a", "A?", "1"), Question("b", "B?", "2"), Question("c", "A?", "1")], 2))
    assert [row.id for row in asked] == ["a/1", "a/2", "b/1", "b/2"]
    request = Distiller(DistillConfig(instruction="In parallel.")).request(asked[3], 2)
    assert request.messages == (("user", "B? In parallel."),)
    assert (request.attempt, request.max_tokens) == (1, DistillConfig().max_tokens)


def test_independence_of_nested_blocks_with_earlier_text() -> None:
    inner = Block(("x", "y"), (("It comes to = 617.",), ("With 617 we go on.",)), "617")
    with pytest.raises(ValidationError, match="617"):
        check_independent((Block(("a", "b"), ((inner,), ("else",)), "c"),), ["?"])
    check_independent((Block(("a", "b"), ((inner,), ("else",)), "c"),), ["Is it 617?"])
    check_independent(("We have = 617.", inner), ["?"])


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"min_parallelism": 0.5}, {"min_difference": 2.0}, {"dialect": "latin"}])
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not valid"):
        DistillConfig(**wrong)


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "given"),
    [
        ("31", "Answer: 31"),
        ("31", "The sum is needed.\n**Final answer:** 31."),
        ("1234", "so \\boxed{1,234}"),
        ("0.5", "$\\boxed{1/2}$"),
        ("\\frac{1}{2}", "It is \\boxed{\\frac{1}{2}}."),
        ("x + 1", "Answer:  X + 1"),
        ("3 apples", "3 Apples."),
    ],
)
def test_the_same_answer(right: str, given: str) -> None:
    assert same_answer("?", right, given)


@pytest.mark.parametrize(
    ("right", "given"), [("31", "Answer: 13"), ("31", ""), ("31", "131"), ("31", "31 or 32"), ("0.5", "1/0")]
)
def test_another_answer(right: str, given: str) -> None:
    assert not same_answer("?", right, given)


def test_the_last_box_counts() -> None:
    assert normalised("first \\boxed{2}, then \\boxed{3}. Answer: 4") == "3"


def test_separate_reasoning_is_put_back() -> None:
    text = render(GOOD)
    thinking, content = text.split(THINK.close)
    inner = thinking.removeprefix(THINK.open)
    for message in ({"reasoning_content": inner}, {"reasoning": inner.strip()}, {"reasoning_content": thinking + THINK.close}):
        assert whole_text(message, content.strip(), MULTIVERSE) == text
    assert whole_text({"reasoning_content": None}, text, MULTIVERSE) == text
    assert "broken" in whole_text({"reasoning": f"broken {MULTIVERSE.path.open}"}, "31", MULTIVERSE)


# -- questions ---------------------------------------------------------------------------------------------------------


def test_questions_are_read_and_faults_are_named(tmp_path: Path) -> None:
    lines = [
        '{"question": "A?", "answer": 7}',
        "",
        "nonsense",
        '{"question": "B?"}',
        "[]",
        '{"question": "\\ud83d", "answer": "1"}',
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    questions, faults = read_questions(tmp_path / "q.jsonl")
    assert questions == [Question("q.jsonl:1", "A?", "7")]
    assert [fault.line for fault in faults] == [3, 4, 5, 6]
    assert read_questions(tmp_path / "none.jsonl")[1][0].problem.startswith("there is no such file")


# -- runs --------------------------------------------------------------------------------------------------------------


def samples_of(question: str) -> list[str]:
    """Three samples: good, the same again, not parallel."""
    number = question.split()[-1].rstrip("?")
    good = document(f"First of {number}: ten and ten.", f"Second of {number}: five and six more.")
    return [render(good), render(good), render(Document(("In a line.",), "Answer: 31"))]


def job(out: Path, questions: list[Question], connect: Callable[..., Client], stop_after: int = 10**9) -> Result:
    """A run in a folder; optionally one that is stopped after so many samples."""
    rules = DistillConfig(samples=3)
    distiller = Distiller(rules)
    done = 0

    async def curate(trace: Trace, ask: Any) -> Outcome:
        nonlocal done
        done += 1
        if done > stop_after:
            raise EndpointError("stop")
        return await distiller.distil(trace, ask)

    whole = Job(out, EndpointConfig("in-process", "m", concurrency=4), rules, "q", 3 * len(questions), connect=connect)
    return whole.start(lambda: rows(questions, 3), curate=curate, on_start=distiller.start)


def test_a_run_is_the_same_interrupted_or_not_and_samples_once(tmp_path: Path) -> None:
    questions = [Question(f"q{number}", f"Question {number}?", "31") for number in range(7)]
    taken: list[str] = []

    async def sample(request: Request) -> Completion:
        taken.append(request.key())
        await asyncio.sleep(0)
        return Completion(samples_of(request.messages[0][1])[request.attempt], "stop", 5, 50)

    connect = partial(Client, generate=sample)
    result = job(tmp_path / "whole", questions, connect)
    assert (result.curated, result.rejected) == (7, 14)
    assert result.totals is not None
    assert result.totals["reasons"] == {"duplicate": 7, "not parallel": 7}
    assert result.totals["calls"] == 21
    assert len(set(taken)) == len(taken) == 21
    taken.clear()
    assert job(tmp_path / "parts", questions, connect, stop_after=8).ended is not None
    assert job(tmp_path / "parts", questions, connect, stop_after=3).ended is not None
    assert job(tmp_path / "parts", questions, connect).ended is None
    assert len(set(taken)) == len(taken) == 21
    for name in ("outcomes.jsonl", "manifest.json", "set_aside.jsonl", "README.md"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    found = read(tmp_path / "whole" / "data")
    assert not found.faults
    assert len(found.rows) == 7
    assert all(row.sequential is None for row in found.rows), "the sequential baseline is derived"
    assert "7" in (tmp_path / "whole" / "report.html").read_text()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the command; returns what it printed as JSON."""
    app = typer.Typer()
    app.command()(curate_distill.distill)

    def run(*args: str) -> dict[str, Any]:
        capsys.readouterr()
        typer.main.get_command(app).main([*args, "--json"], "distill", standalone_mode=False)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_the_embedded_model_distils_itself(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    args = ("--family", "worksheet", "--limit", "3", "--samples", "2", "--out", str(tmp_path), "--max-tokens", "1024")
    found = run(*args)
    assert found["curated"] + found["set_aside"] == 6
    assert found["curated"] > 0
    assert found["paid"]["calls"] == 6
    rows = read(tmp_path / "data").rows
    assert len(rows) == found["curated"]
    assert all(row.document.branches > 1 for row in rows)
    again = run(*args)
    assert again["paid"]["calls"] == 0
    assert again["totals"] == found["totals"]


def test_a_served_model(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The thinking comes apart from the answer, as servers with a reasoning parser send it."""
    lines = [{"question": f"Question {number}?", "answer": "31"} for number in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    seen: list[dict[str, Any]] = []

    def reply(body: dict[str, Any], count: int) -> Any:  # noqa: ARG001
        seen.append(body)
        asked = body["messages"][0]["content"].removesuffix("Think step by step and in parallel before answering.").strip()
        thinking, content = samples_of(asked)[0].split(THINK.close)
        value = json.loads(completion(body, content.strip()))
        value["choices"][0]["message"]["reasoning_content"] = thinking.removeprefix(THINK.open).strip()
        return Reply(200, json.dumps(value).encode())

    with serving(Endpoint(lambda *_: "", {}, override=reply)) as endpoint:
        args = (str(tmp_path / "q.jsonl"), "--base-url", endpoint.url, "-m", "m", "--samples", "2", "--temperature", "0.7")
        found = run(*args, "--out", str(tmp_path / "out"))
    assert (found["curated"], found["totals"]["reasons"]) == (4, {"duplicate": 4})
    assert len(seen) == 8
    assert {body["temperature"] for body in seen} == {0.7}
    assert all("seed" not in body for body in seen)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), "either"),
        (("x.jsonl", "--family", "chain"), "either"),
        (("--family", "worksheets"), "did you mean 'worksheet'"),
        (("none.jsonl",), "no such file"),
        (("--family", "chain", "--base-url", "ftp://x", "-m", "m"), "--base-url"),
        (("--family", "chain", "--base-url", "http://x"), "--model is missing"),
        (("--family", "chain", "--base-url", "http://x", "-m", "m", "--dialect", "latin"), "--dialect 'latin' is not valid"),
    ],
)
def test_invalid_arguments_are_refused(
    run: Callable[..., dict[str, Any]], args: tuple[str, ...], error: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=error):
        run(*args, "--out", str(tmp_path / "out"))
