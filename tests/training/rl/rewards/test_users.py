"""Functions of the user's: what they may give, and what becomes of a run whose function fails in any way."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse.errors import ConfigError, RewardError
from multiverse.training.rl.rewards import Reward, Rewards
from multiverse.training.rl.rewards.workers import GIVE_UP, Pool
from multiverse.training.rl.rollout import Question, Rollout, Scores
from tests.training.rl.answers import QUESTION, group, said

SOURCE = '''
import ctypes, math, os, random, time, sys

class Scorer:
    @staticmethod
    def half(question, rollout):
        return 0.5

def length(question, rollout, *, scale=1.0):
    return len(rollout.generation.answer) * scale

def told(question, rollout):
    """Does what the answer says."""
    what = rollout.generation.answer
    print("printed")
    if what == "none": return None
    if what == "nan": return math.nan
    if what == "inf": return math.inf
    if what == "text": return "0.5"
    if what == "list": return [0.5]
    if what == "tensor":
        class Tensor:
            def item(self): return 1.0
            def __repr__(self): return "tensor(1.)"
        return Tensor()
    if what == "true": return True
    if what == "numpy":
        import numpy
        return numpy.float32(0.25)
    if what == "raise": raise KeyError("points")
    if what == "exit": sys.exit(3)
    if what == "hard exit": os._exit(3)
    if what == "kill": os.kill(os.getpid(), 9)
    if what == "segfault": ctypes.string_at(0)
    if what == "memory": return len(bytearray(4 << 30))
    if what == "hang": time.sleep(60)
    if what == "fork":
        os.fork()
        return 0.75
    if what == "random": return random.random()
    return 1.0

async def later(question, rollout):
    return 1.0

def one(question):
    return 1.0

def always_fails(question, rollout):
    raise ValueError("no such\\nfield: points")

def hangs(question, rollout):
    while True: pass

number = 3
'''


def line(text: str) -> str:
    """Where a text stands in the module, as a fault says it."""
    return f"(points.py, line {SOURCE[: SOURCE.index(text)].count(chr(10)) + 1})"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "points.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import os\nos._exit(7)\n")
    (tmp_path / "wrong.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)


def told(*answers: str, **settings: object) -> list[Scores]:
    reward = Reward("points:told", timeout=2.0, memory=2.0, **settings)  # type: ignore[arg-type]
    with Rewards([Reward("correct"), reward]) as rewards:
        (judged,) = rewards.judge([group(*(said(answer, seed=seed) for seed, answer in enumerate(answers)))], 0)
        return list(judged.scores)


def test_every_way_to_fail_costs_its_own_rollout_only(capfd: pytest.CaptureFixture[str]) -> None:
    expected = {
        "none": "it gave None, not a number: does every way through it return one?",
        "nan": "it gave nan, not a finite number",
        "inf": "it gave inf, not a finite number",
        "text": "it gave '0.5', of type str, not a number",
        "list": "it gave [0.5], of type list, not a number",
        "tensor": "it gave tensor(1.), of type Tensor, not a number: return its .item()",
        "raise": f"it raised KeyError: 'points' {line('raise KeyError')}",
        "exit": f"it raised SystemExit: 3 {line('sys.exit')}",
        "hard exit": "its process ended with exit code 3",
        "kill": "its process was killed by SIGKILL: out of memory?",
        "segfault": "its process was killed by SIGSEGV",
        "memory": f"it raised MemoryError {line('bytearray')}",
        "hang": "it took longer than 2 seconds",
    }
    values = {"fine": 1.0, "true": 1.0, "numpy": 0.25, "fork": 0.75, "fine again": 1.0}
    answers = [*expected, *values]
    found = dict(zip(answers, told(*answers, fault_score=-0.5), strict=True))
    assert {what: found[what].faults.get("points:told") for what in expected} == expected
    assert {what: found[what].parts["points:told"] for what in expected} == dict.fromkeys(expected, -0.5)
    assert {what: found[what].parts["points:told"] for what in values} == values
    assert not any(found[what].faults for what in values)
    assert all(math.isfinite(score.total) for score in found.values())
    captured = capfd.readouterr()
    assert captured.out == ""  # what it prints stays out of what a command prints
    assert "printed" in captured.err


def test_what_a_function_draws_does_not_depend_on_the_process() -> None:
    first, second = (told(*["random"] * 4) for _ in range(2))
    values = [score.parts["points:told"] for score in first]
    assert values == [score.parts["points:told"] for score in second]
    assert len(set(values)) == 4


def test_arguments_attributes_and_totals() -> None:
    rewards = [
        Reward("points:length", weight=2.0, args={"scale": 0.1}, workers=1),
        Reward("points:Scorer.half", decides=True, workers=1),
    ]
    with Rewards(rewards) as made:
        (judged,) = made.judge([group(said("abc"), said("abcdef"))], 0)
    assert [score.parts for score in judged.scores] == [
        {"points:length": pytest.approx(0.3), "points:Scorer.half": 0.5},
        {"points:length": pytest.approx(0.6), "points:Scorer.half": 0.5},
    ]
    assert [score.total for score in judged.scores] == pytest.approx([1.1, 1.7])
    assert [score.correct for score in judged.scores] == [True, True]  # 0.5 decides


def test_a_function_that_counts_for_correct_answers_only_is_not_called_for_others() -> None:
    with Rewards([Reward("correct"), Reward("points:told", only_if_correct=True, workers=1)]) as made:
        (judged,) = made.judge([group(said("41"), said("raise"))], 0)
    assert [score.parts["points:told"] for score in judged.scores] == [1.0, 0.0]
    assert not judged.scores[1].faults


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("nowhere:score", {}, "there is no module 'nowhere' in "),
        ("points:scroe", {}, "'points' has no 'scroe': it defines length, told, later, one, always_fails, hangs"),
        ("points:number", {}, "'number' of 'points' is 3, not a function"),
        ("points:Scorer", {}, "'Scorer' of 'points' is a class, not a function"),
        ("points:later", {}, "'later' of 'points' is asynchronous: make it a plain function"),
        ("points:one", {}, "one(question) cannot be called as one(question, rollout): too many positional arguments"),
        ("points:length", {"factor": 2}, "cannot be called as length(question, rollout, factor=2): got an unexpected keyword"),
        ("broken:score", {}, "'broken:score' cannot be imported: its process ended with exit code 7"),
        ("wrong:score", {}, "the module 'wrong' cannot be imported: ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_functions_are_checked_before_anything_is_loaded(name: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rewards([Reward("correct"), Reward(name, args=args)])
    assert message in str(caught.value)


def test_a_function_that_fails_for_all_ends_the_run_and_loses_no_rollout() -> None:
    with Rewards([Reward("correct"), Reward("points:always_fails", workers=1)]) as made, pytest.raises(RewardError) as caught:
        made.judge([group(said("41"), said("42"))], 12)
    assert str(caught.value) == (
        "the reward 'points:always_fails' failed for all 2 rollouts that it was called for in step 12: it raised ValueError: "
        f"no such field: points {line('raise ValueError')}. Mend it and resume the run: the rollouts are not lost"
    )
    (kept,) = caught.value.groups
    assert [score.correct for score in kept.scores] == [True, False]
    assert [score.total for score in kept.scores] == [1.0, 0.0]


def test_a_function_that_always_hangs_is_given_up_before_every_rollout_has_been_waited_for() -> None:
    began = time.monotonic()
    hangs = Reward("points:hangs", timeout=0.05, workers=2)
    groups = [group(*(said("41") for _ in range(8)), question=replace(QUESTION, id=str(number))) for number in range(30)]
    with Rewards([Reward("correct"), hangs]) as made, pytest.raises(RewardError) as caught:
        made.judge(groups, 0)
    assert "failed for all 240 rollouts" in str(caught.value)
    assert "it took longer than 0.05 seconds (and 1 other reasons)" in str(caught.value)
    assert time.monotonic() - began < 15
    called = [score for kept in caught.value.groups for score in kept.scores if "took longer" in score.faults["points:hangs"]]
    assert GIVE_UP <= len(called) <= GIVE_UP + 2


def test_what_cannot_be_pickled_is_a_fault_of_its_rollout() -> None:
    question = Question("q", QUESTION.messages, "41", extra={"check": "exact", "handle": lambda: None})
    with Rewards([Reward("correct"), Reward("points:told", workers=1)]) as made:
        judged = made.judge([group(said("41"), question=question), group(said("41"))], 0)
    (lost,), (fine,) = (one.scores for one in judged)
    assert "it was not called, since its arguments cannot be pickled: " in lost.faults["points:told"]
    assert (lost.total, fine.total) == (1.0, 2.0)


def test_workers_stay_warm_and_end_with_the_rewards() -> None:
    with Rewards([Reward("points:length", workers=1)]) as made:
        (pool,) = made._pools.values()
        (worker,) = pool._idle
        process = worker._process
        for _ in range(3):
            made.judge([group(said("41"))], 0)
        assert pool._idle == [worker]
        assert process.poll() is None
    assert process.poll() is not None


def test_a_worker_that_has_died_between_two_steps_is_replaced() -> None:
    with Rewards([Reward("points:length", workers=1)]) as made:
        (pool,) = made._pools.values()
        os.kill(pool._idle[0]._process.pid, 9)
        pool._idle[0]._process.wait()
        (judged,) = made.judge([group(said("41"))], 0)
    assert judged.scores[0].parts == {"points:length": 2.0}
    assert not judged.scores[0].faults


def test_an_interrupt_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool("points:hangs", ["question", "rollout"], timeout=30, workers=1)
    pool.check()
    process = pool._idle[0]._process

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pool, "_collect", interrupted)
    made: Rollout = said("41")
    with pytest.raises(KeyboardInterrupt):
        pool.call([((QUESTION, made), "")])
    assert process.poll() is not None
