"""Everything that can be set about a server, checked. Imports nothing but the errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal, get_args

from ..errors import RequestError

Instruction = Literal["parallel", "sequential", "as-is"]
"""Which instruction the server adds at the end of a chat's last message; ``as-is`` adds none."""

MIB = 1 << 20


def _budgets() -> dict[str, int | None]:
    return {"none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": None}


@dataclass(frozen=True)
class Settings:
    """Options of a server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        served_model_name: the name under which clients ask for the model; `None` takes the folder's name, or multiverse-mini.
        api_keys: any of these opens the API; with none, everybody may ask.
        mode: which instruction ends a chat's last message, unless a request says otherwise.
        max_body_bytes: larger request bodies are refused with 413.
        max_prompt_tokens: longer prompts are refused; `None` leaves it to what the model can read.
        default_max_tokens: bound on the tokens of an answer, for requests that give none.
        max_tokens_limit: the most that a request may ask for; `None` leaves it to the memory for keys and values.
        max_concurrent: generations in the engine at once, those that wait there for memory included.
        max_queue: generations that wait beyond them; more are refused with 429 at once.
        request_timeout: seconds from a request's arrival to its deadline: what runs then is wound up in good form.
        header_timeout: seconds within which a connection has to send the head of a request.
        body_timeout: seconds within which a request's body has to arrive.
        write_timeout: seconds for which a client may leave what it is sent unread, before the connection is cut.
        drain_grace: seconds that running requests have left after SIGTERM.
        cors_origins: web origins whose pages may ask; ``*`` is any.
        root_path: prefix that a reverse proxy takes off.
        reasoning_budgets: the thinking budget that each `reasoning_effort` stands for; `None` is no bound.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    served_model_name: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    mode: Instruction = "parallel"
    max_body_bytes: int = 8 * MIB
    max_prompt_tokens: int | None = None
    default_max_tokens: int = 2048
    max_tokens_limit: int | None = None
    max_concurrent: int = 256
    max_queue: int = 256
    request_timeout: float = 600.0
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    write_timeout: float = 60.0
    drain_grace: float = 30.0
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""
    reasoning_budgets: Mapping[str, int | None] = field(default_factory=_budgets)

    def __post_init__(self) -> None:
        positive = ("max_body_bytes", "default_max_tokens", "max_concurrent")
        optional = ("max_prompt_tokens", "max_tokens_limit")
        seconds = ("request_timeout", "header_timeout", "body_timeout", "write_timeout")
        for name in positive:
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in optional:
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "1 or more, or None (no bound)")
        for name in seconds:
            value = getattr(self, name)
            self._check(name, value > 0 and math.isfinite(value), "a number of seconds above 0")
        self._check("max_queue", self.max_queue >= 0, "0 or more (0 lets nobody wait)")
        self._check("drain_grace", 0 <= self.drain_grace < math.inf, "0 or more seconds")
        self._check("host", bool(self.host.strip()), "an address or a host name, such as 127.0.0.1")
        self._check("port", 0 <= self.port <= 65535, "from 1 to 65535, or 0 (any free one)")
        self._check("mode", self.mode in get_args(Instruction), "parallel, sequential or as-is")
        served = self.served_model_name
        self._check("served_model_name", served is None or bool(served.strip()), "a name that is not empty")
        limit = self.max_tokens_limit
        within = limit is None or self.default_max_tokens <= limit
        self._check("default_max_tokens", within, f"at most max_tokens_limit ({limit})")
        self._check_texts()

    def _check_texts(self) -> None:
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                # The key itself is a secret, and stays out of the message.
                raise RequestError("an API key is not valid: it must be printable ASCII without spaces, and not empty")
        for origin in self.cors_origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise RequestError(f"cors_origins={origin!r} is not valid: write scheme and host (https://example.com), or *")
        rooted = self.root_path == "" or (self.root_path.startswith("/") and not self.root_path.endswith("/"))
        self._check("root_path", rooted, "empty, or begin with / and not end with it")
        for effort, budget in self.reasoning_budgets.items():
            if budget is not None and budget < 0:
                raise RequestError(f"reasoning_budgets[{effort!r}]={budget} is not valid: it must be 0 or more, or None")

    def _check(self, name: str, good: bool, allowed: str) -> None:
        if not good:
            raise RequestError(f"{name}={getattr(self, name)!r} is not valid: it must be {allowed}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
