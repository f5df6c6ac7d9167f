"""A vision endpoint on the loopback: OpenAI's chat completions, streamed, with checks of what it is sent, and with faults.

It is two models: ``seer`` answers questions about images, ``judge`` replies with verdicts.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
FAULTS = ("429", "cut", "count", "refusal")
_REFUSALS = {
    "max_tokens": "use max_completion_tokens",
    "temperature": "'temperature' does not support 0 with this model. Only the default (1) value is supported.",
    "response_format": "response_format is not supported",
}


@dataclass
class Vision:
    """What it does, and what it was sent.

    Attributes:
        answer: the seer's answer to a request.
        met: whether the judge finds an item met, by the text of the item and the answer.
        faulty: three of ten requests to each model go wrong, in the ways of `FAULTS` in turn.
        plain: be an endpoint that refuses `response_format`, `max_tokens` and the judge's `temperature`, one at a time, has no
            list of models, and does not stream.
        delay: seconds that each reply takes.
        asked, judged: bodies of the requests that were answered.
        wrong: what was wrong with requests.
    """

    answer: Callable[[Body], str] = lambda body: f"I see a red square. ({last_text(body)})"
    met: Callable[[str, str], bool] = lambda item, _: not item.endswith("shape 1?")
    faulty: bool = False
    plain: bool = False
    delay: float = 0.0
    asked: list[Body] = field(default_factory=list)
    judged: list[Body] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    most: int = 0
    running: int = 0
    numbers: Counter[bool] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def fault(self, judge: bool) -> str | None:
        """What goes wrong with this request, if anything; a wrong number of verdicts is a judge's fault only."""
        with self.lock:
            number, self.numbers[judge] = self.numbers[judge], self.numbers[judge] + 1
        if not self.faulty or number % 10 not in (2, 5, 8):
            return None
        kinds = FAULTS if judge else FAULTS[:2]
        return kinds[number // 3 % len(kinds)]


def texts(message: Body) -> str:
    """The text of a message."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content if part["type"] == "text")


def last_text(body: Body) -> str:
    """The text of the last message."""
    return texts(body["messages"][-1])


def images(message: Body) -> list[str]:
    """The images of a message, as URLs."""
    content = message["content"]
    return [] if isinstance(content, str) else [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


def what_is_wrong(body: Body) -> str | None:
    """A request holds its image once, in its first user message, as an image that can be opened."""
    from PIL import Image

    users = [message for message in body["messages"] if message["role"] == "user"]
    if [len(images(message)) for message in users] != [1] + [0] * (len(users) - 1):
        return f"images in {[len(images(message)) for message in users]}"
    head, _, data = images(users[0])[0].partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        opened.load()
        kind = f"data:image/{str(opened.format).lower()}"
    return None if head == kind else f"{head} is {kind}"


def verdicts(vision: Vision, body: Body) -> str:
    """The judge's reply: a verdict for each item in the prompt."""
    prompt = next(texts(message) for message in body["messages"] if message["role"] == "user")
    checklist = prompt.rpartition("The checklist")[2]
    answer = prompt.partition("The answer to be judged:\n\n<<<\n")[2].partition("\n>>>")[0]
    items = re.findall(r"^\[(\d+)\] (.*)$", checklist, re.MULTILINE)
    found = [{"item": int(n), "reason": f"because of {n}", "met": vision.met(text, answer)} for n, text in items]
    return json.dumps({"verdicts": found})


class _Handler(BaseHTTPRequestHandler):
    vision: Vision
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        if self.vision.plain:
            self._send(404, {"error": {"message": "no such page"}})
            return
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "nobody"} for name in ("seer", "judge", "judge-2")]
        self._send(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        vision = self.vision
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        judge = body["model"] != "seer"
        with vision.lock:
            vision.running += 1
            vision.most = max(vision.most, vision.running)
        try:
            time.sleep(vision.delay)
            self._answer(vision, body, judge=judge)
        finally:
            with vision.lock:
                vision.running -= 1

    def _answer(self, vision: Vision, body: Body, *, judge: bool) -> None:
        refused = [name for name in _REFUSALS if name in body and (judge or name != "temperature")]
        if vision.plain and refused:
            hint = _REFUSALS[refused[0]]
            self._send(400, {"error": {"message": hint, "code": None}})
            return
        fault = vision.fault(judge)
        if fault == "429":
            self._send(429, {"error": {"message": "slow down"}}, ("retry-after", "0.01"))
            return
        if (wrong := what_is_wrong(body)) is not None:
            vision.wrong.append(wrong)
        text = verdicts(vision, body) if judge else vision.answer(body)
        if fault == "count":
            text = json.dumps({"verdicts": json.loads(text)["verdicts"] + [{"item": 99, "reason": "", "met": True}]})
        if fault == "refusal":
            text = "I'm sorry, but I can't help with that."
        if fault == "cut" and judge:
            text = text[: len(text) // 2]  # a reply that breaks off, in a whole response
        with vision.lock:
            (vision.judged if judge else vision.asked).append(body)
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
        if vision.plain:
            message = {"role": "assistant", "content": text}
            self._send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self._event({"choices": [{"index": 0, "delta": {"content": text[:5]}, "finish_reason": None}]})
        if fault == "cut" and not judge:
            with vision.lock:
                vision.asked.remove(body)
            self.wfile.write(b'data: {"choices": [{"index": 0, "del\n\n')
            return
        self._event({"choices": [{"index": 0, "delta": {"content": text[5:]}, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: Body) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _send(self, status: int, value: Body, *headers: tuple[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no fault of ours."""


@contextmanager
def serving(vision: Vision) -> Iterator[Vision]:
    """Run it, on a free port."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"vision": vision}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    vision.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield vision
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
