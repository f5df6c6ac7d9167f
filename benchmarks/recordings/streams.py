"""Record answers of the server, and bring two recordings of a stream into one form."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from .checkout import Checkout
from .masks import mask_body, mask_json
from .requests import FAMILIES, Asked, Problem, questions, refused

PER_FAMILY = 2
TIMEOUT = 300.0


def record(checkout: Checkout, out: Path) -> None:
    """Ask everything, one after the other; one file an answer."""
    out.mkdir(parents=True, exist_ok=True)
    problems = []
    for number in range(PER_FAMILY):
        for family in FAMILIES:
            drawn = checkout.run("tasks", family, "{limit}", "1", "--seed", str(number))
            problems.append(Problem.read(drawn.out))
    with checkout.server() as port:
        for asked in questions(problems):
            status, body = ask(port, asked)
            if status != 200:
                print(f"{asked.name} was answered with {status}: {body.decode()}", file=sys.stderr)
            streamed = asked.body["stream"] and status == 200
            (out / f"{asked.name}.{'sse' if streamed else 'json'}").write_bytes(mask_body(body))
        for asked in refused():
            status, body = ask(port, asked)
            (out / f"{asked.name}.json").write_text(json.dumps(_refusal(status, body)) + "\n")


def ask(port: int, asked: Asked) -> tuple[int, bytes]:
    """Status and whole body of one answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("POST", asked.path, json.dumps(asked.body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _refusal(status: int, body: bytes) -> dict[str, Any]:
    """A refusal without its message, whose wording is free."""
    error = json.loads(body)["error"]
    return {"status": status, **{name: error[name] for name in ("type", "param", "code")}}


def normalised(body: bytes) -> Any:
    """A stream of server-sent events as what a client gathers: by choice, its text, log-probabilities, end and branch events.

    How events are shared out among chunks, and how choices interleave, is left out. The order within a choice is kept.
    """
    choices: dict[int, dict[str, Any]] = {}
    rest: list[Any] = []
    for chunk in chunks(body):
        if not isinstance(chunk, dict):
            rest.append(chunk)
            continue
        event = chunk.pop("multiverse", None)
        parts = chunk.pop("choices", [])
        for part in parts:
            _gather(choices.setdefault(part["index"], {}), part)
        if event is not None:
            index = parts[0]["index"] if parts else 0
            choices.setdefault(index, {}).setdefault("events", []).append(event)
        if chunk.get("usage") is not None or "error" in chunk:
            rest.append(chunk)
    return {"choices": [choices[index] for index in sorted(choices)], "rest": mask_json(rest)}


def chunks(body: bytes) -> Iterator[Any]:
    """The values of the ``data:`` lines; ``[DONE]`` as a text."""
    for line in body.decode().split("\n"):
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)


def _gather(choice: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a chunk's part of a choice: texts and lists are appended, everything else is kept in order."""
    for name, value in part.items():
        if isinstance(value, dict):
            _gather(choice.setdefault(name, {}), value)
        elif isinstance(value, str) and name not in ("role", "finish_reason"):
            choice[name] = choice.get(name, "") + value
        elif isinstance(value, list):
            choice[name] = choice.get(name, []) + value
        elif value is not None:
            choice[name] = value
