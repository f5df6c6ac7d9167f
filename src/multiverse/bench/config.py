"""What `multiverse bench` measures, and beside what. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..common import CommonOptions
from ..errors import ConfigError
from ..options import Options, like, option

_WHAT, _AGAINST = "What is measured", "Other engines"


@dataclass(frozen=True)
class BenchConfig(Options):
    """Sizes of the measurements, and the engines beside ours."""

    rows: tuple[int, ...] = option(
        (1, 4, 8, 16),
        "Numbers of branches, and of requests, decoded at once; repeat it.",
        ge=1,
        le=256,
        metavar="N",
        group=_WHAT,
    )
    prefixes: tuple[int, ...] = option(
        (512,), "Tokens that each row reads before its first one; repeat it.", ge=1, metavar="N", group=_WHAT
    )
    decode_steps: int = option(32, "Tokens of each row that are timed.", ge=2, metavar="N", group=_WHAT)
    rounds: int = option(3, "Measurements of everything, interleaved; figures are medians.", ge=1, metavar="N", group=_WHAT)
    against: tuple[Literal["generate", "llama.cpp", "vllm", "none"], ...] = option(
        ("generate", "llama.cpp", "vllm"),
        "Engines to measure beside ours, where they are here: transformers' generate, a llama-server, a vllm; none is ours "
        "alone. Repeat it.",
        group=_AGAINST,
    )
    server_url: tuple[str, ...] = option(
        (), "A running server with the same model, up to /v1, to measure too; repeat it.", metavar="URL", group=_AGAINST
    )
    served_model: str | None = option(
        None, "The model's name on those servers.", metavar="NAME", group=_AGAINST, show_default="their first"
    )
    api_key: str | None = like(CommonOptions, "api_key")
    llama_server: str = option(
        "llama-server", "llama.cpp's server: a program on the path, or its path.", metavar="PROGRAM", group=_AGAINST
    )
    gguf: str | None = option(
        None,
        "The model as a GGUF file, for llama.cpp.",
        metavar="FILE",
        group=_AGAINST,
        show_default="the model, if it is one",
    )
    vllm: str = option("vllm", "vLLM's command: a program on the path, or its path.", metavar="PROGRAM", group=_AGAINST)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "none" in self.against and len(self.against) > 1:
            raise ConfigError("against=none goes with no other: leave it out, or the others")
