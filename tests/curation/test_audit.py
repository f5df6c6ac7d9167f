"""The audit: validation of completions, decisions, the table, the page and the command."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer

from multiverse.cli import curate_audit
from multiverse.curation.audit import CANDIDATES, Audit, Instance, Listed, line, list_all, list_instances, read_candidates
from multiverse.curation.audit_page import Page
from multiverse.curation.config import CurationConfig
from multiverse.curation.errors import BudgetError, RefusedError
from multiverse.curation.outline import SentenceSpan
from multiverse.curation.review import DECISIONS, Mean, Review, mean
from multiverse.curation.types import Completion, Request, Trace
from multiverse.errors import DataError
from tests.curation.endpoint import Endpoint, serving

CONFIG = CurationConfig()
EVIL = "</script><script>alert(1)</script> <b>&amp;"


def trace(name: str = "t", sentences: int = 9) -> Trace:
    return Trace(name, f"What is {EVIL}?", tuple(f"Sentence {number} of {name}. " for number in range(1, sentences + 1)), "1")


def listing(*instances: tuple[str, list[list[int]]]) -> str:
    return json.dumps({"instances": [{"kind": kind, "parts": parts, "reason": "so"} for kind, parts in instances]})


class Script:
    """A model that gives these answers in turn."""

    def __init__(self, *answers: str | Completion) -> None:
        self.answers = [Completion(one) if isinstance(one, str) else one for one in answers]
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Completion:
        self.requests.append(request)
        return self.answers[min(len(self.requests), len(self.answers)) - 1]


def listed_by(*answers: str | Completion) -> tuple[Listed, list[Request]]:
    script = Script(*answers)
    return asyncio.run(list_instances(trace(), script, CONFIG)), script.requests


# -- the model ---------------------------------------------------------------------------------------------------------


def test_instances_are_read_in_order_and_nesting_is_found() -> None:
    text = listing(("selective", [[8, 8], [9, 9]]), ("collective", [[2, 4], [6, 9]]), ("collective", [[2, 2], [3, 4]]))
    found, requests = listed_by(text)
    assert [(one.kind, one.nested, one.parts) for one in found.instances] == [
        ("collective", False, (SentenceSpan(2, 4), SentenceSpan(6, 9))),
        ("collective", True, (SentenceSpan(2, 2), SentenceSpan(3, 4))),
        ("selective", True, (SentenceSpan(8, 8), SentenceSpan(9, 9))),
    ]
    assert found.problem == ""
    assert len(requests) == 1
    asked = requests[0].messages[-1][1]
    assert "stage: audit\nrow: t\n" in asked
    assert "[9] Sentence 9 of t." in asked


def test_nothing_listed_is_an_answer() -> None:
    found, _ = listed_by(listing())
    assert (found.instances, found.problem) == ((), "")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("I see none", "JSON"),
        ("", "empty"),
        (listing(("both", [[1, 2], [3, 4]])), "the kind of instance 1 is 'both'"),
        (listing(("collective", [[1, 4]])), "needs at least two"),
        (listing(("collective", [[1, 4], [9, 10]])), "names sentence 10: there are sentences 1 to 9"),
        (listing(("collective", [[4, 1], [5, 6]])), "the first may not come after the last"),
        (listing(("collective", [[4, 5], [5, 6]])), "[5, 6] does not stand behind [4, 5]"),
        (listing(("collective", [[4, 5], [1, 2]])), "[1, 2] does not stand behind [4, 5]"),
        (listing(("collective", [[1, 3], [4, 6]]), ("selective", [[3, 3], [4, 4]])), "instances 1 and 2 share sentences"),
        (listing(("collective", [[1, 3], [4, 6]]), ("selective", [[1, 3], [4, 6]])), "instances 1 and 2 share sentences"),
        (json.dumps({"instances": [{"kind": "collective", "parts": [[1, 1], [2, 2]]}]}), "lacks 'reason'"),
        (json.dumps({"instances": [{"kind": "collective", "parts": [[1, 1], [2, "x"]], "reason": "so"}]}), "two numbers"),
    ],
)
def test_invalid_completions_are_retried_with_the_error(answer: str, error: str) -> None:
    found, requests = listed_by(answer, listing(("collective", [[1, 2], [3, 4]])))
    assert len(found.instances) == 1
    first, second = requests
    assert second.attempt == 1
    assert second.messages[: len(first.messages)] == first.messages
    assert error in second.messages[-1][1]


def test_after_the_last_attempt_the_trace_is_kept_with_its_problem() -> None:
    found, requests = listed_by("nonsense")
    assert found.problem
    assert found.instances == ()
    assert found.sentences == trace().sentences
    assert [request.attempt for request in requests] == [0, 1, 2]


def test_a_truncated_completion_is_invalid() -> None:
    found, requests = listed_by(Completion(listing(), "length"), listing())
    assert found.problem == ""
    assert "cut short" in requests[1].messages[-1][1]


def test_traces_come_in_order_and_few_at_once() -> None:
    flying = most = 0

    async def ask(request: Request) -> Completion:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(1 + int(request.row) % 5):
            await asyncio.sleep(0)
        flying -= 1
        if request.row == "3":
            raise RefusedError("too long")
        return Completion(listing())

    async def all_of_them() -> list[Listed]:
        return [one async for one in list_all((trace(str(n)) for n in range(20)), ask, CONFIG, at_once=4)]

    found = asyncio.run(all_of_them())
    assert [one.id for one in found] == [str(n) for n in range(20)]
    assert [one.problem for one in found if one.problem] == ["too long"]
    assert most == 4


def test_errors_that_end_the_run_are_raised_after_earlier_traces() -> None:
    async def ask(request: Request) -> Completion:
        if request.row == "5":
            raise BudgetError("spent")
        return Completion(listing())

    found: list[str] = []

    async def take() -> None:
        async for one in list_all((trace(str(n)) for n in range(20)), ask, CONFIG, at_once=3):
            found.append(one.id)

    with pytest.raises(BudgetError):
        asyncio.run(take())
    assert found == ["0", "1", "2", "3", "4"]


def test_the_example_in_the_prompt_is_valid() -> None:
    """The example in the prompt is an answer that would be accepted."""
    prompt = (files("multiverse.curation") / "prompts" / "audit.md").read_text()
    example = prompt[prompt.index('{"instances"') : prompt.index("Where there is no instance")]
    found = Audit(trace(), CONFIG).parse(Completion(example))
    assert [one.nested for one in found] == [False, True]


# -- the person --------------------------------------------------------------------------------------------------------


def instance(*parts: tuple[int, int], kind: str = "collective", nested: bool = False) -> Instance:
    return Instance(kind, nested, tuple(SentenceSpan(*part) for part in parts), EVIL)


OUTER, INNER = instance((1, 4), (5, 9)), instance((1, 2), (3, 4), kind="selective", nested=True)


def listed(name: str, *instances: Instance, problem: str = "") -> Listed:
    return Listed(name, trace().question, (*trace(name).sentences[:-1], f"Half \ud83d {EVIL}"), instances, problem)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four traces: two instances, one, none, and one that could not be listed."""
    found = [listed("a", OUTER, INNER), listed("b", OUTER), listed("c"), listed("d", problem="nonsense")]
    (tmp_path / CANDIDATES).write_text("".join(map(line, found)))
    return tmp_path


def test_candidates_are_read_as_they_were_written(folder: Path) -> None:
    assert next(read_candidates(folder / CANDIDATES)) == listed("a", OUTER, INNER)
    (folder / CANDIDATES).write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"candidates\.jsonl:1"):
        Review(folder)
    (folder / CANDIDATES).unlink()
    with pytest.raises(DataError, match="list the instances first"):
        Review(folder)


def test_decisions_are_stored_at_once_and_the_last_one_counts(folder: Path) -> None:
    review = Review(folder)
    assert list(review.open()) == [0, 1, 2]
    review.decide(0, "accept")
    review.decide(1, "reject")
    again = Review(folder)
    assert list(again.open()) == [2]
    again.decide(1, "accept", "collective", False)
    again.decide(0, "open")
    last = Review(folder)
    assert list(last.open()) == [0, 2]
    decision = last.of(*last.candidates[1])
    assert decision is not None
    assert (decision.verdict, decision.category) == ("accept", "collective")


def test_a_truncated_decision_is_ignored(folder: Path) -> None:
    Review(folder).decide(0, "accept")
    with (folder / DECISIONS).open("ab") as stream:
        stream.write(b'{"id": "a", "par')
    review = Review(folder)
    assert list(review.open()) == [1, 2]
    review.decide(1, "accept")
    assert list(Review(folder).open()) == [2]


def test_decisions_stay_valid_after_a_second_listing(folder: Path) -> None:
    Review(folder).decide(1, "accept")
    (folder / CANDIDATES).write_text(line(listed("a", INNER, instance((6, 6), (7, 7)))))
    assert list(Review(folder).open()) == [1]


@pytest.mark.parametrize("args", [(3, "accept"), (-1, "accept"), (0, "maybe"), (0, "accept", "other")])
def test_no_such_decision(folder: Path, args: tuple[Any, ...]) -> None:
    review = Review(folder)
    with pytest.raises(ValueError, match=r"numbered|verdict"):
        review.decide(*args)
    assert not (folder / DECISIONS).exists()


def test_the_table_counts_traces_that_are_decided_in_full(folder: Path) -> None:
    review = Review(folder)
    review.decide(0, "accept")
    table = review.table()
    assert (table.traces, table.undecided, table.failed) == (1, 2, 1)
    assert table.share == Mean(0.0, None)
    review.decide(1, "accept")
    review.decide(2, "reject")
    table = review.table()
    assert (table.traces, table.undecided, table.failed) == (3, 0, 1)
    # One of three traces has instances: two of them.
    assert table.share == Mean(pytest.approx(1 / 3), pytest.approx(math.sqrt(1 / 3) / math.sqrt(3)))
    assert table.frequency == Mean(pytest.approx(2 / 3), pytest.approx(math.sqrt(4 / 3) / math.sqrt(3)))
    assert [name for name, mean in table.frequencies.items() if mean and mean.mean] == ["collective", "nested selective"]
    assert table.rows()[-1] == ("any", "33.3% ± 33.3%", "0.67 ± 0.67")
    assert "n = 3 traces" in table.markdown()
    assert json.loads(json.dumps(table.as_json()))["shares"]["selective"] == {"mean": 0.0, "stderr": 0.0}


def test_nothing_to_count() -> None:
    assert mean([]) is None
    assert mean([2]) == Mean(2, None)


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(folder: Path) -> Iterator[Page]:
    page = Page(Review(folder))
    thread = threading.Thread(target=page.serve)
    thread.start()
    yield page
    page.stop()
    thread.join()
    page.close()


def call(page: Page, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    url = urlsplit(page.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
    try:
        connection.request(method, path if path.startswith("/") else url.path + path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def test_the_page_shows_and_decides(page: Page, folder: Path) -> None:
    status, html, headers = call(page, "GET", "")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org", "", html)
    candidates = json.loads(call(page, "GET", "candidates")[1])
    assert [one["trace"] for one in candidates] == ["a", "a", "b"]
    assert candidates[0]["parts"] == [[1, 4], [5, 9]]
    assert json.loads(call(page, "GET", "text/2")[1])["question"] == trace().question
    decision = {"number": 1, "verdict": "accept", "kind": "collective", "nested": False}
    status, body, _ = call(page, "POST", "decide", json.dumps(decision))
    assert status == 200
    assert json.loads(body)["decision"] == {"verdict": "accept", "kind": "collective", "nested": False}
    assert list(Review(folder).open()) == [0, 2]


def test_the_page_refuses_other_paths_and_hosts(page: Page, folder: Path) -> None:
    assert urlsplit(page.url).hostname == "127.0.0.1"
    assert len(urlsplit(page.url).path) > 30
    decision = json.dumps({"number": 1, "verdict": "accept", "kind": "collective", "nested": False})
    for path in ("/", "/candidates", "/x/candidates", f"{urlsplit(page.url).path}text/3", f"{urlsplit(page.url).path}text/-1"):
        assert call(page, "GET", path)[0] == 404
    assert call(page, "GET", "candidates", Host="evil.example:80")[0] == 404
    assert call(page, "POST", "/x/decide", decision)[0] == 404
    for wrong in ("{}", "[]", "nonsense", decision.replace("accept", "maybe"), decision.replace("1", "7"), "x" * 20_000):
        assert call(page, "POST", "decide", wrong)[0] == 400
    assert not (folder / DECISIONS).exists()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("name", ["audit_page.html", "report.html.j2"])
def test_the_scripts_of_the_pages_parse(name: str, tmp_path: Path) -> None:
    text = (files("multiverse.curation") / name).read_text()
    (script,) = re.findall(r"<script>\n(.*?)</script>", text, re.DOTALL)
    (tmp_path / "script.js").write_text(re.sub(r"\{\{.*?\}\}", "x", script))
    done = subprocess.run(["node", "--check", str(tmp_path / "script.js")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """Run the command; returns what it printed."""
    monkeypatch.setenv("COLUMNS", "100")
    app = typer.Typer()
    app.command()(curate_audit.audit)

    def run(*args: str) -> tuple[str, str]:
        capsys.readouterr()
        typer.main.get_command(app).main(list(args), "audit", standalone_mode=False)
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    lines = [{"question": f"Question {n}", "reasoning": "One. Two. Three. Four.", "answer": "1"} for n in range(3)]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return tmp_path / "traces.jsonl"


def test_from_traces_to_the_table(run: Callable[..., tuple[str, str]], traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    answer = listing(("collective", [[1, 1], [2, 2]]))
    planted = {f"{traces.name}:{number}": None for number in (1, 2, 3)}
    with serving(Endpoint(lambda stage, messages, row: answer, planted)) as endpoint:  # noqa: ARG005
        for _ in range(2):
            run(str(traces), "--out", str(out), "--base-url", endpoint.url, "--model", "m")
        assert sum(endpoint.calls.values()) == 3  # the second time, all answers are there
    review = Review(out)
    assert len(review.candidates) == 3
    review.decide(0, "accept")
    review.decide(1, "accept", "selective", False)
    review.decide(2, "reject")
    printed, _ = run("--out", str(out), "--table")
    assert "66.7% ± 33.3%" in printed
    assert "n = 3 traces" in printed
    assert "| any | 66.7%" in (out / "table.md").read_text()
    printed, _ = run("--out", str(out), "--json")
    assert json.loads(printed)["frequencies"]["selective"]["mean"] == pytest.approx(1 / 3)
    assert json.loads((out / "table.json").read_text())["traces"] == 3


def test_one_key_a_decision(run: Callable[..., tuple[str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    keys = iter("abxCrlb\x03")
    monkeypatch.setattr(typer, "getchar", lambda: next(keys))
    printed, _ = run("--out", str(folder), "--review")
    assert "1 undecided" in printed
    review = Review(folder)
    decisions = [review.of(*candidate) for candidate in review.candidates]
    assert [decision and (decision.verdict, decision.category) for decision in decisions] == [
        ("accept", "nested collective"),
        ("reject", "nested selective"),
        None,
    ]
    assert "1 of 3" in printed
    assert "Sentence 1 of a." in printed


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), "nothing to do"),
        (("--review",), "needs a terminal"),
        (("x.jsonl",), "--model is missing"),
        (("x.jsonl", "-m", "m", "--base-url", "ftp://x"), "--base-url"),
        (("x.jsonl", "-m", "m"), "holds no trace"),
        (("--table",), "list the instances first"),
    ],
)
def test_invalid_arguments_are_refused(
    run: Callable[..., tuple[str, str]], args: tuple[str, ...], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=error):
        run(*args, "--out", str(tmp_path / "audit"))
