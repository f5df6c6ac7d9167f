"""Options of an evaluation on dialogues: what is asked, what is shown, and who judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...common import CommonOptions
from ...engine.params import SamplingParams
from ...errors import ConfigError
from ...options import Options, like, option
from ..config import QUESTIONS, EvaluationConfig
from .images import ImageLimits

History = Literal["own", "reference", "none"]
MAX_TOKENS, OWN_MAX_TOKENS = 256, 2048
"""Most tokens of an answer: in the public protocols of MultiVerse, and for our own tasks, whose answers hold thinking."""

_JUDGE, _IMAGES = "Judge", "Images"


@dataclass(frozen=True)
class DialogueConfig(Options):
    """What is asked, and what of the dialogue is shown. Two runs with the same of all this are the same run."""

    history: History = option(
        "own",
        "What earlier turns hold: the model's own answers, the references, or nothing (each turn is asked alone).",
        group=QUESTIONS,
    )
    persona: bool = option(False, "Put character, scenario and goal of the user before the first utterance.", group=QUESTIONS)
    turns: int | None = option(
        None,
        "Only the first N turns of each dialogue.",
        ge=1,
        metavar="N",
        group=QUESTIONS,
        show_default="all; 4 of our own",
    )
    repeats: int = like(EvaluationConfig, "repeats", 1, show_default=None)
    limit: int | None = like(EvaluationConfig, "limit", show_default="all; 100 of our own")
    seed: int = like(CommonOptions, "seed", 7, group=QUESTIONS)
    mode: Literal["parallel", "sequential", "as-is"] | None = like(
        CommonOptions, "mode", None, group=QUESTIONS, show_default="as-is; parallel for our own"
    )
    temperature: float = like(SamplingParams, "temperature", 0.0)
    top_p: float = like(SamplingParams, "top_p", 1.0)
    max_tokens: int | None = like(SamplingParams, "max_tokens", None, show_default=f"{MAX_TOKENS}; {OWN_MAX_TOKENS} of our own")
    max_image_megabytes: float = option(20.0, "Largest image file, in MB.", gt=0, metavar="X", group=_IMAGES)
    max_image_megapixels: float = option(40.0, "Largest image, in million pixels.", gt=0, metavar="X", group=_IMAGES)

    @property
    def images(self) -> ImageLimits:
        """What an image may have at most."""
        return ImageLimits(self.max_image_megabytes, self.max_image_megapixels)


@dataclass(frozen=True)
class JudgeConfig(Options):
    """Who judges the answers, and at what price."""

    judge_by: Literal["auto", "model", "rules", "none"] = option(
        "auto",
        "Who judges: a model; rules (what code can decide, and for all else a comparison of words, for trials only); none, "
        "which leaves it to a later run; auto is rules where all items have one, else a model.",
        group=_JUDGE,
    )
    judge_model: tuple[str, ...] = option(
        (),
        "Model that judges, by its name at --judge-url; given twice, both judge and are compared.",
        metavar="NAME",
        group=_JUDGE,
    )
    judge_url: str | None = option(
        None,
        "Endpoint of the judge, up to /v1.",
        metavar="URL",
        group=_JUDGE,
        show_default="--server",
    )
    judge_key: str | None = option(
        None,
        "The judge's API key; better set as JUDGE_API_KEY.",
        metavar="KEY",
        group=_JUDGE,
        env="JUDGE_API_KEY",
        repr=False,
        show_default="--api-key, at the same address",
    )
    judge_repeats: int = option(
        1, "How often each judge judges each answer; repeats are compared with each other.", ge=1, metavar="N", group=_JUDGE
    )
    judge_attempts: int = option(
        3,
        "Most requests for one judgement; each repetition quotes what was wrong before. Then the turn is set aside.",
        ge=1,
        metavar="N",
        group=_JUDGE,
    )
    judge_max_tokens: int = option(2048, "Most tokens of one judgement.", ge=1, metavar="N", group=_JUDGE)
    judge_temperature: float = option(0.0, "Temperature of the judge.", ge=0, metavar="T", group=_JUDGE)
    judge_price_in: float = option(0.0, "Price of a million prompt tokens of the judge.", ge=0, metavar="X", group=_JUDGE)
    judge_price_out: float = option(0.0, "Price of a million completion tokens of the judge.", ge=0, metavar="X", group=_JUDGE)
    judge_max_cost: float | None = option(
        None,
        "Most that all judgements of the folder may cost.",
        ge=0,
        metavar="X",
        group=_JUDGE,
        show_default="no limit",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge_max_cost is not None and not (self.judge_price_in or self.judge_price_out):
            raise ConfigError("judge_max_cost needs prices: give --judge-price-in and --judge-price-out")
        if len({*self.judge_model}) < len(self.judge_model):
            raise ConfigError("judge_model names a model twice: for a second opinion of the same one, give --judge-repeats 2")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of a judgement."""
        return (prompt_tokens * self.judge_price_in + completion_tokens * self.judge_price_out) / 1e6


@dataclass(frozen=True)
class Setting:
    """What a run asks with, every default resolved.

    Attributes:
        name: of the set.
        own: whether the set is made of our own tasks.
        mode: the instruction at the end of each of the user's messages; ``as-is`` is none.
    """

    name: str
    own: bool
    history: History
    persona: bool
    mode: Literal["parallel", "sequential", "as-is"]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    repeats: int

    @classmethod
    def of(cls, name: str, config: DialogueConfig, *, own: bool) -> Setting:
        """The settings of a set."""
        return cls(
            name,
            own,
            config.history,
            config.persona,
            config.mode or ("parallel" if own else "as-is"),
            config.temperature,
            config.top_p,
            config.max_tokens or (OWN_MAX_TOKENS if own else MAX_TOKENS),
            config.seed,
            config.repeats,
        )

    def recorded(self) -> dict[str, Any]:
        """As a run's settings hold them."""
        return {name: value for name, value in vars(self).items() if name != "own"}
