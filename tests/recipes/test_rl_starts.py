"""Start models of the reinforcement learning runs, how models are measured, and how two of them are compared."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import pytest
from rich.console import Console

from multiverse import LLM
from multiverse.structure import render
from multiverse.tasks import generate
from recipes.rl import careless, starts
from recipes.rl.figures import difference, mean, ratio
from recipes.rl.measure import SEED, held_out, measure, retokenized


def test_differences_are_of_pairs() -> None:
    before, after = [2.0, 4.0], [1.0, 4.0]
    assert difference(before, after) == pytest.approx((-0.5, 0.5))
    # 5/6; each residual is a ninth of 2 away from 0, in thirds of the mean before.
    assert ratio(before, after) == pytest.approx((5 / 6, 2 / 9))
    assert ratio(before, before) == pytest.approx((1.0, 0.0))
    assert mean([0, 1]).show(1, 100) == "50.0 ± 50.0"
    assert difference([0, 0], [1, 1]).show(1, 100, sign=True) == "+100.0 ± 0.0"


def test_of_one_problem_there_is_no_error() -> None:
    assert mean([1.0]).error == float("inf")


def test_documents_of_a_start_depend_on_nothing(tmp_path: Path) -> None:
    short = starts.Start(5, starts.STARTS["able"].problems)
    for name in ("one", "two"):
        short.write(tmp_path / f"{name}.jsonl")
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()
    records = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert len(records) == 5
    assert all({"messages", "sequential"} <= record.keys() for record in records)
    (tmp_path / "one.jsonl").write_text("")
    short.write(tmp_path / "one.jsonl")
    assert not (tmp_path / "one.jsonl").read_text(), "what is there is kept"


def test_a_start_that_is_there_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/rl/starts/form"
    folder.mkdir(parents=True)
    trained: list[str] = []
    monkeypatch.setattr(starts, "train", lambda config, **_: trained.append(config.out))
    assert starts.make("form", Console(quiet=True)) == Path("runs/rl/starts/form/model")
    assert starts.make("form", Console(quiet=True)) == Path("runs/rl/starts/form/model")
    assert trained == ["runs/rl/starts/form"]


def test_the_mini_is_measured() -> None:
    llm = LLM(dtype="float32", packed_linears=False)
    forked, line = measure(llm, {"cases": ()}, ["parallel", "sequential"], 1)
    assert (forked.right, line.right, forked.malformed, line.malformed) == ([1], [1], [0], [0])
    assert all(forked.forks), "all cases fork"
    assert not any(line.forks)
    summary = forked.summary()
    assert summary["forked"] == 1.0
    assert summary["parallelism"] == pytest.approx(forked.total[0] / forked.critical[0])
    assert line.critical == line.total
    assert forked.retokenized == [0]


def test_tokens_that_a_tokenizer_would_not_choose_are_told() -> None:
    tokenizer = LLM(dtype="float32", packed_linears=False).tokenizer
    usual = tokenizer.encode("Let's think in parallel.")
    letters = [token for letter in "Let" for token in tokenizer.encode(letter, add_special_tokens=False)]
    assert tokenizer.decode(letters) == "Let"
    assert not retokenized(tokenizer, usual)
    assert retokenized(tokenizer, letters)


def test_held_out_problems_are_of_each_width_alike() -> None:
    wide = [len(problem.structured.thinking[1].paths) for problem in held_out("worksheet", 5, (2, 3))]  # type: ignore[index]
    assert wide == [2, 2, 2, 3, 3]
    assert [p.question for p in held_out("worksheet", 3)] == [p.question for p in generate("worksheet", 3, seed=SEED)]


def results_of(text: str) -> list[int]:
    """What each chain of steps gives, worked out again from the numbers in front of its equal signs."""
    found = []
    for first, operation, second, result in re.findall(r"(\d+)([-+*/])(\d+)=(\d+)", text):
        a, b = int(first), int(second)
        assert {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation] == int(result)
        found.append(int(result))
    return found


def test_a_careless_solution_agrees_with_itself_and_not_with_its_question() -> None:
    problems = list(islice(careless.stream(1, 0.6), 200))
    right = [problem for problem in problems if problem.check(problem.answer)]
    assert 0.2 < len(right) / len(problems) < 0.5
    for problem in problems:
        text = render(problem.structured)
        *_, total = results_of(text)
        assert text.endswith(f"Answer: {total}")
        assert problem.answer == str(total)
        if len(re.findall("<Path>", text)) == 2 and "triple" not in text:
            assert problem in right, "there is nothing to slip on"
    assert any("triple: 5*2=10" in render(problem.structured) for problem in problems)
    assert problems[0] == next(careless.stream(1, 0.6)) != next(careless.stream(2, 0.6))
