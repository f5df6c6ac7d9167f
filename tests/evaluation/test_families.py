"""Models of each family under evaluation: asked as the family is, sampled by its preset, graded by what its reader finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")

from multiverse import SamplingParams
from multiverse.cli.evaluate import Source, by_preset, provider
from multiverse.cli.loading import ModelOptions
from multiverse.engine.params import SamplingParams as Params
from multiverse.evaluation.benchmarks import BENCHMARKS
from multiverse.evaluation.config import EvaluationConfig
from multiverse.evaluation.providers import in_process
from multiverse.evaluation.run import evaluate
from multiverse.evaluation.server import ServerAPI
from multiverse.families import FAMILIES
from multiverse.prompting import INSTRUCTIONS, Mode, ask
from tests.cli.scripted import scripted_llm
from tests.evaluation.test_providers import asked
from tests.serving.conftest import serving
from tests.standins import stand_in
from tests.test_families import TEXTS

pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")


@pytest.mark.parametrize("name", FAMILIES)
def test_two_questions_of_each_family(name: str, tmp_path: Path) -> None:
    prompts: list[str] = []
    llm = scripted_llm(stand_in(tmp_path / "tiny", name), lambda prompt: (prompts.append(prompt), TEXTS[name][0])[1])
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"problem": f"What is {n}?", "answer": str(n)}) + "\n" for n in (4, 5)))
    family = FAMILIES[name]
    boxed = name if family.asks_for_box else None
    sampling = SamplingParams(temperature=0, max_tokens=600)
    config = EvaluationConfig(("math500",), sampling, data={"math500": str(rows)}, preset=boxed, prompting=llm.prompting)
    run = evaluate(lambda: in_process("tiny", llm), "tiny", config, tmp_path / "run")
    assert [(sample.answer, sample.right) for sample in sorted(run.samples, key=lambda one: one.id)] == [
        ("4", True),
        ("4", False),
    ]
    assert run.settings["instruction"] == llm.prompting.instructions["parallel"]
    for prompt in prompts:
        assert prompt.count(llm.prompting.instructions["parallel"]) == 1
        assert ("Put the final answer" in prompt) == (not family.asks_for_box), "asked for once"
        assert (INSTRUCTIONS["parallel"] in prompt) == (name == "multiverse")


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_a_server_s_model_is_asked_as_its_family_is(mode: Mode, tmp_path: Path) -> None:
    prompts: list[tuple[str, int]] = []
    llm = scripted_llm(stand_in(tmp_path / "tiny", "npr"), lambda _: "It is \\boxed{4}, not 5.")
    check = llm.engine.check
    llm.engine.check = lambda prompt, params: (
        prompts.append((llm.engine.decode(prompt), params.max_depth)),
        check(prompt, params),
    )[1]  # type: ignore[method-assign,func-returns-value]
    question = ask("How many?", mode)[0]["content"]
    with serving(llm, served_model_name="tiny") as site:
        found = asked(ServerAPI("tiny", f"{site.url}/v1"), question, temperature=0.0, max_tokens=200)
    assert (found.answer, found.content) == ("4", "It is \\boxed{4}, not 5.")
    (prompt, depth), *_ = prompts
    assert f"How many?\n\n{llm.prompting.instructions[mode]}<|im_end|>" in prompt
    assert depth == (0 if mode == "sequential" else SamplingParams().max_depth)


def test_the_command_line_takes_what_is_not_given_from_the_preset(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("Plan <step>s.")
    folders = {name: stand_in(tmp_path / name[:2], name) for name in ("multiverse", "npr")}
    given: dict[str, Any] = {"temperature": 0.0}

    def configured(**options: Any) -> EvaluationConfig:
        return by_preset(EvaluationConfig(), provider(Source(), ModelOptions(**options)), given)

    npr = configured(model=str(folders["npr"]), instruction_file=str(own))
    assert npr.sampling == Params(**{**FAMILIES["npr"].sampling, "temperature": 0.0})
    assert npr.limits["path_repetition_penalty"] == 1.02
    assert (npr.preset, npr.boxed, npr.prompting.instructions["parallel"]) == ("npr", True, "Plan <step>s.")
    # Those of the paper's models, and of none, are as they were, so that their runs are gone on with.
    for options in ({"model": str(folders["multiverse"])}, {"model": str(folders["npr"]), "preset": "none"}):
        assert configured(**options) == EvaluationConfig(sampling=Params(temperature=0.0, max_tokens=32_768))


def test_what_grades_the_form_of_an_answer_gets_all_of_it() -> None:
    assert {name for name, one in BENCHMARKS.items() if one.grades == "content"} == {"ifeval", "livecodebench"}
    boxed = {name: BENCHMARKS[name].given("4", "It is \\boxed{4}.") for name in ("math500", "gpqa", "ifeval", "worksheet")}
    assert boxed == {
        "math500": "It is \\boxed{4}.",
        "gpqa": "It is \\boxed{4}.",
        "ifeval": "It is \\boxed{4}.",
        "worksheet": "4",
    }
    said = {name: BENCHMARKS[name].given("4", "The answer is 4.") for name in ("math500", "ifeval", "worksheet")}
    assert said == {"math500": "4", "ifeval": "The answer is 4.", "worksheet": "4"}
