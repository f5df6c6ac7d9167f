"""What an answer counts as, whatever the model wrote, and what the shares are taken over."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse import SamplingParams
from multiverse.evaluation.analysis.cases import Case, from_tasks
from multiverse.evaluation.analysis.prompting import PromptingSample, PromptingTest, classify, run_prompting, tally
from multiverse.structure import DIALECTS, MULTIVERSE, Dialect, Document, render
from tests.cli.scripted import NESTED, scripted_llm

TEXT = render(NESTED)
THINK = MULTIVERSE.think
assert THINK is not None
assert MULTIVERSE.block is not None
assert MULTIVERSE.conclusion is not None


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("\n", " "),
        TEXT.replace("\n", ""),
        TEXT.replace(THINK.open, "").replace(THINK.close, ""),
        f"Sure! Here it is:\n\n{TEXT}",
        TEXT.replace("1:", "1 :"),
        TEXT.replace("13+21=34.", ""),
    ],
)
def test_formed(text: str) -> None:
    assert classify(text) == "formed"


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(MULTIVERSE.path.close, "", 1),
        TEXT.replace("1.2:", "1.3:"),
        TEXT.replace("2: 20", "20"),
        TEXT[: len(TEXT) // 2],
        f"I would open {MULTIVERSE.block.open} here.",
        TEXT.replace(MULTIVERSE.conclusion.open, MULTIVERSE.goal.open, 1),
    ],
)
def test_broken(text: str) -> None:
    assert text != TEXT
    assert classify(text) == "broken"


@pytest.mark.parametrize("text", ["", "42", f"{THINK.open}\nStep by step.\n{THINK.close}\n\nAnswer: 42", "1: a\n2: b"])
def test_plain(text: str) -> None:
    assert classify(text) == "plain"


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_the_explanation_shows_what_counts_as_formed(dialect: Dialect) -> None:
    test = PromptingTest("explained", guard=False)
    (message,) = test.messages("Who has more?", dialect)
    assert message["content"].startswith("Who has more? Think")
    example = message["content"].partition("Keep exactly to this form:\n\n")[2]
    assert classify(example, dialect) == "formed"
    assert dialect.path.open in example


CASES = from_tasks(["worksheet", "chain"], 3, seed=4)
PARALLEL = PromptingTest("parallel", guard=False)


def writes(prompt: str) -> Document | str:
    """Worksheets: forked, in a line, broken. Chains: in a line, in a line, forked."""
    index = next(index for index, case in enumerate(CASES) if case.question in prompt)
    broken = f"{THINK.open}\nLet's see.{MULTIVERSE.outline.open}"
    return (CASES[0].structured, CASES[1].sequential, broken, CASES[3].structured, CASES[4].structured, NESTED)[index]


def test_a_whole_test_on_a_scripted_model(model_folders: dict[str, Path]) -> None:
    llm = scripted_llm(model_folders["qwen3"], writes)
    heard: list[PromptingSample] = []
    answers = run_prompting(llm, CASES, PARALLEL, SamplingParams(max_tokens=700), on_finish=heard.append)
    assert [answer.outcome for answer in answers] == ["formed", "plain", "broken", "plain", "plain", "formed"]
    assert [answer.possible for answer in answers] == [True] * 3 + [False] * 3
    assert sorted(heard, key=lambda one: one.question) == sorted(answers, key=lambda one: one.question)
    assert answers[2].finish_reason == "malformed"
    assert answers[0].parallelism > 1 == answers[1].parallelism
    whole = tally(answers, PARALLEL, "all")
    assert (whole.possible.value, whole.formed.value, whole.broken.value, whole.plain.value) == pytest.approx(
        (1 / 2, 1 / 3, 1 / 6, 1 / 2)
    )
    assert whole.formed_where_possible.value == whole.formed_where_not.value == pytest.approx(1 / 3)
    assert (whole.n, whole.cut, whole.formed_where_not.n) == (6, 0, 3)
    assert whole.formed.low < 1 / 3 < whole.formed.high
    worksheets = tally(answers[:3], PARALLEL, "worksheet")
    assert worksheets.as_json()["formed_where_not"] is None
    assert worksheets.as_json()["formed"]["n"] == 3


def test_guard_and_seeds_reach_the_engine(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    llm = scripted_llm(model_folders["qwen3"], writes)
    given: list[SamplingParams] = []
    submit = llm.engine.submit

    def watched(prompt: list[int], params: SamplingParams, **rest: object) -> object:
        given.append(params)
        return submit(prompt, params, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(llm.engine, "submit", watched)
    run_prompting(llm, CASES[:2], PromptingTest("sequential", guard=True), SamplingParams(max_tokens=300), seed=2)
    assert [params.guard for params in given] == [True, True]
    assert [params.seed for params in given] == [2_000_006, 2_000_007]


def test_a_model_without_a_chat_template_is_asked_in_plain_text(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def watch(prompt: str) -> Document:
        asked.append(prompt)
        return NESTED

    llm = scripted_llm(model_folders["qwen3"], watch)
    monkeypatch.setattr(llm.tokenizer, "chat_template", None)
    case = Case("here", "Who has more?", NESTED, NESTED)
    (answer,) = run_prompting(llm, [case], PARALLEL, SamplingParams(max_tokens=700))
    assert answer.outcome == "formed"
    assert asked == ["Who has more? Think step by step and in parallel before answering.\n\n"]
