"""Settings of rewards: which functions judge a rollout, and how their values are put together. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from ....common import CommonOptions
from ....curation.config import BudgetConfig, EndpointConfig
from ....errors import ConfigError
from ....options import Options, like, option

_USERS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_OF_USERS = ("args", "timeout", "memory", "fault_score", "workers")


@dataclass(frozen=True)
class Judge(Options):
    """A model behind an endpoint with OpenAI's chat completions API that judges answers. Its API key is read from the
    environment. Each judgement is stored, and not paid for again by a run that is resumed."""

    base_url: str = option(help="Endpoint with OpenAI's chat completions API, up to /v1.", metavar="URL")
    model: str = like(CommonOptions, "model", required=True)
    api_key_env: str = option("OPENAI_API_KEY", "Environment variable that holds the API key.")
    prompt_file: str | None = option(
        None,
        "Text file with the prompt, in which {question}, {answer} and {reference} are filled in; None is our own. How to reply "
        "is added at its end.",
    )
    attempts: int = option(3, "Most requests for one judgement; each repetition quotes what was wrong with the reply.", ge=1)
    temperature: float = like(CommonOptions, "temperature", 0.0)
    max_tokens: int = like(CommonOptions, "max_tokens", 1024)
    concurrency: int = like(CommonOptions, "concurrency", 16)
    timeout: float = like(EndpointConfig, "timeout", 120.0)
    tries: int = like(EndpointConfig, "tries")
    price_in: float = like(BudgetConfig, "price_in")
    price_out: float = like(BudgetConfig, "price_out")
    max_cost: float | None = like(BudgetConfig, "max_cost", help="Most that all judgements of the run may cost.")
    token_budget: int | None = like(BudgetConfig, "token_budget", help="Most tokens that all judgements of the run may take.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ConfigError(f"max_cost={self.max_cost:g} has no effect without prices: set price_in and price_out")


class Kind:
    """One of our own reward functions, as far as its settings go.

    Args:
        low, high: what it gives at least and at most, from its settings; `None` if that is not known.
        settings: the settings that it has beside those of all rewards, with their defaults.
        only_if_correct: whether it is 0 for wrong answers, unless set otherwise.
    """

    def __init__(self, low: float, high: float, *, only_if_correct: bool = False, **settings: Any) -> None:
        self.low, self.high, self.only_if_correct, self.settings = low, high, only_if_correct, settings


REQUIRED = object()
"""Default of a setting that has none."""

KINDS: Mapping[str, Kind] = {
    "correct": Kind(0, 1, right=1.0, wrong=0.0, judge=None),
    "acceleration": Kind(0, 1, only_if_correct=True, cap=0.2, baseline="group"),
    "well_formed": Kind(0, 1, only_if_correct=True),
    "forked": Kind(0, 1),
    "finished_paths": Kind(0, 1),
    "total_tokens": Kind(-1, 0, limit=REQUIRED),
    "critical_path": Kind(-1, 0, limit=REQUIRED, buffer=None),
    "overlong": Kind(-1, 0, limit=None, buffer=None),
    "judged": Kind(0, 1, judge=REQUIRED),
}
"""Our own reward functions by name."""


@dataclass(frozen=True)
class Reward(Options):
    """One reward function and its part in the sum. Settings that are None have the default of their function."""

    name: str = option(help=f"{', '.join(KINDS)}; or a function of yours as module:function.")
    weight: float = option(1.0, "Factor of its value in the sum.")
    only_if_correct: bool | None = option(
        None, "Count it for correct answers only, 0 for others; None is true for acceleration and well_formed, else false."
    )
    decides: bool = option(
        False, "Whether it decides which answers are correct: those that it gives 0.5 or more. Always true of correct."
    )
    anneal_steps: int | None = option(None, "Its weight falls linearly to 0 over this many steps; None keeps it.", ge=1)
    alternate: list[int] | None = option(
        None,
        "Two numbers n and m: it counts in the last n of every m steps only.",
        ge=1,
        allowed="two whole numbers n and m, 1 <= n <= m",
    )
    right: float | None = option(None, "correct: value of a right answer; default 1.")
    wrong: float | None = option(None, "correct: value of a wrong answer; default 0.")
    cap: float | None = option(None, "acceleration: most that it gives; default 0.2.", gt=0, le=1)
    baseline: Literal["group", "own"] | None = option(
        None,
        "acceleration: what a critical path is compared with: the tokens of the shortest right answer of its group, itself "
        "included (group, the default), or its own alone (own).",
    )
    limit: int | None = option(
        None,
        "total_tokens: tokens that cost 1. critical_path and overlong: length from which on the penalty is 1; overlong without "
        "one takes the max_tokens of the rollouts.",
        ge=1,
    )
    buffer: int | None = option(
        None,
        "critical_path, overlong: length below the limit over which the penalty rises from 0; default a fifth of it.",
        ge=1,
    )
    judge: Judge | None = option(None, "correct, judged: the model that judges, for questions with check: judge, or all.")
    args: dict[str, Any] = option(factory=dict, help="module:function: keyword arguments of every call.")
    timeout: float | None = option(None, "module:function: seconds that one call may take; default 10.", gt=0)
    memory: float | None = option(
        None, "module:function: GiB of address space of its process; default 8, infinity is no limit.", gt=0, finite=False
    )
    fault_score: float | None = option(
        None, "module:function: value where it raises, gives no number, or takes too long; default 0."
    )
    workers: int | None = option(None, "module:function: processes that call it; default one per core, at most 4.", ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in KINDS and not self.users:
            near = get_close_matches(self.name, KINDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(KINDS)}"
            raise ConfigError(f"name={self.name!r} is no reward: {hint}; a function of yours is module:function")
        self._check_settings()
        if self.alternate is not None and (len(self.alternate) != 2 or self.alternate[0] > self.alternate[1]):
            raise self.invalid("alternate")
        if self.only_if_correct and (self.decides or self.name == "correct"):
            raise ConfigError(
                f"only_if_correct=True has no meaning for {self.name!r}, which decides what is correct: leave it out"
            )
        if self.right is not None or self.wrong is not None:
            right, wrong = self.value("right"), self.value("wrong")
            if right <= wrong:
                raise ConfigError(f"right={right:g} is not above wrong={wrong:g}: a right answer has to be worth more")
        limit, buffer = self.limit, self.buffer
        if limit is not None and buffer is not None and buffer > limit:
            raise ConfigError(f"buffer={buffer} is above limit={limit}: the penalty would begin below 0 tokens")

    def _check_settings(self) -> None:
        """That all settings belong to this function, and none that it needs is missing."""
        own = _OF_USERS if self.users else tuple(KINDS[self.name].settings)
        special = {*_OF_USERS, *(name for kind in KINDS.values() for name in kind.settings)}
        for name in sorted(special):
            if getattr(self, name) not in (None, {}) and name not in own:
                whose = [kind for kind, entry in KINDS.items() if name in entry.settings] or ["module:function"]
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} has no effect on {self.name!r}: it is for {', '.join(whose)}"
                )
        if self.decides and self.name not in ("correct", "judged") and not self.users:
            raise ConfigError(f"decides=True has no meaning for {self.name!r}, which does not know what is right: leave it out")
        for name in own:
            if not self.users and KINDS[self.name].settings[name] is REQUIRED and getattr(self, name) is None:
                raise ConfigError(f"the reward {self.name!r} needs {name}")

    @property
    def users(self) -> bool:
        """Whether it is a function of the user's."""
        return _USERS.fullmatch(self.name) is not None

    @property
    def conditional(self) -> bool:
        """Whether it counts for correct answers only."""
        if self.only_if_correct is not None:
            return self.only_if_correct
        return not self.users and KINDS[self.name].only_if_correct

    @property
    def judges(self) -> bool:
        """Whether it decides which answers are correct."""
        return self.decides or self.name == "correct"

    def value(self, name: str) -> Any:
        """A setting, or its default."""
        found = getattr(self, name)
        return KINDS[self.name].settings[name] if found is None else found

    @property
    def worth(self) -> tuple[float, float]:
        """Of correct: what a wrong and a right answer are worth."""
        return (0.0 if self.wrong is None else self.wrong), (1.0 if self.right is None else self.right)

    def factor(self, step: int) -> float:
        """The weight in a step, counted from 0."""
        weight = self.weight
        if self.anneal_steps is not None:
            weight *= max(0.0, 1 - step / self.anneal_steps)
        if self.alternate is not None and step % self.alternate[1] < self.alternate[1] - self.alternate[0]:
            return 0.0
        return weight

    def bounds(self) -> tuple[float, float] | None:
        """What it adds at least and at most to the sum; `None` for a function of the user's."""
        if self.users:
            return None
        kind = KINDS[self.name]
        low, high = self.worth if self.name == "correct" else (kind.low, kind.high)
        if self.name == "acceleration":
            high = self.value("cap")
        first, second = self.weight * low, self.weight * high
        return min(first, second), max(first, second)


def check_rewards(rewards: list[Reward]) -> None:
    """Check a list of rewards as a whole.

    Raises:
        ConfigError: there are none, a name stands twice, nothing decides what is correct though a reward needs it, or a wrong
            answer could be worth as much as a right one.
    """
    if not rewards:
        raise ConfigError("rewards is empty: begin with [{name: correct}]")
    names = [reward.name for reward in rewards]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"the reward {twice!r} stands {names.count(twice)} times: give it once")
    deciding = [reward for reward in rewards if reward.judges]
    if len(deciding) > 1:
        raise ConfigError(
            f"{' and '.join(repr(reward.name) for reward in deciding)} both decide what is correct: set decides: true on one "
            f"of them"
        )
    conditional = next((reward.name for reward in rewards if reward.conditional), None)
    if conditional is not None and not deciding:
        raise ConfigError(
            f"the reward {conditional!r} counts for correct answers only, and none decides what is correct: add "
            f"{{name: correct}}, or set decides: true on a function of yours"
        )
    if deciding and deciding[0].name == "correct":
        _check_margin(deciding[0], [reward for reward in rewards if reward is not deciding[0]])


def _check_margin(correct: Reward, others: list[Reward]) -> None:
    """That what other rewards add never makes a wrong answer worth as much as a right one."""
    wrong, right = correct.worth
    gap = correct.weight * (right - wrong)
    if gap == 0 or any(reward.users for reward in others):
        return  # correctness is only measured; or the others' values are not known
    least = best = 0.0
    for reward in others:
        low, high = reward.bounds() or (0.0, 0.0)
        least += min(low, 0.0) if reward.conditional else low
        best += 0.0 if reward.conditional else high
    if least + gap <= best:
        raise ConfigError(
            f"a wrong answer could be worth as much as a right one: being right is worth {gap:g}, and the other rewards may "
            f"add {best:g} to a wrong answer and {least:g} to a right one: lower their weights below {gap:g} together"
        )


def advice(rewards: list[Reward]) -> list[str]:
    """What experience advises against in these rewards, a sentence each."""
    found = []
    for reward in rewards:
        if reward.name == "acceleration" and reward.weight * reward.value("cap") > 0.1 + 1e-9:
            found.append(
                f"acceleration may add {reward.weight * reward.value('cap'):g} (weight {reward.weight:g} * cap "
                f"{reward.value('cap'):g}): above 0.1, models were seen to trade accuracy for it"
            )
        if reward.name == "well_formed" and reward.anneal_steps is None and reward.alternate is None:
            found.append(
                "well_formed counts in every step: that was seen to raise forking at the cost of accuracy; anneal it "
                "(anneal_steps) or let it count in some steps only (alternate: [2, 10])"
            )
    return found
