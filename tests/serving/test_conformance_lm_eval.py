"""lm-eval, unmodified and in an environment of its own, against a real server: log-likelihoods and generated texts.

Needs the environment that `make lm-eval` makes; the tasks and their data are in `lm_eval/`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiverse import SamplingParams
from tests.serving.conftest import Site

FOLDER = Path(__file__).parent / "lm_eval"
PROGRAM = Path(os.environ.get("MULTIVERSE_LM_EVAL", ".venv-lm-eval/bin/lm_eval")).absolute()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM.is_file(), reason="lm-eval has no environment: run make lm-eval"),
]


def evaluated(site: Site, out: Path, kind: str, path: str, task: str, *options: str) -> tuple[dict[str, Any], list[Any]]:
    """The results of a task, and its samples in the order of the data."""
    arguments = f"model={site.service.model_name},base_url={site.url}{path}"
    command = [
        PROGRAM,
        "run",
        "--model",
        kind,
        "--include_path",
        FOLDER,
        "--tasks",
        task,
        "--output_path",
        out,
        "--log_samples",
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HOME": str(out / "hub"),
        "HF_DATASETS_OFFLINE": "1",
        "OPENAI_API_KEY": "none",
    }
    done = subprocess.run(
        [*command, *options, "--model_args", arguments],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    read = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text())["results"][task], sorted(read, key=lambda sample: sample["doc_id"])


def greedy(site: Site, question: str, choice: str) -> Iterator[tuple[float, bool]]:
    """Log-probability of each token of a choice behind its question, and whether greedy sampling would have written it."""
    encode = site.llm.tokenizer.encode
    context, whole = encode(question), encode(f"{question} {choice}")
    assert whole[: len(context)] == context
    params = SamplingParams(temperature=0, max_tokens=0, prompt_logprobs=1)
    (result,) = site.llm.generate([whole], params)
    assert result.prompt_logprobs is not None
    for score in result.prompt_logprobs[len(context) :]:
        assert score is not None
        yield score.logprob, score.rank == 1


@pytest.mark.parametrize("batch", ["1", "4"])
def test_log_likelihoods(mini: Site, tmp_path: Path, batch: str) -> None:
    options = ("--batch_size", batch)
    results, samples = evaluated(mini, tmp_path, "local-completions", "/v1/completions", "multiverse_choice", *options)
    assert len(samples) == 3
    right = 0
    for sample in samples:
        document = sample["doc"]
        told = [(float(response[0]), str(response[1]) == "True") for response in sample["filtered_resps"]]
        expected = []
        for choice in document["choices"]:
            values = list(greedy(mini, document["question"], choice))
            expected.append((sum(value for value, _ in values), all(first for _, first in values)))
        assert [value for value, _ in told] == pytest.approx([value for value, _ in expected], abs=1e-3)
        assert [first for _, first in told] == [first for _, first in expected]
        likelihoods = [value for value, _ in expected]
        right += likelihoods.index(max(likelihoods)) == document["label"]
    assert results["acc,none"] == pytest.approx(right / 3)


def test_rolling_log_likelihoods(mini: Site, tmp_path: Path) -> None:
    _, samples = evaluated(mini, tmp_path, "local-completions", "/v1/completions", "multiverse_rolling")
    assert len(samples) == 3
    for sample in samples:
        ids = [mini.llm.tokenizer.eos_token_id, *mini.llm.tokenizer.encode(sample["doc"]["question"])]
        (score,) = mini.llm.score([ids])
        assert float(sample["filtered_resps"][0]) == pytest.approx(score.total, abs=1e-3)


def test_texts(mini: Site, tmp_path: Path) -> None:
    _, samples = evaluated(mini, tmp_path, "local-completions", "/v1/completions", "multiverse_text")
    assert len(samples) == 3
    for sample in samples:
        params = SamplingParams(temperature=0, max_tokens=600, stop=("\n\n", "</s>", "Q:", "<|im_end|>"))
        (expected,) = mini.llm.generate(sample["doc"]["question"], params)
        assert sample["resps"] == [[expected.text]]


def test_chats(mini: Site, tmp_path: Path) -> None:
    options = ("--apply_chat_template",)
    results, samples = evaluated(mini, tmp_path, "local-chat-completions", "/v1/chat/completions", "multiverse_chat", *options)
    assert [sample["filtered_resps"] for sample in samples] == [[sample["doc"]["answer"]] for sample in samples]
    assert results["exact_match,number"] == 1.0
