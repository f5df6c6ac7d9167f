"""Commands over a model that another engine's server runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

pytest.importorskip("httpx", reason="the extra [chat] is not installed")

from multiverse.cli import serve
from multiverse.cli.errors import InputError
from multiverse.cli.loading import ModelOptions
from multiverse.serving.config import ScaleConfig, ServerConfig
from multiverse.structure import Block, Document, TokenDialect
from tests.cli.conftest import Result
from tests.stock.brains import Scripted
from tests.stock.loopback import Loopback, Score, running

Run = Callable[..., Result]

TWO = Document(
    ("Two parts.", Block(("Left", "Right"), (("1+2=3, as Mia has it.",), ("4+5=9, so Tom says.",)), "3+9=12.")), "Answer: 12"
)


class AfterTheHead(Scripted):
    """Writes its document as the answer to any question: after the head that the chat template ends with."""

    def __init__(self, tokens: TokenDialect, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(TWO, tokens, int(tokenizer.eos_token_id))
        self.head = tokenizer.encode("assistant: ")

    def __call__(self, context: Sequence[int]) -> Score:
        size = len(self.head)
        at = next(at for at in range(len(context), 0, -1) if list(context[at - size : at]) == self.head)
        return super().__call__(context[at:])


@pytest.fixture(scope="module")
def other(
    tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, ...]]:
    """Another engine's server, as options of a command."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    with running(Loopback(AfterTheHead(tokens, tokenizer), tokenizer)) as loopback:
        yield ("--upstream", loopback.url, "--tokenizer", str(folder))
        loopback.settled()


@pytest.mark.parametrize("option", ["--upstream", "--base-url"])
def test_generate(run: Run, other: tuple[str, ...], option: str) -> None:
    result = run("generate", option, *other[1:], "--temperature", "0", "--json", "How many?")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert (found["answer"], found["finish_reason"]) == ("12", "stop")
    assert found["tree"] == TWO.to_json()
    assert found["usage"]["parallelism"] > 1


def test_generate_by_text_needs_only_the_dialect(run: Run, other: tuple[str, ...]) -> None:
    result = run("generate", *other[:2], "--dialect", "multiverse", "--raw", "--temperature", "0", "--json", "assistant: ")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["answer"] == "12"


def test_chat(run: Run, other: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("How many?\n"))
    result = run("chat", *other, "--temperature", "0")
    assert result.code == 0
    assert "answer: 12" in result.out


@pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")
def test_eval_in_both_modes(run: Run, other: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
    line = ("eval", "worksheet", "--limit", "2", "--temperature", "0", "--max-tokens", "1000", "--mode", "both", "--json")
    result = run(*line, *other, "--out", str(tmp_path / "out"))
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert [(row["mode"], row["answers"]) for row in found["results"]] == [("parallel", 2), ("sequential", 2)]
    assert found["results"][0]["forked"] == 1.0
    assert found["runs"][0]["model"] == f"{other[1]} stock"


def test_distill(run: Run, other: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the extra [curate] is not installed")
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "How many?", "answer": "12"}) + "\n")
    line = ("curate", "distill", str(questions), "--out", str(tmp_path / "out"), "--samples", "1", "--json")
    result = run(*line, *other)
    assert result.code == 0, result.err
    assert json.loads(result.out)["curated"] == 1


def test_what_has_no_effect_there_is_refused(run: Run, other: tuple[str, ...]) -> None:
    for options, said in (
        (("--device", "cpu"), "--device is for a model in this process"),
        (("--no-packed-linears",), "--no-packed-linears is for a model in this process"),
        (("--kv-memory", "1"), "--kv-memory is for a model in this process"),
    ):
        result = run("generate", *other, *options, "Q")
        assert result.code == 2
        assert said in result.err
    assert "is for --upstream" in run("generate", *other[2:], "Q").err
    assert "needs --tokenizer" in run("generate", *other[:2], "Q").err
    assert "give one of them" in run("chat", "--url", "http://127.0.0.1:9", *other).err
    assert "give one of them" in run("eval", "chain", "--server", "http://127.0.0.1:9", *other).err
    assert "begins with http" in run("generate", "--upstream", "localhost:8000", "Q").err
    with pytest.raises(InputError, match="--replicas is for a model that runs here"):
        serve._serve(ServerConfig(), ModelOptions(upstream=other[1]), ScaleConfig(), None)


def test_a_server_that_does_not_answer(run: Run, other: tuple[str, ...]) -> None:
    result = run("generate", "--upstream", "http://127.0.0.1:9/v1", *other[2:], "Q")
    assert result.code != 0
    assert "http://127.0.0.1:9/v1 cannot be reached" in result.err
    assert result.err.count("\n") == 1
