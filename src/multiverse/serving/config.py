"""The options of a server, declared and checked. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from ..common import CommonOptions
from ..errors import ConfigError
from ..options import Options, like, option
from ..prompting import Instruction

MIB = 1 << 20
_MODEL, _SERVER, _ACCESS, _LIMITS, _SCALE = "Model", "Server", "Access", "Limits", "Scale"


def _budgets() -> dict[str, int | None]:
    return {"none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": None}


@dataclass(frozen=True)
class ServerConfig(Options):
    """Options of a server."""

    served_model_name: str | None = option(
        None, "Name by which clients ask for the model.", metavar="NAME", group=_MODEL, show_default="the folder's"
    )
    mode: Instruction = like(CommonOptions, "mode")
    host: str = option("127.0.0.1", "Address to listen on.", metavar="NAME", group=_SERVER)
    port: int = option(8000, "Port to listen on; 0 takes a free one.", ge=0, le=65535, metavar="N", flag="-p", group=_SERVER)
    root_path: str = option("", "Path prefix that a reverse proxy strips.", metavar="PATH", group=_SERVER)
    api_keys: tuple[str, ...] = option(
        (),
        "Require this key; may be repeated. Other users of the machine can read a command line: prefer MULTIVERSE_API_KEY, "
        "or a file.",
        metavar="KEY",
        name="--api-key",
        env="MULTIVERSE_API_KEY",
        group=_ACCESS,
        repr=False,
    )
    cors_origins: tuple[str, ...] = option(
        (),
        "Web origin whose pages may send requests; may be repeated. * is any.",
        metavar="ORIGIN",
        name="--cors-origin",
        group=_ACCESS,
    )
    max_concurrent: int = option(256, "Most generations running at once.", ge=1, metavar="N", group=_LIMITS)
    max_queue: int = option(256, "Most generations waiting; more get 429.", ge=0, metavar="N", group=_LIMITS)
    max_prompt_tokens: int | None = option(
        None, "Longest prompt.", ge=1, metavar="N", group=_LIMITS, show_default="the model's"
    )
    default_max_tokens: int | None = option(
        None,
        "Most tokens of an answer, for requests that do not say.",
        ge=1,
        metavar="N",
        group=_LIMITS,
        show_default="2048, or the preset's",
    )
    max_tokens_limit: int | None = option(None, "Most tokens that a request may ask for.", ge=1, metavar="N", group=_LIMITS)
    max_body_bytes: int = option(8 * MIB, "Largest request body.", ge=1, metavar="N", group=_LIMITS)
    request_timeout: float = option(
        600.0, "Seconds from arrival after which a generation is closed by force.", gt=0, metavar="S", group=_LIMITS
    )
    header_timeout: float = option(10.0, "Seconds within which a request's head must arrive.", gt=0, metavar="S", group=_LIMITS)
    body_timeout: float = option(30.0, "Seconds within which a request's body must arrive.", gt=0, metavar="S", group=_LIMITS)
    write_timeout: float = option(60.0, "Seconds that a client may leave its answer unread.", gt=0, metavar="S", group=_LIMITS)
    drain_grace: float = option(
        30.0, "Seconds that running requests have left after SIGTERM.", ge=0, metavar="S", group=_LIMITS
    )
    reasoning_budgets: Mapping[str, int | None] = option(
        factory=_budgets, help="Thinking budget that each `reasoning_effort` stands for; None is no limit."
    )

    def __post_init__(self) -> None:
        for key in self.api_keys:
            if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
                # The key itself is a secret, and stays out of the message.
                raise ConfigError("an API key is not valid: it must be printable ASCII without spaces, and not empty")
        super().__post_init__()
        self._check("host", bool(self.host.strip()), "an address or a host name, such as 127.0.0.1")
        served, limit = self.served_model_name, self.max_tokens_limit
        self._check("served_model_name", served is None or bool(served.strip()), "a name that is not empty")
        within = limit is None or self.default_max_tokens is None or self.default_max_tokens <= limit
        self._check("default_max_tokens", within, f"at most max_tokens_limit ({limit})")
        for origin in self.cors_origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ConfigError(f"cors_origins={origin!r} is not valid: write scheme and host (https://example.com), or *")
        rooted = self.root_path == "" or (self.root_path.startswith("/") and not self.root_path.endswith("/"))
        self._check("root_path", rooted, "empty, or begin with / and not end with it")
        for effort, budget in self.reasoning_budgets.items():
            if budget is not None and budget < 0:
                raise ConfigError(f"reasoning_budgets[{effort!r}]={budget} is not valid: it must be 0 or more, or None")

    def _check(self, name: str, good: bool, allowed: str) -> None:
        if not good:
            raise ConfigError(f"{name}={getattr(self, name)!r} is not valid: it must be {allowed}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def public(self) -> dict[str, Any]:
        """All options as JSON, of the API keys only their number."""
        return {**asdict(self), "api_keys": len(self.api_keys)}


@dataclass(frozen=True)
class ScaleConfig(Options):
    """How many replicas of the model are served, under Ray Serve."""

    replicas: int = option(
        2, "Copies of the model, under Ray Serve; limits on requests are then each copy's.", ge=1, metavar="N", group=_SCALE
    )
    max_replicas: int | None = option(
        None, "Start more copies under load, up to so many.", metavar="N", group=_SCALE, show_default="--replicas"
    )
    target_requests: float = option(
        32.0, "Requests at a time on each copy that call for no more and no fewer copies.", gt=0, metavar="X", group=_SCALE
    )
    downscale_delay: float = option(
        300.0, "Seconds of little load after which there are fewer copies.", ge=0, metavar="S", group=_SCALE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ConfigError(
                f"max_replicas={self.max_replicas} is not valid: it must be at least replicas ({self.replicas}), or None"
            )

    @property
    def most(self) -> int:
        """The most replicas that there can be."""
        return self.max_replicas if self.max_replicas is not None else self.replicas
