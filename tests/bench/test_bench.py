"""`multiverse bench`: what is measured, what is kept, and how it is reported. No figure is compared with a clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multiverse import LLM
from multiverse.bench.config import BenchConfig
from multiverse.bench.page import write_page
from multiverse.bench.record import FORKED, SEPARATE, Case, Record, Whole
from multiverse.bench.run import GENERATE, LLAMA, VLLM, measure

SMALL = BenchConfig(rows=(1, 3), prefixes=(96,), decode_steps=3, rounds=2, against=("none",))


@pytest.fixture(scope="module")
def llm(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["qwen3"])


def test_every_round_measures_everything_once(llm: LLM) -> None:
    sampler, told = llm.engine.sampler, list[str]()
    record = measure(llm, SMALL, "tiny", on_task=lambda what, done, total: told.append(f"{done + 1}/{total} {what}"))
    assert set(record.speeds) == {Case(SEPARATE, 1, 96), Case(SEPARATE, 3, 96), Case(FORKED, 3, 96)}
    assert all(len(values) == 2 and min(values) > 0 for values in record.speeds.values())
    assert [len(values) for values in record.first_tokens.values()] == [2]
    (wholes,) = record.documents.values()
    # Three paths of three tokens each, and what is forced around them; the line has as many tokens.
    assert len(wholes) == 2
    assert wholes[0].tokens - wholes[0].critical_path_tokens >= 2 * 3
    assert min(wholes[0].seconds, wholes[0].line_seconds) > 0
    # Warm-up, then a round and a round backwards: five measurements each.
    assert told[-1].startswith("15/15")
    assert [line.partition(" ")[2] for line in told[5:10]] == [line.partition(" ")[2] for line in told[:-6:-1]]
    assert not record.notes
    assert not record.interrupted
    assert llm.engine.sampler is sampler, "the model is as it was"
    llm.engine.check_integrity()


def test_an_interrupt_keeps_what_was_measured(llm: LLM) -> None:
    def told(_: str, done: int, __: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    record = measure(llm, SMALL, "tiny", on_task=told)
    assert record.interrupted
    assert sum(map(len, record.speeds.values())) == 3
    assert record.to_json()["interrupted"] is True
    assert len(llm.chat([{"role": "user", "content": "Q"}], llm.sampling(max_tokens=2), progress=False)) == 1


def test_transformers_generate_stands_beside_it_and_what_is_not_here_is_said(llm: LLM) -> None:
    against = BenchConfig(
        rows=(2,), prefixes=(64,), decode_steps=2, rounds=1, llama_server="no-such-llama", vllm="no-such-vllm", gguf="x.gguf"
    )
    record = measure(llm, against, "tiny")
    assert {Case(GENERATE, 2, 64), Case(FORKED, 2, 64)} <= set(record.speeds)
    assert (GENERATE, 64) in record.first_tokens
    assert record.notes == [
        f"{LLAMA}: not measured, there is no 'no-such-llama' here",
        f"{VLLM}: not measured, there is no 'no-such-vllm' here",
    ]
    (ours,) = record.ratios(Case(GENERATE, 2, 64))
    assert ours == record.speeds[Case(FORKED, 2, 64)][0] / record.speeds[Case(GENERATE, 2, 64)][0]


def test_a_prefix_that_is_too_short_is_a_note_and_the_rest_is_measured(llm: LLM) -> None:
    record = measure(llm, BenchConfig(rows=(2,), prefixes=(4,), decode_steps=2, rounds=1, against=("none",)), "tiny")
    assert set(record.speeds) == {Case(SEPARATE, 2, 4)}
    (note,) = record.notes
    assert "too short for 2 branches" in note


class Fake(BaseHTTPRequestHandler):
    """A server with the completions API that sends as many tokens as it is asked for, two in a chunk."""

    asked: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"data": [{"id": "served", "owned_by": "vllm"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        chunks = [{"choices": [{"text": "xx", "finish_reason": None}]}] * -(-body["max_tokens"] // 2)
        chunks.append({"choices": [], "usage": {"completion_tokens": body["max_tokens"]}})
        self._send("text/event-stream", "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n")

    def _send(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        for piece in text.splitlines(keepends=True):  # not in one piece, so that there is something to time
            self.wfile.write(piece.encode())
            self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Fake.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Fake) as own:
        threading.Thread(target=own.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{own.server_port}/v1"
        own.shutdown()


def test_a_server_is_sent_the_same_prompts(llm: LLM, server: str) -> None:
    config = BenchConfig(rows=(3,), prefixes=(64,), decode_steps=4, rounds=1, against=("none",), server_url=(server,))
    record = measure(llm, config, "tiny")
    assert record.versions == {server: "vLLM, model served"}
    assert len(record.first_tokens[server, 64]) == 1
    timed = [body for body in Fake.asked if body["max_tokens"] == 5][-3:]
    assert len(timed) == 3
    assert all(body["prompt"] == timed[0]["prompt"] and len(body["prompt"]) == 64 for body in timed)
    assert all(body["ignore_eos"] for body in timed)


def test_a_server_that_is_not_there_is_a_note(llm: LLM) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    config = BenchConfig(rows=(1,), prefixes=(32,), decode_steps=2, rounds=1, against=("none",), server_url=(nowhere,))
    record = measure(llm, config, "tiny")
    assert set(record.speeds) == {Case(SEPARATE, 1, 32)}
    (note,) = record.notes
    assert note.startswith(f"{nowhere}: left out (looking it up): {nowhere} cannot be reached")


def made() -> Record:
    """A run with known figures."""
    record = Record("</script>m", "a machine", "2026-11-30", {"rounds": 3, "decode_steps": 4})
    record.speeds = {
        Case(SEPARATE, 1, 8): [10.0, 20.0, 40.0],
        Case(FORKED, 4, 8): [30.0, 80.0, 80.0],
        Case(GENERATE, 4, 8): [10.0, 20.0, 80.0],
    }
    record.first_tokens = {(SEPARATE, 8): [0.1, 0.3, 0.2]}
    record.documents = {(4, 8): [Whole(100, 25, 1.0, 3.0), Whole(100, 25, 1.0, 2.0)]}
    return record


def test_figures_are_medians_and_ratios_those_within_a_round() -> None:
    found = made().to_json()
    assert [one["tokens_per_second"] for one in found["decode"]] == [20, 80, 20]
    assert found["decode"][1]["times_a_line"] == 3  # of 3, 4 and 2
    assert found["decode"][2]["ours_is_times_as_fast"] == 3  # of 3, 4 and 1
    assert found["first_token"][0]["seconds"] == 0.2
    (document,) = found["documents"]
    assert (document["parallelism"], document["speedup"]) == (4, 2.5)


def test_the_page_holds_the_figures_and_nothing_in_it_is_markup(tmp_path: Path) -> None:
    write_page(made(), tmp_path / "new" / "bench.html")
    text = (tmp_path / "new" / "bench.html").read_text()
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data) == made().to_json()
    assert "default-src 'none'" in text
