"""Whole runs against a scripted vision endpoint that checks what it is sent: histories, faults, kills, judges, budgets."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
pytest.importorskip("PIL", reason="the extra [eval] is not installed")

from multiverse.errors import ConfigError, DataError
from multiverse.evaluation import server
from multiverse.evaluation.dialogues.config import DialogueConfig, History, JudgeConfig, Setting
from multiverse.evaluation.dialogues.dialogue import Dialogue
from multiverse.evaluation.dialogues.images import ImageLimits
from multiverse.evaluation.dialogues.reader import dialogue_of
from multiverse.evaluation.dialogues.report import cost_json
from multiverse.evaluation.dialogues.results import Results
from multiverse.evaluation.dialogues.run import Judging, Progress, evaluate_dialogues, model_judges, rule_judges
from multiverse.evaluation.dialogues.store import ANSWERS, JUDGEMENTS, DialogueRun, read_dialogue_run
from multiverse.evaluation.run import EvaluationError
from multiverse.evaluation.server import at_server
from tests.forks import forks

from . import made
from .vision import Body, Vision, images, last_text, serving, texts

# inspect is behind the newest release of a library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")

DIALOGUES = [dialogue_of(made.row(number), None, ImageLimits()) for number in range(4)]
TURNS = sum(len(one.turns) for one in DIALOGUES)
ITEMS = sum(len(turn.checklist) for one in DIALOGUES for turn in one.turns)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)


@pytest.fixture
def vision() -> Iterator[Vision]:
    with serving(Vision()) as own:
        yield own
    assert own.wrong == []


NEEDED = (
    *("multiverse.cli", "multiverse.evaluation.dialogues.inspecting", "multiverse.evaluation.dialogues.page"),
    *("multiverse.evaluation.server", "multiverse.backends.select", "inspect_ai.agent._acp.server", "PIL.Image"),
)
"""What a killed command imports."""


def run(vision: Vision, out: Path, config: DialogueConfig | None = None, **options: Any) -> DialogueRun:
    judge = JudgeConfig(judge_model=("judge",), **options.pop("judge", {}))
    dialogues: list[Dialogue] = options.pop("dialogues", DIALOGUES)
    judges = options.pop("judges", None)
    if judges is None:
        judges = model_judges(judge.judge_model, vision.url, None, judge, 8)
    return evaluate_dialogues(
        lambda: at_server("seer", vision.url),
        "seer",
        dialogues,
        Setting.of("made", config or DialogueConfig(), own=False),
        out,
        judging=Judging(judges, judge.judge_repeats, "made", options.pop("faults", ())),
        **options,
    )


def sent(vision: Vision, dialogue: Dialogue, turn: int) -> Body:
    """The request of a turn."""
    asked = dialogue.turns[turn].utterance
    (body,) = [body for body in vision.asked if last_text(body).endswith(asked)]
    return body


def check_judged(vision: Vision, found: DialogueRun, folder: Path) -> None:
    """What the judge was sent, and what was made of its replies."""
    body = next(body for body in vision.judged if "Question 1.2" in texts(body["messages"][1]).rpartition("USER:")[2])
    assert (body["temperature"], body["model"]) == (0, "judge")
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True
    prompt = texts(body["messages"][1])
    for text in (
        "USER (with the image):\n<<<\nQuestion 1.1: what is there?\n>>>",
        "ASSISTANT:\n<<<\nI see a red square. (Question 1.1: what is there?)\n>>>",
        "The answer to be judged:\n\n<<<\nI see a red square. (Question 1.2: what is there?)\n>>>",
        "The reference:\n\n<<<\nReference 1.2",
        "The checklist, one question:\n\n[1] Does answer 1.2 name shape 0?",
    ):
        assert text in prompt
    results = Results(found)
    assert results.overall is not None
    # Every second item, shape 1, is not met.
    expected = [not item.question.endswith("shape 1?") for one in DIALOGUES for turn in one.turns for item in turn.checklist]
    assert results.overall.items.mean == pytest.approx(sum(expected) / len(expected))
    assert found.judgements[0].decisions[0].reason == "because of 1"
    assert cost_json(found)["judges"] == {
        found.judge: {"calls": TURNS, "prompt_tokens": 100 * TURNS, "completion_tokens": 10 * TURNS, "cost": 0.0}
    }
    assert (folder / found.pictures["made-0"]).read_bytes()[:2] == b"\xff\xd8"
    # inspect's logs are there, without images.
    (log,) = (folder / "inspect").glob("*.eval")
    assert log.stat().st_size < 200_000


@pytest.mark.parametrize("history", ["own", "reference", "none"])
def test_what_is_sent_with_each_history(history: History, vision: Vision, tmp_path: Path) -> None:
    found = run(vision, tmp_path, DialogueConfig(history=history))
    assert len(found.answers) == len(vision.asked) == TURNS
    for dialogue in DIALOGUES:
        said = {one.turn: one.answer for one in found.answers if one.dialogue == dialogue.id}
        for number in range(3):
            body = sent(vision, dialogue, number)
            assert (body["temperature"], body["max_tokens"], "seed" in body) == (0, 256, False)
            shown = range(number, number + 1) if history == "none" else range(number + 1)
            expected = []
            for at in shown:
                expected.append(("user", dialogue.turns[at].utterance))
                if at < number:
                    expected.append(("assistant", said[at] if history == "own" else dialogue.turns[at].reference))
            assert [(message["role"], texts(message)) for message in body["messages"]] == expected
            assert dialogue.image is not None
            # Once, in the first message of the user, also where the turn is asked alone.
            assert [images(message) for message in body["messages"] if message["role"] == "user"] == [
                [dialogue.image.url] if at == shown[0] else [] for at in shown
            ]
    results = Results(found)
    assert results.overall is not None
    assert results.overall.items.samples == ITEMS
    assert found == read_dialogue_run(tmp_path)
    assert found.set_aside == ()
    assert found.answers[0].cached_tokens == 40
    if history == "own":
        check_judged(vision, found, tmp_path)


def test_persona_samples_and_limits(vision: Vision, tmp_path: Path) -> None:
    config = DialogueConfig(persona=True, repeats=2, temperature=0.7, max_tokens=99, seed=3)
    vision.delay = 0.01
    found = run(vision, tmp_path, config, concurrency=2, judges=[])
    assert len(found.answers) == 2 * TURNS
    # Dialogues side by side, the turns of each in order.
    assert 1 < vision.most <= 2
    order = [last_text(body).rpartition("Question ")[2].partition(":")[0] for body in vision.asked]
    for number in range(len(DIALOGUES)):
        firsts = [order.index(f"{number}.{turn}") for turn in (1, 2, 3)]
        assert firsts == sorted(firsts)
    first = [body for body in vision.asked if len(body["messages"]) == 1]
    assert len(first) == 2 * len(DIALOGUES)
    assert all(last_text(body).startswith("Character: A painter, number ") for body in first)
    assert "Scenario: Looks at a picture of shapes.\nGoal: Learn what the picture shows.\n\nQuestion" in last_text(first[0])
    assert not any("Character" in last_text(body) for body in vision.asked if len(body["messages"]) > 1)
    assert len({body["seed"] for body in vision.asked}) == 2 * TURNS
    assert {(body["temperature"], body["max_tokens"]) for body in vision.asked} == {(0.7, 99)}


def test_nothing_is_asked_or_judged_twice(vision: Vision, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    first = run(vision, tmp_path, progress=Progress(judged=lambda met, of: heard.append((met, of))))
    assert sum(of for _, of in heard) == ITEMS
    again = run(vision, tmp_path)
    assert (again.answers, again.judgements) == (first.answers, first.judgements)
    assert (len(vision.asked), len(vision.judged)) == (TURNS, TURNS)
    # Another judge judges the same answers.
    both = run(vision, tmp_path, judges=rule_judges())
    assert both.judge == "rules"
    assert len(vision.asked) == TURNS
    assert len(both.judgements) == 2 * TURNS
    with pytest.raises(DataError, match='with history = "own", and this one has "none"'):
        run(vision, tmp_path, DialogueConfig(history="none"))
    other = [dialogue_of(made.row(0) | {"image": {"bytes": made.image(77)}}, None, ImageLimits()), *DIALOGUES[1:]]
    with pytest.raises(DataError, match="answers to another dialogue of the index 'made-0'"):
        run(vision, tmp_path, dialogues=other)


def test_replies_that_are_not_valid_are_sent_back_and_then_set_aside(tmp_path: Path) -> None:
    with serving(Vision()) as vision:
        vision.fault = lambda judge: "count" if judge else None  # type: ignore[method-assign]
        found = run(vision, tmp_path, dialogues=DIALOGUES[:1], judge={"judge_attempts": 2})
        assert Counter(one.attempt for one in found.judgements) == {0: 3, 1: 3}
        complaint = last_text(vision.judged[1])
        assert complaint.startswith("This reply is not valid: it has ")
        assert vision.judged[1]["messages"][2]["role"] == "assistant"
        assert all(one.reason.startswith("the judge's reply was not valid 2 times, last: it has ") for one in found.set_aside)
        assert [one.what for one in found.set_aside] == ["judgement"] * 3
        assert Results(found).overall is None
        # They are kept, and not paid for again; another attempt is.
        vision.fault = lambda _: None  # type: ignore[method-assign]
        assert run(vision, tmp_path, dialogues=DIALOGUES[:1], judge={"judge_attempts": 3}).set_aside == ()
        assert len(vision.judged) == 9


@pytest.mark.parametrize("history", ["own", "reference", "none"])
def test_faults_at_30_percent(history: History, tmp_path: Path) -> None:
    """Every turn ends with an answer and verdicts, or is set aside with its reason."""
    with serving(Vision(faulty=True)) as vision:
        found = run(vision, tmp_path, DialogueConfig(history=history))
        assert vision.wrong == []
        assert vision.numbers[False] > TURNS  # some were asked more than once, and answered once
        counts = Counter((body["model"], len(body["messages"]), last_text(body)) for body in vision.asked)
        assert set(counts.values()) == {1}
    judged = {one.turn_key for one in found.judgements if not one.problem}
    aside = {(one.dialogue, one.turn, one.sample): one.reason for one in found.set_aside if one.what == "judgement"}
    assert len(found.answers) == TURNS
    for answer in found.answers:
        assert (answer.key in judged) != (tuple(answer.key) in aside)
        assert answer.answer.startswith("I see a red square.")
    assert all(reason.startswith("the judge's reply was not valid 3 times") for reason in aside.values())
    problems = {one.problem.partition(" (")[0].rstrip("0123456789") for one in found.judgements}
    assert {"", "it is not one JSON object"} < problems
    assert any(one.problem.startswith("it has") for one in found.judgements)


def test_a_refused_turn_is_set_aside_and_asked_again(vision: Vision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler_answer = vision.answer

    def refuse(body: Body) -> str:
        if last_text(body).startswith("Question 1.2"):
            raise BrokenPipeError  # the connection ends without an answer
        return handler_answer(body)

    monkeypatch.setattr(vision, "answer", refuse)
    monkeypatch.setattr(server.ServerAPI, "should_retry", lambda *_: False)
    found = run(vision, tmp_path)
    reasons = {(one.turn, one.reason) for one in found.set_aside}
    assert {turn for turn, _ in reasons} == {1, 2}
    assert (2, "it goes on from turn 2, which has no answer") in reasons
    assert len(found.answers) == TURNS - 2
    results = Results(found)
    assert results.overall is not None
    assert results.overall.dialogues is not None
    assert (results.overall.dialogues.questions, results.overall.turns.samples if results.overall.turns else 0) == (
        3,
        TURNS - 2,
    )
    monkeypatch.setattr(vision, "answer", handler_answer)
    assert run(vision, tmp_path).set_aside == ()
    assert len(vision.asked) == TURNS


def test_an_endpoint_that_refuses_all(tmp_path: Path) -> None:
    with serving(Vision()) as vision, pytest.raises(EvaluationError, match=r"12 turns could not be asked .*no model 'nobody'"):
        evaluate_dialogues(
            lambda: at_server("nobody", vision.url),
            "nobody",
            DIALOGUES,
            Setting.of("made", DialogueConfig(), own=False),
            tmp_path,
            judging=Judging(rule_judges()),
        )


def test_the_cost_of_judgements_is_capped(vision: Vision, tmp_path: Path) -> None:
    price = {"judge_price_in": 1.0, "judge_price_out": 10.0, "judge_max_tokens": 10}
    with pytest.raises(EvaluationError, match=r"--judge-max-cost 0.0045 leaves too little for the next judgement"):
        run(vision, tmp_path, judge={**price, "judge_max_cost": 0.0045}, concurrency=1)
    assert len(vision.asked) == TURNS  # they are kept
    spent = len(vision.judged)
    assert 0 < spent < TURNS
    whole = run(vision, tmp_path, judge={**price, "judge_max_cost": 9.0})
    assert len(vision.judged) == TURNS
    assert cost_json(whole)["judges"][whole.judge]["cost"] == pytest.approx(TURNS * (100 * 1 + 10 * 10) / 1e6)
    with pytest.raises(ConfigError, match="judge_max_cost needs prices"):
        JudgeConfig(judge_max_cost=1.0)


def test_two_judges_and_repeats_are_compared(vision: Vision, tmp_path: Path) -> None:
    vision.plain = True
    config = JudgeConfig(judge_model=("judge", "judge-2"), judge_repeats=2)
    found = run(
        vision, tmp_path, judges=model_judges(config.judge_model, vision.url, None, config, 8), judge={"judge_repeats": 2}
    )
    assert found.set_aside == ()
    assert len(vision.judged) == 4 * TURNS
    assert not any({"response_format", "temperature"} & body.keys() for body in vision.judged)
    assert {body["max_completion_tokens"] for body in vision.asked} == {256}
    assert {(one.prompt_tokens, one.cached_tokens) for one in found.answers} == {(100, 40)}
    pairs = Results(found).agreements()
    assert len(pairs) == 6
    assert all((own.kappa, own.same, own.items) == (pytest.approx(1), 1, ITEMS) for _, _, own in pairs)


def test_empty_answers_and_half_a_character(vision: Vision, tmp_path: Path) -> None:
    vision.answer = lambda body: "  " if "Question 1" in last_text(body) else "square \ud83d!"
    found = run(vision, tmp_path)
    assert {one.answer.strip() for one in found.answers} == {"", "square \ufffd!"}
    # An empty answer meets nothing, and nobody is asked.
    assert len(vision.judged) == TURNS - 3
    empty = [one for one in found.judgements if one.dialogue == "made-1"]
    assert {(decision.met, decision.reason) for one in empty for decision in one.decisions} == {(False, "the answer is empty")}


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    """`kill -9` after a few turns; started again, no turn that was answered or judged is asked or judged again."""
    data = made.write_jsonl(tmp_path / "rows.jsonl", [made.as_json(made.row(number)) for number in range(6)])
    out, printed = tmp_path / "out", tmp_path / "printed"
    with serving(Vision(delay=0.05)) as vision:
        address = vision.url.removesuffix("/v1")
        command = [
            *("multiverse", "eval", "dialogues", str(data), "--server", address, "--model", "seer", "--out", str(out)),
            *("--judge-model", "judge", "--concurrency", "2", "--json"),
        ]
        with forks(tmp_path, *NEEDED) as processes:
            process = processes.start(*command)
            deadline = time.monotonic() + 120
            while process.poll() is None and (not (out / JUDGEMENTS).exists() or len(lines(out / JUDGEMENTS)) < 4):
                assert time.monotonic() < deadline, process.stderr
                time.sleep(0.01)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.stderr
            answered = {(one["dialogue"], one["turn"]) for one in lines(out / ANSWERS)}
            judged = len(lines(out / JUDGEMENTS))
            before = len(vision.asked), len(vision.judged)
            assert len(answered) < 18
            vision.delay = 0
            done = processes.start(*command, stdout=printed)
            assert done.wait() == 0, done.stderr
    assert vision.wrong == []
    summary = json.loads(printed.read_text())
    assert (summary["answers"], summary["judged"], summary["set_aside"]) == (18, 18, [])
    # Only what was on its way when it was killed came twice.
    assert len(vision.asked) - before[0] == 18 - len(answered)
    assert len(vision.judged) - before[1] == 18 - judged
    assert len(vision.asked) <= 18 + 2
    assert (out / "report" / "report.html").is_file()


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that is being written."""
    return [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()] if path.exists() else []
