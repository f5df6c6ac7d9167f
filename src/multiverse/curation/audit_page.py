"""A local web page for the decisions about the candidates of an audit.

It is served on the loopback interface, under a secret path. Every decision is stored before the page continues.
"""

from __future__ import annotations

import hmac
import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Lock
from typing import Any

from ..errors import DataError
from .review import OPEN, Review
from .stages.groups import KINDS

HOST = "127.0.0.1"

_LONGEST = 10_000  # bytes of a decision
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'"


class Page:
    """The page and its server.

    Args:
        port: 0 takes a free one.

    Attributes:
        url: address of the page.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review = review
        self._token = secrets.token_urlsafe(24)
        # Browsers open connections without sending a request at once: each has a thread, so that it blocks no other.
        self._server = ThreadingHTTPServer((HOST, port), _handler(self, self._token))
        self._server.daemon_threads = True
        self._deciding = Lock()
        self.url = f"http://{HOST}:{self._server.server_port}/{self._token}/"

    def serve(self) -> None:
        """Serve until another thread calls `stop` or the process is interrupted."""
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Make `serve` return; called from another thread."""
        self._server.shutdown()

    def close(self) -> None:
        """Free the port."""
        self._server.server_close()

    def candidates(self) -> list[dict[str, Any]]:
        """Every candidate with its decision, without its text."""
        return [self.candidate(number) for number in range(len(self.review.candidates))]

    def candidate(self, number: int) -> dict[str, Any]:
        """One candidate with its decision."""
        listed, instance = self.review.candidates[number]
        decision = self.review.of(listed, instance)
        return {
            **instance._asdict(),
            "trace": listed.id,
            "decision": {
                "verdict": OPEN if decision is None else decision.verdict,
                "kind": instance.kind if decision is None else decision.kind,
                "nested": instance.nested if decision is None else decision.nested,
            },
        }

    def text(self, number: int) -> dict[str, Any]:
        """The text of a candidate's trace."""
        listed, _ = self.review.candidates[number]
        return {"question": listed.question, "sentences": listed.sentences}

    def decide(self, value: Any) -> dict[str, Any]:
        """Store a decision that the page sends (`ValueError` if it is invalid), and return the candidate."""
        if not isinstance(value, dict) or value.keys() != {"number", "verdict", "kind", "nested"}:
            raise ValueError("a decision has number, verdict, kind and nested")
        if type(value["number"]) is not int or type(value["nested"]) is not bool or value["kind"] not in KINDS:
            raise ValueError("number is a number, nested a truth value, kind one of the kinds")
        with self._deciding:
            self.review.decide(value["number"], str(value["verdict"]), value["kind"], value["nested"])
        return self.candidate(value["number"])


def _handler(page: Page, token: str) -> type[BaseHTTPRequestHandler]:
    html = (files(__package__) / "audit_page.html").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def do_GET(self) -> None:
            match self._path_parts():
                case [""]:
                    self._send(HTTPStatus.OK, html, "text/html; charset=utf-8")
                case ["candidates"]:
                    self._json(page.candidates())
                case ["text", number] if number.isdecimal() and int(number) < len(page.review.candidates):
                    self._json(page.text(int(number)))
                case _:
                    self._send(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self._path_parts() != ["decide"]:
                self._send(HTTPStatus.NOT_FOUND)
            elif not length.isdecimal() or int(length) > _LONGEST:
                self._send(HTTPStatus.BAD_REQUEST)
            else:
                try:
                    self._json(page.decide(json.loads(self.rfile.read(int(length)))))
                except DataError as error:
                    self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), "text/plain; charset=utf-8")
                except ValueError as error:
                    self._send(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain; charset=utf-8")

        def _path_parts(self) -> list[str] | None:
            """The path after the token; `None` if the token or the `Host` header is wrong."""
            given, *rest = self.path.removeprefix("/").split("/")
            host = self.headers.get("Host", "").rpartition(":")[0]
            known = hmac.compare_digest(given.encode(), token.encode()) and host in (HOST, "localhost")
            return rest if known else None

        def _json(self, value: Any) -> None:
            self._send(HTTPStatus.OK, json.dumps(value).encode(), "application/json")

        def _send(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain") -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("Content-Security-Policy", _POLICY),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Do not log requests to the terminal."""

    return Handler
