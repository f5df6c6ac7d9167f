"""Sampling parameters and limits of a request. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from ..common import CommonOptions
from ..errors import RequestError
from ..options import Options, like, option
from .response_format import ResponseFormat

_SAMPLING = "Sampling"
_LIMITS = "Limits"


@dataclass(frozen=True)
class SamplingParams(Options):
    """Sampling parameters and limits of one request; names and meanings are vLLM's where vLLM has the parameter.

    Near a limit a request is closed: open paths are closed by force, the model writes the conclusion of the outermost block and
    the answer within the reserved tokens, and `finish_reason` names the limit.

    Attributes:
        temperature: the logits are divided by it; 0 is greedy sampling.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this, in (0, 1].
        top_k: keep this many likeliest tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one, in [0, 1].
        repetition_penalty: divides (multiplies, when negative) the logits of tokens that the branch attends to, those of the
            prompt included; 1 is off.
        path_repetition_penalty: replaces `repetition_penalty` in paths, however deep; the trunk has its own again after the
            join. `None` is the same everywhere.
        presence_penalty, frequency_penalty: subtracted from the logits of generated tokens, the second times their number; 0 is
            off. As with `repetition_penalty`, what counts is what the branch attends to: its own tokens, those of the branches
            it was forked from and of the paths that it joined, tags included, but not those of its siblings. The order is bias,
            repetition, frequency, presence.
        logit_bias: added to the logits of these token ids before anything else; -100 bans a token, 100 practically forces it.
        seed: makes a request reproducible; each branch has its own random stream, derived from the seed and its position in the
            tree, independent of the rest of the batch. `None` draws a new seed.
        n: generations of each prompt; they share the prompt's keys and values. With a seed, each has its own streams.
        stop: the request ends when a branch's own text contains one of these; the text is cut before it. A tag ends it where
            the model or the engine writes that tag.
        stop_token_ids: the request ends at one of these tokens, and the text before it.
        include_stop_str_in_output: the text ends behind what ended it, not before.
        stop_in: where stops count: in all text (``all``) or in the ``answer``, what follows the thinking, without white space
            before it; tags count anywhere. `None` is the answer in chats, and all text for raw prompts.
        guard: sample only tokens that the grammar allows, and close the text before a limit. If `False`, a token that breaks
            the grammar ends the request as ``malformed``, limits cut the text off, and only those on depth, width and branches
            ban tags; and the engine writes no more than the heads of paths and conclusions. Models trained here need it: their
            loss leaves out all forced tokens.
        max_tokens: limit on all generated tokens, over all branches, forced ones included.
        min_tokens: the end-of-text token is not chosen before so many tokens were generated, over all branches, unless the
            grammar allows nothing else, and stop strings are looked for in what comes after them. Other limits are not moved.
        max_critical_path_tokens: limit on the longest chain of generated tokens, parallel or sequential.
        thinking_budget: limit on the longest chain of generated tokens up to the end of the thinking; the answer is not
            counted.
        reserved_tokens: tokens reserved for the conclusion and the answer when a limit is near; at most half of them go to
            the conclusion. `None` reserves an eighth of the limit, within 8 to 256.
        max_branch_tokens: limit on the own tokens of a path; that path is closed, the others go on.
        max_depth: blocks nest at most this deep; 0 forbids forking.
        max_width: limit on the paths of one block.
        max_branches: limit on the branches of the whole request; a block that would exceed it gets no further outlines.
        max_seconds: wall-clock limit from submission, time in the queue included; after it, up to `reserved_tokens` more are
            generated.
        ignore_eos: go on after the end-of-text token (for benchmarks).
        logprobs: report the log-probability of every sampled token, the end-of-text token among them.
        top_logprobs: report the log-probabilities of this many likeliest tokens too, under the same distribution.
        logprobs_mode: under which distribution. ``raw_logprobs``: the model's own (temperature 1, no penalty, no bias, no
            guard, no cut). ``processed_logprobs``: the one that the token was drawn from, after bias, penalties, grammar,
            limits, temperature and cuts, over the tokens that could be drawn; only those are listed. Where the temperature is
            0 nothing is drawn, and it is the distribution at temperature 1 without cuts, as in vLLM.
        supports: record which tokens could be drawn at each place (`Generation.supports`).
        prompt_logprobs: report the log-probability of every token of the prompt, and those of so many likeliest ones, under the
            model's own distribution and the layout that the prompt's tags give it. For that the whole prompt is computed, and
            nothing taken from the prefix cache.
        response_format: form of the answer, as OpenAI has it: ``{"type": "json_object"}``, ``{"type": "json_schema",
            "json_schema": {"schema": {…}}}``, or ``{"type": "text"}`` like `None`. The thinking stays free and may fork; the
            answer is JSON, does not fork, and ends where it is complete. A limit may still cut it off. Needs the extra
            ``json``, and the guard. Kept as an `ResponseFormat`.
        share_every: ablation. Paths of one block attend to each other's earlier chunks of this many positions; with `None`
            they do not, as in training.

    Raises:
        RequestError: a value is not valid; the message names the parameter, the value and what is allowed.
    """

    error: ClassVar[type[Exception]] = RequestError

    temperature: float = like(CommonOptions, "temperature")
    top_p: float = option(
        0.95,
        "Keep the likeliest tokens that together reach P.",
        gt=0,
        le=1,
        allowed="above 0 and at most 1",
        metavar="P",
        group=_SAMPLING,
    )
    top_k: int = option(
        0, "Keep the K likeliest tokens; 0 keeps all.", ge=0, allowed="0 (off) or more", metavar="K", group=_SAMPLING
    )
    min_p: float = option(
        0.0,
        "Drop tokens less likely than P times the likeliest.",
        ge=0,
        le=1,
        allowed="from 0 to 1",
        metavar="P",
        group=_SAMPLING,
    )
    repetition_penalty: float = option(
        1.0,
        "Above 1 discourages repetition; 1 is off.",
        gt=0,
        allowed="above 0 (1 is off)",
        metavar="R",
        group=_SAMPLING,
    )
    path_repetition_penalty: float | None = option(
        None,
        "Repetition penalty within paths.",
        gt=0,
        allowed="above 0 (1 is off), or None",
        metavar="R",
        group=_SAMPLING,
        show_default="that of the trunk",
    )
    presence_penalty: float = option(
        0.0,
        "Subtracted from the logits of tokens that were generated; 0 is off.",
        ge=-2,
        le=2,
        allowed="from -2 to 2 (0 is off)",
        metavar="X",
        group=_SAMPLING,
    )
    frequency_penalty: float = option(
        0.0,
        "The same, times how often the token was generated; 0 is off.",
        ge=-2,
        le=2,
        allowed="from -2 to 2 (0 is off)",
        metavar="X",
        group=_SAMPLING,
    )
    logit_bias: Mapping[int, float] = option(
        factory=dict,
        help="Added to the logits of these token ids; -100 bans a token.",
        allowed="token ids with a bias within -1e6 to 1e6 each",
        group=_SAMPLING,
    )
    seed: int | None = like(CommonOptions, "seed")
    n: int = option(1, "Generations of each prompt.", ge=1, allowed="1 or more", metavar="N", group=_SAMPLING)
    stop: tuple[str, ...] | list[str] | str = option(
        (), "End before this text; may be given again.", allowed="non-empty strings", metavar="TEXT", group=_LIMITS
    )
    stop_token_ids: tuple[int, ...] | list[int] = option(
        (), "End at one of these tokens.", ge=0, allowed="token ids", metavar="ID", group=_LIMITS
    )
    include_stop_str_in_output: bool = option(False, "End the text behind what stopped it, not before.", group=_LIMITS)
    stop_in: Literal["all", "answer"] | None = option(
        None,
        "Where stops count: in all text, or in the answer, after the thinking.",
        group=_LIMITS,
        show_default="the answer; with raw prompts all",
    )
    guard: bool = option(True, "Keep the model to the grammar; without, limits cut the text off.", group=_SAMPLING)
    max_tokens: int = like(
        CommonOptions,
        "max_tokens",
        ge=0,
        allowed="1 or more (with prompt_logprobs also 0: the prompt is scored, and that is all)",
    )
    min_tokens: int = option(
        0,
        "Generate at least so many tokens, over all branches, before the end of text may come.",
        ge=0,
        allowed="0 or more, and at most max_tokens",
        metavar="N",
        group=_LIMITS,
    )
    max_critical_path_tokens: int | None = option(
        None,
        "Longest chain of generated tokens altogether.",
        ge=1,
        allowed="1 or more, or None",
        metavar="N",
        group=_LIMITS,
    )
    thinking_budget: int | None = option(
        None,
        "Longest chain of tokens before the answer.",
        ge=0,
        allowed="0 or more, or None",
        metavar="N",
        group=_LIMITS,
    )
    reserved_tokens: int | None = option(
        None,
        "Tokens reserved for the conclusion and the answer when a limit is near.",
        ge=0,
        allowed="0 or more, or None (an eighth of the limit)",
        metavar="N",
        group=_LIMITS,
        was="tail_tokens",
    )
    max_branch_tokens: int = option(8192, "Most tokens of one path.", ge=1, allowed="1 or more", metavar="N", group=_LIMITS)
    max_depth: int = option(
        8,
        "Blocks nest at most this deep; 0 forbids forking.",
        ge=0,
        allowed="0 or more (0 forbids forking)",
        metavar="N",
        group=_LIMITS,
    )
    max_width: int = option(32, "Most paths of one block.", ge=1, allowed="1 or more", metavar="N", group=_LIMITS)
    max_branches: int = option(
        64,
        "Most branches overall; 0 forbids forking.",
        ge=0,
        allowed="0 or more (0 forbids forking)",
        metavar="N",
        group=_LIMITS,
    )
    max_seconds: float = option(
        3600.0, "Close the generation after so many seconds.", gt=0, finite=False, allowed="above 0", metavar="S", group=_LIMITS
    )
    ignore_eos: bool = option(False, "Go on after the end-of-text token (for benchmarks).", group=_SAMPLING)
    logprobs: bool = option(False, "Report the log-probability of every sampled token.", group=_SAMPLING)
    top_logprobs: int = option(
        0,
        "Report the log-probabilities of the N likeliest tokens too.",
        ge=0,
        le=100,
        allowed="from 0 to 100",
        metavar="N",
        group=_SAMPLING,
    )
    logprobs_mode: Literal["raw_logprobs", "processed_logprobs"] = option(
        "raw_logprobs",
        "Log-probabilities under the model's own distribution, or under the one that tokens were drawn from.",
        group=_SAMPLING,
    )
    supports: bool = option(False, "Record which tokens could be drawn at each place.", group=_SAMPLING)
    prompt_logprobs: int | None = option(
        None,
        "Report the log-probability of every token of the prompt, and of the N likeliest ones beside it.",
        ge=0,
        le=100,
        allowed="from 0 to 100, or None",
        metavar="N",
        group=_SAMPLING,
    )
    response_format: Mapping[str, Any] | ResponseFormat | None = option(
        None,
        "Form of the answer: JSON, or JSON of a schema.",
        allowed="an object as OpenAI has it, or None",
        group=_SAMPLING,
    )
    share_every: int | None = like(CommonOptions, "share_every")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        if 0 < self.temperature < 1e-6:
            raise self.invalid("temperature")
        if not all(map(_is_stop, self.stop)):
            raise self.invalid("stop")
        if not self.max_tokens and self.prompt_logprobs is None:
            raise self.invalid("max_tokens")
        if self.min_tokens > self.max_tokens:
            raise self.invalid("min_tokens")
        if self.logprobs_mode != "raw_logprobs" and not (self.logprobs or self.top_logprobs):
            raise RequestError(f"logprobs_mode={self.logprobs_mode!r} has no effect without logprobs or top_logprobs: set one")
        if not all(_is_bias(token, bias) for token, bias in self.logit_bias.items()):
            raise self.invalid("logit_bias")
        if isinstance(self.response_format, Mapping):
            object.__setattr__(self, "response_format", ResponseFormat.of(self.response_format))
        if self.response_format is not None and (not self.guard or self.ignore_eos):
            name = "guard=False" if not self.guard else "ignore_eos=True"
            raise RequestError(f"response_format cannot be combined with {name}: leave one of them out")

    def for_chat(self) -> SamplingParams:
        """These, as they hold for the answer to a chat."""
        return self if self.stop_in is not None else replace(self, stop_in="answer")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        assert isinstance(self.stop, tuple)
        return self.stop

    @property
    def answer_format(self) -> ResponseFormat | None:
        """`response_format`, checked."""
        assert not isinstance(self.response_format, Mapping)
        return self.response_format

    @property
    def cuts(self) -> bool:
        """Whether the least likely tokens are left out where tokens are drawn."""
        return self.temperature > 0 and (self.top_k > 0 or self.min_p > 0 or self.top_p < 1)

    @property
    def records_draws(self) -> bool:
        """Whether anything is reported of the distribution that tokens are drawn from."""
        return self.supports or self.logprobs_mode == "processed_logprobs"

    @property
    def penalises(self) -> bool:
        """Whether there is a penalty of tokens that have occurred, in the trunk or in paths."""
        return self.penalises_in(path=False) or self.penalises_in(path=True)

    def penalises_in(self, *, path: bool) -> bool:
        """Whether there is one in paths, or in the trunk."""
        return self.repetition_in(path=path) != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    def repetition_in(self, *, path: bool) -> float:
        """The repetition penalty in paths, or in the trunk."""
        return self.path_repetition_penalty if path and self.path_repetition_penalty is not None else self.repetition_penalty


def _is_stop(text: str) -> bool:
    """Whether this is a text that a model can write."""
    return bool(text) and not any("\ud800" <= character <= "\udfff" for character in text)


def _is_bias(token: object, bias: object) -> bool:
    """Whether this is a token id with its bias."""
    if isinstance(token, bool) or isinstance(bias, bool) or not isinstance(token, Integral) or not isinstance(bias, Real):
        return False
    return -1e6 < (int(bias) if isinstance(bias, Integral) else float(bias)) < 1e6
