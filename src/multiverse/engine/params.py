"""How to sample, and how far a request may go. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import RequestError


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of one request; the names are vLLM's where vLLM has the thing.

    A request that comes near one of its bounds is wound up in good form: open paths are closed, the model writes the
    conclusion of the outermost block and the answer in the tail that is kept for them, and `finish_reason` names the bound.

    Attributes:
        temperature: 0 takes the likeliest token; above, logits are divided by it.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this, in (0, 1].
        top_k: keep this many likeliest tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one, in [0, 1].
        repetition_penalty: divides (multiplies, when negative) the logits of tokens that the branch can see; 1 is off.
        logit_bias: added to the logits of these token ids before anything else; -100 bans, 100 as good as forces.
        seed: makes a request repeatable; each branch draws from its own stream, derived from the seed and its place in the
            tree, whoever else is in the batch. `None` draws a fresh seed.
        n: generations of each prompt; they share the prompt's keys and values. With a seed, each has its own streams.
        stop: the request ends when a branch's own text comes to hold one of these; the text is cut before it.
        guard: let only legal tags be sampled, and wind up before a bound. `False` shows the raw model: what breaks the grammar
            ends the request as ``malformed``, bounds cut, and only those on depth, width and branches still hold tags back.
        max_tokens: bound on all generated tokens, over all branches, forced ones included.
        max_critical_path_tokens: bound on the longest chain of generated tokens, the same for parallel and sequential thinking.
        thinking_budget: bound on the longest chain of generated tokens up to the end of the thinking; the answer is not
            counted.
        tail_tokens: tokens kept for the conclusion and the answer when a bound is near; half of them at most go to the
            conclusion. `None` keeps an eighth of the bound, within 8 to 256.
        max_branch_tokens: bound on the own tokens of a path; the path is closed, the others go on.
        max_depth: blocks nest at most this deep; 0 forbids forking.
        max_width: bound on the paths of one block.
        max_branches: bound on the branches of the whole request; a block that would pass it is not opened wider.
        max_seconds: wall-clock bound from submission, the time in the queue included; afterwards `tail_tokens` more are
            written.
        ignore_eos: go on after the end-of-text token (for benchmarks).
        logprobs: report the log-probability of every sampled token, under the model's own distribution (temperature 1,
            no penalty, no bias, no guard, no cut).
        top_logprobs: report the log-probabilities of this many likeliest tokens too, under the same distribution.
        share_every: ablation. Paths of one block see each other's earlier stretches of this many positions; `None` keeps them
            apart, as the model was trained.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] | list[str] | str = ()
    guard: bool = True
    max_tokens: int = 2048
    max_critical_path_tokens: int | None = None
    thinking_budget: int | None = None
    tail_tokens: int | None = None
    max_branch_tokens: int = 8192
    max_depth: int = 8
    max_width: int = 32
    max_branches: int = 64
    max_seconds: float = 3600.0
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    share_every: int | None = None

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        critical, thinking, tail = self.max_critical_path_tokens, self.thinking_budget, self.tail_tokens
        biases = self.logit_bias.values()
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
            ("logit_bias", all(-1e6 < bias < 1e6 for bias in biases), "token ids with a bias within -1e6 to 1e6 each"),
            ("seed", self.seed is None or self.seed >= 0, "0 or more"),
            ("n", self.n >= 1, "1 or more"),
            ("stop", all(isinstance(text, str) and text for text in stop), "non-empty strings"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("max_critical_path_tokens", critical is None or critical >= 1, "1 or more, or None"),
            ("thinking_budget", thinking is None or thinking >= 0, "0 or more, or None"),
            ("tail_tokens", tail is None or tail >= 0, "0 or more, or None (an eighth of the bound)"),
            ("max_branch_tokens", self.max_branch_tokens >= 1, "1 or more"),
            ("max_depth", self.max_depth >= 0, "0 or more (0 forbids forking)"),
            ("max_width", self.max_width >= 1, "1 or more"),
            ("max_branches", self.max_branches >= 0, "0 or more (0 forbids forking)"),
            ("max_seconds", self.max_seconds > 0, "above 0"),
            ("top_logprobs", 0 <= self.top_logprobs <= 100, "from 0 to 100"),
            ("share_every", self.share_every is None or self.share_every >= 1, "1 or more, or None (paths stay apart)"),
        )
        for name, good, allowed in checks:
            if not good:
                raise RequestError(f"{name}={getattr(self, name)!r} is not valid: it must be {allowed}")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        assert isinstance(self.stop, tuple)
        return self.stop
