"""A conversation on the terminal: with the engine of this process, with a server, and with errors."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multiverse import LLM, SamplingParams
from multiverse.cli.chat import Conversation
from multiverse.cli.errors import InputError
from multiverse.cli.partner import Local
from multiverse.cli.remote import Remote, ServerError
from multiverse.cli.view import View
from multiverse.engine import Event, FinishEvent
from multiverse.models.about import UNLIKE, About
from multiverse.streaming import DocumentOrder, WireEvent, wire_events
from multiverse.structure import MULTIVERSE, Document, render
from tests.cli.conftest import Result
from tests.cli.scripted import NESTED, Write, scripted_llm
from tests.conftest import FAMILIES, build_tokenizer, save_model
from tests.serving.conftest import serving

Run = Callable[..., Result]
Writes = Callable[[Write], LLM]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """A user at a terminal who types these lines; an exception among them is what happens at the prompt."""

    def typed(*lines: str | BaseException) -> Terminal:
        script = iter(lines)

        def ask(prompt: str) -> str:  # noqa: ARG001
            line = next(script, None)
            if line is None:
                raise EOFError
            if isinstance(line, BaseException):
                raise line
            return line

        screen = Terminal()
        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("sys.stdout", screen)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        return screen

    return typed


def piped(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_piped_questions_get_an_answer_each(run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(lambda _: NESTED)
    piped(monkeypatch, "How many?\n\nAnd now?\n")
    code, out, err = run("chat")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [lines[0], lines[2]] == ["answer: 34", "answer: 34"]
    assert "parallelism" in lines[1]
    assert "from the cache" not in lines[1]
    assert "from the cache" in lines[3]


def test_what_the_model_says_of_itself_goes_to_stderr_once(run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = writes(lambda _: NESTED)
    llm.about = About("A model of squares.", "What is 7 times 7?", "For others there is big.", least_logprob=1.0)
    piped(monkeypatch, "How many?\nAnd now?\n")
    _, out, err = run("chat")
    introduction = 'A model of squares. For example: "What is 7 times 7?" For others there is big.'
    notice = f"{UNLIKE} For others there is big."
    assert err.splitlines() == [introduction, notice, notice]
    assert out.count("answer: 34") == 2
    for asked in (("generate", "How many?"), ("generate", "--json", "How many?")):
        _, out, err = run(*asked)
        assert err.splitlines() == [introduction, notice]
        assert "squares" not in out
    assert run("generate", "--raw", "How many?").err.splitlines() == [introduction]
    llm.about = About("A model of squares.", least_logprob=-1e9)
    assert run("generate", "How many?").err == "A model of squares.\n"


def test_earlier_turns_go_back_with_their_structure_and_come_from_the_cache(model_folders: dict[str, Path]) -> None:
    prompts: list[str] = []

    def write(prompt: str) -> Document:
        prompts.append(prompt)
        return NESTED

    llm = scripted_llm(model_folders["qwen3"], write)
    conversation = Conversation(Local(llm, SamplingParams(temperature=0), "tiny"), "parallel", "Be brief.")
    first = list(conversation.ask("How many?"))
    second = list(conversation.ask("And now?"))
    head = "system: Be brief.\nuser: How many? Think step by step and in parallel before answering.\nassistant: "
    assert prompts[0] == head
    follow = "\nuser: And now? Think step by step and in parallel before answering.\nassistant: "
    assert prompts[1] == f"{head}{render(NESTED)}{follow}"
    usage = second[-1].usage
    assert usage is not None
    # All of the first turn but its last token, which was never computed.
    assert usage["cached_tokens"] >= usage["prompt_tokens"] - len(follow) - 1
    assert usage["prompt_tokens"] > len(NESTED.plain_answer or "") + len(head)
    assert [moment.event for moment in first].count("join") == 3
    assert conversation.messages[2] == {"role": "assistant", "content": render(NESTED)}
    conversation.begin()
    assert conversation.messages == [{"role": "system", "content": "Be brief."}]


def test_sequential_questions_do_not_fork(model_folders: dict[str, Path]) -> None:
    prompts: list[str] = []

    def write(prompt: str) -> Document:
        prompts.append(prompt)
        return Document(("One thing.",), "1")

    llm = scripted_llm(model_folders["qwen3"], write)
    submitted: list[SamplingParams] = []
    submit = llm.engine.submit
    llm.engine.submit = lambda prompt, params, **rest: submitted.append(params) or submit(prompt, params, **rest)  # type: ignore[method-assign, func-returns-value]
    conversation = Conversation(Local(llm, SamplingParams(temperature=0), "tiny"), "sequential")
    list(conversation.ask("How many?"))
    conversation.mode = "as-is"
    list(conversation.ask("And now?"))
    assert [params.max_depth for params in submitted] == [0, SamplingParams().max_depth]
    assert "Think step by step before answering." in prompts[0]
    assert prompts[1].endswith("user: And now?\nassistant: ")


def test_an_answer_that_is_cut_short_is_dropped(model_folders: dict[str, Path]) -> None:
    llm = scripted_llm(model_folders["qwen3"], lambda _: NESTED)
    conversation = Conversation(Local(llm, SamplingParams(temperature=0, max_tokens=30, guard=False), "tiny"), "parallel")
    (*_, finish) = conversation.ask("How many?")
    assert finish.finish_reason == "length"
    assert conversation.messages == []


def test_chat_on_a_terminal(writes: Writes, run: Run, typed: Callable[..., Terminal], tmp_path: Path) -> None:
    llm = writes(lambda _: NESTED)
    file = tmp_path / "chat.json"
    screen = typed(
        *("/help", "/save x.json", "How many?", "/mode sequential", "/mode", "/mode sideways", "/nwe", KeyboardInterrupt()),
        *(
            "",
            "//slash",
            f"/save {file}",
            f"/save {file}",
            f"/save {tmp_path}/no/where.json",
            "/save",
            "/new",
            "/quit",
            "never",
        ),
    )
    assert run("chat").code == 0
    shown = screen.getvalue()
    assert not any(tag in shown for tag in MULTIVERSE.tags)
    for wanted in (
        *("multiverse-mini · parallel", "/new", "nothing to save", "Blue team", "critical path", "mode: sequential"),
        *("unknown mode 'sideways'", "did you mean '/new'?", "/quit or Ctrl-D leaves", "from the cache", "saved to"),
        *("already: choose another name", "cannot be written", "needs the name of a file", "a new conversation"),
    ):
        assert wanted in " ".join(shown.split()), wanted
    saved = json.loads(file.read_text())
    assert (saved["format"], saved["version"], saved["question"]) == ("multiverse-recording", 1, "/slash")
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"] * 2
    assert [turn["question"] for turn in saved["turns"]] == ["How many?", "/slash"]
    assert saved["turns"][1]["runs"] == saved["runs"]
    (recorded,) = saved["runs"]
    moments = [WireEvent.from_json(values) for values in recorded["moments"]]
    assert (recorded["mode"], moments[-1].event) == ("sequential", "finish")
    assert all(moment.seconds is not None for moment in moments)
    assert llm.engine.slots.owned == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(
    model_folders: dict[str, Path], writes: Writes, run: Run, typed: Callable[..., Terminal]
) -> None:
    del model_folders
    before = signal.getsignal(signal.SIGINT)
    prompts: list[str] = []

    def write(prompt: str) -> Document:
        prompts.append(prompt)
        if len(prompts) == 2:
            signal.raise_signal(signal.SIGINT)
        return NESTED

    llm = writes(write)
    screen = typed("How many?", "And then?", "And now?")
    assert run("chat").code == 0
    assert "stopped; this question is dropped" in screen.getvalue()
    assert "And then?" not in prompts[2]
    assert "How many?" in prompts[2]
    assert llm.engine.slots.owned == 0
    assert not llm.engine.busy
    assert signal.getsignal(signal.SIGINT) is before
    assert screen.getvalue().count("\x1b[?25h") >= screen.getvalue().count("\x1b[?25l")


def test_ctrl_c_ends_a_chat_with_a_pipe(run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: str) -> Document:
        signal.raise_signal(signal.SIGINT)
        return NESTED

    writes(write)
    piped(monkeypatch, "How many?\n")
    assert run("chat")[0::2] == (130, "interrupted\n")


def test_errors_at_a_terminal_leave_the_chat_going(writes: Writes, run: Run, typed: Callable[..., Terminal]) -> None:
    writes(lambda _: NESTED)
    screen = typed("x" * 3000, "bad \udcff bytes", "How many?")
    assert run("chat").code == 0
    shown = " ".join(screen.getvalue().split())
    assert "shorten the prompt (/new begins another conversation)" in shown
    assert "not UTF-8" in shown
    assert "critical path" in shown


@pytest.mark.parametrize(
    ("args", "text", "told"),
    [
        (("--mode", "sideways"), "", "--mode 'sideways' is not valid"),
        (("--max-tokens", "0"), "", "--max-tokens 0 is not valid"),
        ((), "x" * 3000, "shorten the prompt"),
        ((), b"\xff\n", "not UTF-8"),
        ((), "/nwe\n", "did you mean '/new'?"),
        (("--url", "127.0.0.1:8000"), "", "--url '127.0.0.1:8000' is not valid"),
        (("--url", "http://127.0.0.1:9"), "", "no server answers at http://127.0.0.1:9/v1"),
    ],
)
def test_invalid_piped_input(
    run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], text: str | bytes, told: str
) -> None:
    writes(lambda _: NESTED)
    piped(monkeypatch, text)
    code, _, err = run("chat", *args)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_a_model_without_a_template_is_refused(run: Run, writes: Writes) -> None:
    llm = writes(lambda _: NESTED)
    llm.tokenizer.chat_template = None
    code, _, err = run("chat")
    assert code == 2
    assert "has no chat template" in err


def test_a_template_that_refuses_the_system_message_is_one_line(
    run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = writes(lambda _: NESTED)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    llm.tokenizer.chat_template = refusal + str(llm.tokenizer.chat_template)
    piped(monkeypatch, "How many?")
    code, out, err = run("chat", "--system", "Be brief.")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("System role not supported\n")


def test_a_model_without_tags_is_said_to_have_none(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer(None)
    folder = save_model(tmp_path / "plain", FAMILIES["qwen2"](len(tokenizer)), tokenizer)
    told = f"{folder} has no tags to fork with: it answers as any other model, without forks"
    asked = ("--model", str(folder), "--max-tokens", "4", "--mode")
    for command in (("generate", *asked, "parallel", "How many?"), ("chat", *asked, "parallel")):
        piped(monkeypatch, "How many?")
        assert told in run(*command).err
    assert told not in run("generate", *asked, "sequential", "How many?").err


# -- a server ---------------------------------------------------------------------------------------------------------


class Endpoint(ThreadingHTTPServer):
    """Answers every chat with the same data lines, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, owner: str, lines: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner, self.lines = owner, lines
        self.status = 200
        self.key: str | None = None
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.key is not None and self.headers["authorization"] != f"Bearer {self.server.key}":
            self._send(401, json.dumps({"error": {"message": "wrong key"}}))
        elif self.path == "/v1/models":
            data = [{"id": name, "object": "model", "owned_by": self.server.owner} for name in ("one", "two")]
            self._send(200, json.dumps({"object": "list", "data": data}))
        else:
            self._send(404, "<html>")

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if self.server.status != 200:
            self._send(self.server.status, json.dumps({"error": {"message": "too much"}}))
            return
        lines = [line if isinstance(line, str) else f"data: {json.dumps(line)}" for line in self.server.lines]
        self._send(200, "".join(f"{line}\n\n" for line in lines), "text/event-stream")

    def _send(self, status: int, body: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    started: list[tuple[Endpoint, threading.Thread]] = []

    def serve(owner: str, lines: list[Any]) -> Endpoint:
        server = Endpoint(owner, lines)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield serve
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def chunk(finish: str | None = None, **delta: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


PLAIN = [
    chunk(role="assistant"),
    chunk(reasoning="Two "),
    chunk(reasoning_content="teams."),
    chunk(content="It is "),
    chunk(content="34."),
    chunk("stop"),
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}},
    "data: [DONE]",
]


def of_ours(events: list[Event]) -> list[Any]:
    """The stream of a Multiverse server for these events: a chunk for each, with the text that it releases."""
    order, lines = DocumentOrder(), []
    for event in events:
        text = order.feed_text(event)
        for wired in wire_events(event):
            lines.append({**(chunk(reasoning_content=text) if text else chunk()), "multiverse": wired.to_json()})
            text = ""
    return [": ping", *lines, chunk(content="Answer: 34"), chunk("stop"), "data: [DONE]"]


def test_branches_of_a_multiverse_server(serve: Callable[..., Endpoint], nested_events: list[Event]) -> None:
    server = serve("multiverse", of_ours(nested_events))
    partner = Remote(server.url, options={"temperature": 0.5}, extension={"thinking_budget": 9})
    assert (partner.name, partner.structured) == ("one", True)
    conversation = Conversation(partner, "parallel")
    received = list(conversation.ask("How many?"))
    conversation.mode = "sequential"
    list(conversation.ask("And now?"))
    first, second = server.asked
    assert [wired.event for wired in received] == [wired.event for event in nested_events for wired in wire_events(event)]
    assert (first["model"], first["stream"], first["temperature"]) == ("one", True, 0.5)
    assert first["multiverse"] == {"branches": True, "mode": "as-is", "thinking_budget": 9}
    assert second["multiverse"]["max_depth"] == 0
    assert first["messages"][0]["content"] == "How many? Think step by step and in parallel before answering."
    finish = nested_events[-1]
    assert isinstance(finish, FinishEvent)
    assert second["messages"][:2] == [
        first["messages"][0],
        {"role": "assistant", "content": "Answer: 34", "reasoning_content": finish.generation.text},
    ]


def test_plain_text_of_any_other_server(serve: Callable[..., Endpoint]) -> None:
    server = serve("somebody", PLAIN)
    partner = Remote(f"{server.url}/v1/", "two", options={"max_completion_tokens": 7})
    assert (partner.name, partner.structured) == ("two", False)
    conversation = Conversation(partner, "as-is")
    moments = list(conversation.ask("How many?"))
    list(conversation.ask("And now?"))
    assert [(moment.role, moment.text) for moment in moments[:-1]] == [
        ("text", "Two "),
        ("text", "teams."),
        ("answer", "It is "),
        ("answer", "34."),
    ]
    finish = moments[-1]
    assert (finish.finish_reason, finish.answer) == ("stop", "It is 34.")
    assert finish.usage is not None
    assert (finish.usage["total_tokens"], finish.usage["cached_tokens"]) == (5, 4)
    first, second = server.asked
    assert "multiverse" not in first
    assert first["max_completion_tokens"] == 7
    assert second["messages"] == [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "It is 34."},
        {"role": "user", "content": "And now?"},
    ]


def test_chat_with_a_server_on_a_terminal(serve: Callable[..., Endpoint], run: Run, typed: Callable[..., Terminal]) -> None:
    server = serve("somebody", PLAIN)
    screen = typed("How many?")
    assert run("chat", "--url", server.url).code == 0
    shown = screen.getvalue()
    for wanted in ("one · as-is", "Two teams.", "It is 34.", "5 tokens", "4 of 9 prompt tokens from the cache"):
        assert wanted in shown, wanted


def test_sampling_parameters_of_a_chat_reach_the_server(
    serve: Callable[..., Endpoint], nested_events: list[Event], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("multiverse", of_ours(nested_events))
    own = "--top-p 0.9 --top-k 5 --min-p 0.1 --seed 3 --stop END --stop FIN --max-tokens 99 --min-tokens 2"
    ours = "--max-depth 2 --reserved-tokens 20 --max-width 3 --no-guard"
    piped(monkeypatch, "How many?\n")
    assert run("chat", "--url", server.url, *own.split(), *ours.split()).code == 0
    body = server.asked[0]
    wanted = {"top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3, "stop": ["END", "FIN"], "max_completion_tokens": 99}
    wanted |= {"min_tokens": 2}
    assert {name: body[name] for name in wanted} == wanted
    limits = {"max_depth": 2, "tail_tokens": 20, "max_width": 3, "guard": False}
    assert body["multiverse"] == {"branches": True, "mode": "as-is", **limits}
    assert "temperature" not in body  # what is not given is the server's to choose
    assert "--max-seconds is for a model that is loaded here" in run("chat", "--url", server.url, "--max-seconds", "3").err


def test_a_seed_makes_a_chat_reproducible(run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(lambda _: NESTED)
    given: list[SamplingParams] = []
    local = Local.__init__

    def note(self: Local, llm: LLM, params: SamplingParams, name: str) -> None:
        given.append(params)
        local(self, llm, params, name)

    monkeypatch.setattr(Local, "__init__", note)
    piped(monkeypatch, "How many?\n")
    assert run("chat", "--seed", "7", "--top-k", "3", "--max-seconds", "60").code == 0
    assert given == [SamplingParams(seed=7, top_k=3, max_seconds=60)]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([chunk(content="x"), {"error": {"message": "out of memory"}}], "the server stopped: out of memory"),
        ([chunk(content="x")], "ended the stream before"),
        (["data: {"], "no chat completion"),
        (["data: 3"], "no chat completion"),
        ([{"multiverse": {"nothing": 1}}], "cannot be read"),
        ([{"multiverse": {"event": "token", "branch": "7", "text": "x", "role": "text"}}], "are inconsistent"),
    ],
)
def test_streams_that_break_off(
    serve: Callable[..., Endpoint], run: Run, typed: Callable[..., Terminal], lines: list[Any], told: str
) -> None:
    screen = typed("How many?")
    assert run("chat", "--url", serve("multiverse", lines).url).code == 0
    assert told in " ".join(screen.getvalue().split())


def test_what_the_model_of_a_real_server_says_of_itself(model_folders: dict[str, Path]) -> None:
    llm = scripted_llm(model_folders["qwen3"], lambda _: NESTED)
    with serving(llm) as site:
        for about, unlike in (
            (None, False),
            (About("A model of squares.", "What is 7 times 7?", "For others there is big.", least_logprob=1.0), True),
            (About("A model of squares.", least_logprob=-1e9), False),
        ):
            llm.about = about
            partner = Remote(site.url)
            assert partner.about == about
            assert partner.is_unlike("Why is the sky blue?") == unlike
            partner._client.close()


def test_what_a_server_refuses(serve: Callable[..., Endpoint]) -> None:
    server = serve("multiverse", PLAIN)
    server.key = "secret"
    with pytest.raises(ServerError, match="OPENAI_API_KEY"):
        Remote(server.url)
    partner = Remote(server.url, key="secret")
    server.status = 429
    with pytest.raises(ServerError, match="refused: too much"):
        list(partner.ask([{"role": "user", "content": "Q"}], "as-is"))
    with pytest.raises(ServerError, match=r"no model 'three': it offers one, two"):
        Remote(server.url, "three", "secret")
    with pytest.raises(ServerError, match="there is no chat"):
        Remote(f"{server.url}/elsewhere", key="secret")
    server.owner = "somebody"
    with pytest.raises(ServerError, match="thinking_budget"):
        Remote(server.url, key="secret", extension={"thinking_budget": 3})
    with pytest.raises(InputError, match="--url"):
        Remote("ftp://x")


def test_a_conversation_with_the_real_server(model_folders: dict[str, Path]) -> None:
    with serving(scripted_llm(model_folders["qwen3"], lambda _: NESTED), api_keys=("secret",)) as site:
        partner = Remote(site.url, key="secret", options={"temperature": 0})
        assert partner.structured
        conversation = Conversation(partner, "parallel")
        first = list(conversation.ask("How many?"))
        second = list(conversation.ask("And now?"))
        assert [moment.event for moment in first].count("fork") == 3
        view = View()
        for moment in second:
            view.feed(moment)
        assert view.finish is not None
        assert (view.finish.answer, view.trunk.block.lanes[0].outline) == ("34", "Check")
        usage = view.finish.usage or {}
        # The first turn came back token for token: all of it but the last token, which was never computed, is in the cache.
        question = "\nuser: And now? Think step by step and in parallel before answering.\nassistant: "
        assert usage["cached_tokens"] >= usage["prompt_tokens"] - len(question) - 1 > len(render(NESTED)) / 2
        gone = conversation.ask("And then?")
        next(gone)
        gone.close()  # Ctrl-C
        limit = 10_000
        while site.llm.engine.busy and limit:
            limit -= 1
            site.client.get("/health")
        assert not site.llm.engine.busy
        assert len(conversation.messages) == 4
