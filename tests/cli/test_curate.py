"""`multiverse curate`: normal use and error messages."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from multiverse.cli.curate_progress import Progress
from multiverse.curation.budget import Budget
from multiverse.curation.client import Client
from multiverse.curation.config import BudgetConfig, EndpointConfig
from multiverse.curation.errors import StoppedError
from multiverse.curation.outcomes import Outcomes
from multiverse.curation.store import Store
from multiverse.curation.types import Usage
from multiverse.data import read
from multiverse.structure import parse
from tests.cli.conftest import Result
from tests.cli.test_commands import Terminal
from tests.curation import endpoint as served
from tests.curation.annotator import Planted, answer, planted_rows, recovered

Run = Callable[..., Result]
ROWS = 6


class World:
    """Planted traces in a file, an endpoint that knows them, and what every command line needs."""

    def __init__(self, folder: Path, rows: Sequence[Planted]) -> None:
        self.out, self.rows = folder / "out", {row.trace.id: row for row in rows}
        self.source = folder / "planted.jsonl"
        records = [
            {"question": row.trace.question, "reasoning": row.trace.reasoning, "answer": row.trace.answer} for row in rows
        ]
        self.source.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        self.up = served.Endpoint(answer, self.rows)

    @property
    def args(self) -> list[str]:
        return [str(self.source), "--out", str(self.out), "-m", "model", "--base-url", self.up.url]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    world = World(tmp_path, planted_rows(ROWS))
    with served.serving(world.up):
        yield world


def failed(result: Result, *wanted: str) -> None:
    assert (result.code, result.out) == (2, "")
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert all(text in last for text in wanted), last


@pytest.mark.parametrize("args", [(), ("--help",), ("run", "-h"), ("audit", "-h")])
def test_help(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run("curate", *args)
    assert (code, err) == (0, "")
    assert "Example" in out
    assert "multiverse curate" in out


def test_curate(run: Run, world: World) -> None:
    code, out, err = run("curate", *world.args, "--validation", "0.3", "--keep-xml")
    assert code == 0
    assert f"{world.out}: {ROWS} curated, 0 rejected; {sum(world.up.calls.values())} calls" in out
    assert "report.html" in out
    assert err.startswith(f"{ROWS} rows: about ")
    found = [json.loads(line) for line in (world.out / "outcomes.jsonl").read_text().splitlines()]
    assert all(recovered(parse(row["document"]), world.rows[row["id"]]) for row in found)
    sets = [read(world.out / "data", split=name) for name in ("train", "validation")]
    assert sum(len(loaded.rows) for loaded in sets if not loaded.faults) == ROWS
    assert len(list((world.out / "documents").iterdir())) == ROWS


def test_run_may_be_given_or_left_out(run: Run, world: World) -> None:
    assert run("curate", "run", *world.args, "--limit", "1").code == 0
    assert run("curate", "--limit", "2", *world.args).code == 0  # an option first
    assert "2 curated" in run("curate", *world.args, "--limit", "2").out


def test_json(run: Run, world: World) -> None:
    code, out, _ = run("curate", *world.args, "--json", "--price-in", "1", "--price-out", "10", "--no-rewrite")
    assert code == 0
    printed = json.loads(out)
    assert (printed["ended"], printed["curated"], printed["totals"]["not_reached"]) == (None, ROWS, 0)
    paid = printed["paid"]
    assert printed["totals"]["cost"] == pytest.approx(paid["prompt_tokens"] / 1e6 + paid["completion_tokens"] / 1e5)


def test_dry_run(run: Run, world: World) -> None:
    code, out, err = run("curate", *world.args, "--dry-run", "--price-out", "10")
    assert (code, err) == (0, "")
    assert "rewrite" in out
    assert "cost" in out
    printed = json.loads(run("curate", *world.args, "--dry-run", "--json", "--no-rewrite").out)
    assert (printed["rows"], printed["cost"]) == (ROWS, None)
    assert "rewrite" not in printed["stages"]
    assert not world.up.calls
    assert not world.out.exists()


def test_the_key(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(run("curate", *world.args, "--api-key-env", "MY_KEY"), "--api-key-env 'MY_KEY' is not set")
    monkeypatch.setenv("MY_KEY", "secret")
    assert run("curate", *world.args, "--limit", "1", "--api-key-env", "MY_KEY").code == 0
    for path in world.out.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_limits_of_cost_and_tokens(run: Run, world: World) -> None:
    failed(run("curate", *world.args, "--max-cost", "5"), "--max-cost 5 needs prices")
    capped = (*world.args, "--token-budget", "9000")
    failed(run("curate", *capped), "the estimate exceeds --token-budget 9000", "--yes")
    assert not world.up.calls
    code, out, err = run("curate", *capped, "--yes")
    assert code == 2
    assert "not reached" in out
    assert "--token-budget 9000 leaves too little for the next call" in err
    assert run("curate", *world.args).code == 0


def test_interrupted(run: Run, world: World) -> None:
    def interrupt(body: dict[str, Any], number: int) -> None:  # noqa: ARG001
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)

    world.up.override = interrupt
    code, out, err = run("curate", *world.args)
    assert code == 130
    assert "0 curated" in out
    assert "interrupted; completions are stored: start again to continue" in err
    world.up.override = None
    assert f"{ROWS} curated" in run("curate", *world.args).out
    assert set(world.up.answered.values()) == {1}


def test_faulty_rows(run: Run, world: World) -> None:
    with world.source.open("a") as stream:
        stream.write('{"question": "and?"}\n')
    result = run("curate", *world.args)
    failed(result, "1 of the input's rows cannot be read", "--on-error skip")
    assert f"planted.jsonl:{ROWS + 1}: it needs the columns" in result.err
    assert not world.up.calls
    assert run("curate", *world.args, "--on-error", "skip").code == 0
    (fault,) = (world.out / "faults.jsonl").read_text().splitlines()
    assert json.loads(fault)["line"] == ROWS + 1


def test_errors_in_one_line(run: Run, world: World, tmp_path: Path) -> None:
    source, *rest = world.args
    result = run("curate", str(tmp_path / "nowhere.jsonl"), *rest)
    failed(result, "nowhere.jsonl' holds no trace")
    assert "there is no such file" in result.err
    failed(run("curate", *world.args, "--base-url", "localhost"), "--base-url 'localhost' is not valid")
    failed(run("curate", *world.args, "--dialect", "npc"), "did you mean 'npr'")
    failed(run("curate", source), "missing option")
    failed(run("curate", *world.args, "--concurrency", "0"), "--concurrency 0 is not valid")
    world.out.mkdir()
    (world.out / "thesis.txt").write_text("my only copy")
    failed(run("curate", *world.args), "'thesis.txt', which does not belong to a run")


def test_an_endpoint_that_refuses(run: Run, world: World) -> None:
    world.up.override = lambda body, number: served.error(401, "who are you?")  # noqa: ARG005
    code, _, err = run("curate", *world.args)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {world.up.url} does not accept the key (401: who are you?)")


def test_other_settings(run: Run, world: World) -> None:
    assert run("curate", *world.args, "--limit", "1").code == 0
    failed(run("curate", *world.args, "--judge"), "judge false there, true here", "--fresh")
    assert run("curate", *world.args, "--judge", "--fresh").code == 0


def test_live(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    store, outcomes = Store(tmp_path / "answers.sqlite"), Outcomes(tmp_path / "outcomes.jsonl")
    try:
        budget = Budget(BudgetConfig(1, 1), spent=Usage(7, 1_000_000, 500_000))
        client = Client(EndpointConfig(world.up.url, "model"), store, budget)
        progress = Progress(40)
        with progress.live():
            assert progress.lines() == ["starting"]
            progress.watch(client, outcomes)
            outcomes.count({"status": "curated"})
            outcomes.count({"status": "set aside"})
            client.failures["429"] = 3
            client.stages["rewrite"] = 2
            assert progress.lines() == [
                "2 of 40 rows · 1 curated · 1 rejected",
                "7 calls · 1.5M tokens · cost 1.50 · 0 of 16 in flight · 3 transient failures",
                "waiting: rewrite 2",
            ]
            client.limiter.stop(StoppedError("enough"))
            assert progress.lines()[0].endswith("stopping: waiting for calls in flight")
        assert "2 of 40 rows" in terminal.getvalue()
    finally:
        outcomes.close()
        store.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--n", "--limit"),
        ("--answer-tokens", "--max-tokens"),
        ("--keep-going", "--on-error skip"),
    ],
)
def test_old_names_of_options_are_refused(run: Run, world: World, old: str, new: str) -> None:
    failed(run("curate", *world.args, old, "3"), f"{old} is now called {new}")


@pytest.fixture
def useless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An endpoint of which no answer is of any use."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    world = World(tmp_path, planted_rows(2))
    world.up = served.Endpoint(lambda *_: "I cannot say.", world.rows)
    with served.serving(world.up):
        yield world


def test_with_nothing_curated_there_is_nothing_to_train_on(run: Run, useless: World) -> None:
    code, out, err = run("curate", *useless.args)
    assert code == 2
    assert "0 curated, 2 rejected" in out
    assert "training data" not in out
    last = err.splitlines()[-1]
    assert last.startswith("error: none of 2 rows was curated (not JSON): there is nothing to train on; see ")
    assert run("curate", *useless.args, "--json").code == 2


def test_an_audit_says_what_it_listed_and_fails_if_that_is_nothing(run: Run, useless: World) -> None:
    code, out, err = run("curate", "audit", *useless.args)
    assert code == 2
    assert out == f"{useless.out}: 0 of 2 traces listed, 0 instances\n  2 × not JSON\n"
    assert err == "error: no trace could be listed (not JSON): check --model, or raise --attempts\n"


def test_an_audit_with_some_traces_failed_is_an_audit(run: Run, useless: World) -> None:
    replies = iter(['{"instances": []}'])
    useless.up.answer = lambda *_: next(replies, "I cannot say.")
    code, out, _ = run("curate", "audit", *useless.args, "--concurrency", "1", "--attempts", "1")
    assert (code, out) == (0, f"{useless.out}: 1 of 2 traces listed, 0 instances\n  1 × not JSON\n")


@pytest.mark.parametrize("command", [("curate",), ("curate", "audit")])
def test_an_endpoint_that_cannot_be_reached(run: Run, world: World, command: tuple[str, ...]) -> None:
    args = [*world.args[:-1], "http://127.0.0.1:9/v1"]
    code, _, err = run(*command, *args)
    assert code == 2
    assert "http://127.0.0.1:9/v1 cannot be reached" in err.splitlines()[-1]
