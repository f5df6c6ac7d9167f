"""How to sample, and how far a request may go. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of one request; the names are vLLM's.

    Attributes:
        temperature: 0 takes the likeliest token; above, logits are divided by it.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this, in (0, 1].
        top_k: keep this many likeliest tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one, in [0, 1].
        repetition_penalty: divides (multiplies, when negative) the logits of tokens that the branch can see; 1 is off.
        seed: makes a request repeatable; each branch draws from its own stream, derived from the seed and its place in the
            tree, whoever else is in the batch. `None` draws a fresh seed.
        stop: the request ends when a branch's own text comes to hold one of these; the text is cut before it.
        max_tokens: bound on all generated tokens, over all branches, forced ones included.
        max_depth: blocks nest at most this deep; 0 forbids forking.
        max_branches: bound on the branches of the whole request; a block that would pass it is not opened wider.
        ignore_eos: go on after the end-of-text token (for benchmarks).
        logprobs: report the log-probability of every sampled token, under the model's own distribution (temperature 1,
            no penalty, no cut).
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] | list[str] | str = ()
    max_tokens: int = 2048
    max_depth: int = 8
    max_branches: int = 64
    ignore_eos: bool = False
    logprobs: bool = False

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        checks = (
            (
                "temperature",
                self.temperature == 0 or 1e-6 <= self.temperature < 1e6,
                "0 or more (0 is greedy), within 1e-6 to 1e6",
            ),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0 (1 is off)"),
            ("seed", self.seed is None or self.seed >= 0, "0 or more"),
            ("stop", all(isinstance(text, str) and text for text in stop), "non-empty strings"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("max_depth", self.max_depth >= 0, "0 or more (0 forbids forking)"),
            ("max_branches", self.max_branches >= 0, "0 or more (0 forbids forking)"),
        )
        for name, good, allowed in checks:
            if not good:
                raise RequestError(f"{name}={getattr(self, name)!r} is not valid: it must be {allowed}")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        assert isinstance(self.stop, tuple)
        return self.stop
