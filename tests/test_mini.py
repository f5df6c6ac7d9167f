"""The model that comes with the package: it loads anywhere, thinks as its card says, and the engine is exact on it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from multiverse import LLM, SamplingParams
from multiverse.engine.model import embedded_model
from multiverse.evaluation.config import EvaluationConfig
from multiverse.evaluation.providers import in_process
from multiverse.evaluation.report import report
from multiverse.evaluation.run import evaluate
from multiverse.models.registry import ENTRIES
from multiverse.prompting import ask
from multiverse.structure import MULTIVERSE, resolve
from multiverse.tasks import CALCULATIONS, generate
from tests.engine.test_oracle import Trouble, check

GREEDY = SamplingParams(temperature=0, logprobs=True)


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(kv_memory=64 << 20)


@pytest.fixture(scope="module")
def questions() -> list[list[dict[str, Any]]]:
    """64 questions of all families and both modes."""
    per_family = 13
    problems = [problem for family in CALCULATIONS for problem in generate(family, per_family, seed=64)]
    return [ask(problem.question, "sequential" if i % 3 == 0 else "parallel") for i, problem in enumerate(problems)][:64]


def test_it_is_a_plain_hugging_face_folder() -> None:
    folder = embedded_model()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert resolve(AutoTokenizer.from_pretrained(folder), MULTIVERSE)
    assert model.config.model_type == "qwen3"
    assert (folder / "model.safetensors").stat().st_size <= 16 << 20


def test_it_answers_its_own_example(llm: LLM) -> None:
    assert llm.about is not None
    assert llm.about.example is not None
    (generation,) = llm.chat(ask(llm.about.example), GREEDY)
    assert generation.answer == "56"
    assert generation.tree is not None
    assert generation.tree.branches == 2
    assert "multiverse-smol" in llm.about.line
    assert "multiverse-smol" in ENTRIES, "the model that it names is one that can be had"
    assert "2.9M" in llm.about.line


def test_it_knows_its_tasks_from_ordinary_questions(llm: LLM) -> None:
    known = [problem.question for family in CALCULATIONS for problem in generate(family, 10, seed=5)]
    assert not any(llm.is_unlike(question) for question in known)
    lines = (Path(__file__).parents[1] / "recipes/smol/questions/single.jsonl").read_text().splitlines()
    ordinary = [json.loads(line)["question"] for line in random.Random(2).sample(lines, 40)]
    assert sum(llm.is_unlike(question) for question in ordinary) >= 39


def test_a_question_that_is_compared_leaves_nothing_in_the_cache() -> None:
    fresh = LLM(kv_memory=16 << 20)
    question = "Who would ask a puzzle model where the kingfisher sleeps?"
    assert fresh.is_unlike(question)
    fresh.engine.check_integrity()
    (generation,) = fresh.chat(ask(question), SamplingParams(temperature=0, max_tokens=4))
    assert generation.usage.cached_tokens == 0


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_a_batch_of_64_equals_single_runs_and_a_dense_forward(
    llm: LLM, questions: list[list[dict[str, Any]]], every: int
) -> None:
    tokens = llm.engine.tokens
    assert tokens is not None
    together = llm.chat(questions, GREEDY)
    alone = [llm.chat([question], GREEDY)[0] for question in questions[::every]]
    assert [generation.text for generation in together[::every]] == [generation.text for generation in alone]
    assert sum(any(generation.branches) for generation in together) > 24

    model = AutoModelForCausalLM.from_pretrained(embedded_model(), attn_implementation="sdpa").eval()
    for generation in together[:: max(1, every // 4)]:
        assert generation.finish_reason == "stop"
        assert check(model, generation, tokens) > 10


@pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")  # inspect's
@pytest.mark.parametrize("limit", [10, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_the_figures_of_the_model_card(llm: LLM, mode: Any, limit: int, tmp_path: Path) -> None:
    # A small fresh sample per family: within four standard errors of the card's figures.
    figures = json.loads((Path(embedded_model()) / "figures.json").read_text())
    config = EvaluationConfig(CALCULATIONS, SamplingParams(temperature=0), limit=limit, seed=4242)
    run = evaluate(lambda: in_process("mini", llm), "mini", config, tmp_path, mode, concurrency=64)
    for group in report([run]).groups:
        claimed = next(f for f in figures["tasks"] if (f["family"], f["mode"]) == (group.task, mode))
        found = group.summary()
        spread = max(0.01, claimed["accuracy"] * (1 - claimed["accuracy"])) / found["answers"]
        assert abs(found["accuracy"] - claimed["accuracy"]) <= 4 * spread**0.5
        assert found["forked"] == pytest.approx(claimed["forked"], abs=0.2)
        assert found["parallelism"] == pytest.approx(claimed["parallelism"], rel=0.2)


def test_the_readme_example_gives_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("\n```")[0]
    exec(code, {})
    claimed = [line.partition("  # ")[2].split(": ")[0] for line in code.splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == claimed
    assert len(claimed) == 3


@pytest.mark.parametrize("evict", [False, True], ids=["kept in the cache", "evicted"])
def test_greedy_answers_are_the_same_with_and_without_preemption(
    llm: LLM, questions: list[list[dict[str, Any]]], evict: bool
) -> None:
    """Nothing is scripted: the model runs free, and what it is made to read again must not lead it elsewhere."""
    asked = questions[1::12]
    calm = llm.chat(asked, GREEDY)
    assert sum(max(map(len, generation.branches)) > 0 for generation in calm) >= 4, "some have to fork"
    engine, trouble = llm.engine, Trouble(random.Random(5), evict=evict)
    before = engine.scheduler.preemptions
    requests = [engine.submit(llm.encode_chat(question), GREEDY) for question in asked]
    while engine.busy:
        engine.step()
        trouble(llm)
        engine.check_integrity()
    assert engine.scheduler.preemptions - before > 20
    for expected, request in zip(calm, requests, strict=True):
        found = engine.generation(request)
        assert found.token_ids == expected.token_ids
        assert (found.positions, found.branches) == (expected.positions, expected.branches)
        assert found.finish_reason == expected.finish_reason == "stop"
