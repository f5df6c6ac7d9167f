"""What an evaluation depends on: which questions are asked, how often, and with which sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ..common import CommonOptions
from ..engine.params import SamplingParams
from ..errors import ConfigError
from ..families import family_of
from ..options import Options, like, option
from ..prompting import DEFAULT, Mode, Prompting
from ..tasks import Part, Wording

QUESTIONS = "Questions"
MAX_TOKENS = 32_768
"""Most tokens of one answer in the Multiverse paper's evaluations."""

FOLDERS: dict[Mode, str] = {"parallel": "multiverse", "sequential": "zero"}
"""Folder of a run by its mode: the paper's names for the same weights asked in parallel and sequentially."""

SHAPE = ("width", "depth", "wording", "vocabulary", "phrasings", "numbers", "steps")
"""The fields that only our own problems have."""

_BY_SPLIT = "heldout for test questions, train for others"

# Fields of `SamplingParams` that inspect has names for; seeds are drawn for each question, and `n` is `repeats`.
_SHARED = ("temperature", "top_p", "max_tokens", "seed", "n")
_WIRE = {"reserved_tokens": "tail_tokens"}


@dataclass(frozen=True)
class EvaluationConfig(Options):
    """One run of any number of benchmarks. The defaults are the Multiverse paper's.

    Attributes:
        benchmarks: names, see `BENCHMARKS`.
        sampling: of every answer. Each question and epoch has its own seed, derived from `seed`.
        data: local files of benchmarks by name, instead of the hub.
        budget: limit on the critical path of each answer, in tokens; an answer that was closed for it is graded like one that
            finished with `stop`. (One closed for a limit in `sampling` is wrong.)
        preset: name of the model's family (`families.FAMILIES`), whose instructions may ask for a box themselves; `None` for a
            model of none, and for one that is asked as those are.
        prompting: the model's instructions, as the run describes them; the provider puts them.
    """

    benchmarks: tuple[str, ...] = ()
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=MAX_TOKENS))
    limit: int | None = option(
        None,
        "Take only the first N; of each, where several are named.",
        ge=1,
        flag="-n",
        metavar="N",
        group=QUESTIONS,
        show_default="all; 200 of our own",
    )
    repeats: int | None = option(
        None, "How often to ask each question.", ge=1, group=QUESTIONS, was="epochs", show_default="8 on AIME, else 1"
    )
    seed: int = like(CommonOptions, "seed", 7, group=QUESTIONS)
    width: int | None = option(
        None, "How wide our own problems fork; the families allow different widths.", group=QUESTIONS, show_default="drawn"
    )
    depth: int | None = option(None, "How deep our own problems nest (family nested).", group=QUESTIONS, show_default="drawn")
    wording: Literal["plain", "natural"] | None = option(
        None,
        "How our own problems are worded: one fixed wording, or names and phrasings from large lists.",
        group=QUESTIONS,
        show_default="plain, where a family has it",
    )
    vocabulary: Part | None = option(
        None,
        "With natural wording: names, things and facts that may be trained on, or the held-out third.",
        group=QUESTIONS,
        show_default=_BY_SPLIT,
    )
    phrasings: Part | None = option(
        None, "With natural wording: phrasings, in the same way.", group=QUESTIONS, show_default=_BY_SPLIT
    )
    numbers: Part | None = option(
        None, "With natural wording: the range of the numbers, in the same way.", group=QUESTIONS, show_default=_BY_SPLIT
    )
    steps: int | None = option(
        None, "Steps of each calculation, also more or fewer than trained.", ge=1, group=QUESTIONS, show_default="drawn"
    )
    data: Mapping[str, str] = field(default_factory=dict)
    budget: int | None = None
    preset: str | None = None
    prompting: Prompting = DEFAULT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling.n != 1 or self.sampling.seed is not None:
            raise ConfigError("n and seed cannot be set in the sampling parameters of an evaluation: set repeats and seed")

        if self.preset is not None:
            family_of(self.preset)

    @property
    def boxed(self) -> bool:
        """Whether the model's instructions ask for a final answer within a box."""
        family = family_of(self.preset) if self.preset is not None else None
        return family is not None and family.asks_for_box

    @property
    def worded(self) -> Wording:
        """The wording of our own problems."""
        return Wording(self.wording, self.vocabulary, self.phrasings, self.numbers, self.steps)

    @property
    def limits(self) -> dict[str, Any]:
        """Sampling parameters that inspect has no name for, where they differ from the defaults, by the server's names."""
        sampling = self.sampling if self.budget is None else replace(self.sampling, max_critical_path_tokens=self.budget)
        plain = SamplingParams()
        values = {item.name: getattr(sampling, item.name) for item in fields(sampling) if item.name not in _SHARED}
        return {_WIRE.get(name, name): value for name, value in values.items() if value != getattr(plain, name)}
