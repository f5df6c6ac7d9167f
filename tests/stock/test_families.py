"""The three families over the loopback server: their own texts, well-formed and not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from multiverse import SamplingParams, StockLLM
from multiverse.structure import MULTIVERSE, NPR, THREADWEAVER, THREADWEAVER_CONCLUSION, Dialect, resolve
from multiverse.structure.dialect import Malformed
from tests.conftest import build_tokenizer
from tests.stock.brains import Scripted
from tests.stock.conftest import PROMPT
from tests.stock.loopback import Kind, Loopback, Score, running

VECTORS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "structure" / "vectors.json").read_text())
WELL_FORMED = [name for name, vector in VECTORS.items() if "tree" in vector]
VALUES = {"V": MULTIVERSE, "N": NPR, "T": THREADWEAVER}
GREEDY = SamplingParams(temperature=0, max_tokens=2000)


def dialect_of(name: str) -> Dialect:
    return THREADWEAVER_CONCLUSION if name == "T4" else VALUES[name[0]]


@contextmanager
def served(folder: Path, name: str, how: Literal["ids", "text"], kind: Kind) -> Iterator[tuple[StockLLM, Loopback]]:
    """A model that writes a family's text."""
    dialect = dialect_of(name)
    tokenizer = build_tokenizer(dialect)
    tokenizer.save_pretrained(folder)
    ids = tokenizer.encode(VECTORS[name]["text"], add_special_tokens=False)
    brain = Scripted(ids, resolve(tokenizer, dialect), tokenizer.eos_token_id, prompt=len(tokenizer.encode(PROMPT)))
    with running(Loopback(brain, tokenizer, kind)) as up:
        given: dict[str, Any] = {"tokenizer": folder} if how == "ids" else {}
        with StockLLM(up.url, dialect=dialect, **given) as llm:
            yield llm, up


@pytest.mark.parametrize(("how", "kind"), [("ids", "vllm"), ("ids", "llamacpp"), ("text", "openai")])
@pytest.mark.parametrize("name", WELL_FORMED)
def test_what_a_family_writes(tmp_path: Path, name: str, how: Literal["ids", "text"], kind: Kind) -> None:
    with served(tmp_path, name, how, kind) as (llm, up):
        (out,) = llm.generate(PROMPT, GREEDY)
        assert (out.finish_reason, out.structure_error) == ("stop", None)
        assert out.text == VECTORS[name]["text"]
        assert out.tree is not None
        found = out.tree.to_json()
        assert (found if dialect_of(name).think is not None else found["thinking"]) == VECTORS[name]["tree"]
        up.settled()
        if kind == "vllm" and dialect_of(name).after_path != "free":  # there the server writes on behind the path
            assert up.brain.lost == []  # type: ignore[attr-defined]
            assert up.ended.keys() <= {"done", "left"}


def test_the_requests_of_two_threads(tmp_path: Path) -> None:
    """As the family's own orchestrator sends them: no line end but the first stands before a header in the joined text."""
    with served(tmp_path, "T1", "ids", "vllm") as (llm, up):
        llm.generate(PROMPT, GREEDY)
        goal, rest = VECTORS["T1"]["text"].split("</Outlines>\n")
        first, second = rest.split("</Thread>")[:2]
        heads = [f"{goal}</Outlines>\n<Thread>\n{label}:" for label in (1, 2)]
        joined = f"{goal}</Outlines>\n{first}</Thread>{second}</Thread>\n"
        assert [llm.decode(context).removeprefix(PROMPT) for context in up.contexts] == ["", *heads, joined]
        assert llm.generate(PROMPT, GREEDY)[0].usage.reread_tokens == len(llm.tokenizer.encode(f"{second}</Thread>"))


class Writes:
    """Writes a text, whatever is read: the tokens behind the prompt that are not there yet."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.ids, self.prompt = [*tokenizer.encode(text), tokenizer.eos_token_id], len(tokenizer.encode(PROMPT))

    def __call__(self, context: Sequence[int]) -> Score:
        at = len(context) - self.prompt
        return {self.ids[min(at, len(self.ids) - 1)]: 1.0}


@pytest.mark.parametrize("by_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("policy", ["refuse", "as-released", "sequential"])
def test_six_plans(tmp_path: Path, policy: Malformed, by_text: bool) -> None:
    """Where the goal closes the server stops, though nothing forks there."""
    dialect = replace(NPR, malformed=policy)
    tokenizer = build_tokenizer(dialect)
    tokenizer.save_pretrained(tmp_path)
    plans, more = VECTORS["N9"]["text"].removesuffix("\n"), "\n<step>\n1: x\n</step>\n<takeaway>\ny\n</takeaway>\n\n\\boxed{1}"
    with running(Loopback(Writes(tokenizer, plans + more), tokenizer)) as up:
        given: dict[str, Any] = {} if by_text else {"tokenizer": tmp_path}
        with StockLLM(up.url, dialect=dialect, **given) as llm:
            (out,) = llm.generate(PROMPT, replace(GREEDY, guard=False))
    match policy:
        case "refuse":
            assert out.finish_reason == "malformed"
            assert "found <plan> in a goal" in str(out.structure_error)
        case "as-released":
            assert (out.finish_reason, out.text, out.answer) == ("stop", plans, "")
        case "sequential":
            assert (out.finish_reason, out.text, out.answer) == ("stop", plans + more, "1")
            assert set(out.branches) == {""}
