"""Options of curation: how a trace becomes a document, which endpoint is asked, and what a run may cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from ..common import CommonOptions, DialectChoice
from ..options import Options, like, option
from ..structure import DIALECTS, Dialect
from .types import Usage

IN_PROCESS = "in-process"
"""Base URL of a model that runs in this process."""


@dataclass(frozen=True)
class CurationConfig(Options):
    """How a trace is turned into a document.

    Normalised edit distances run from 0 (the same) to 1; unrelated texts lie at about 0.75, so larger limits check nothing.
    """

    manifest_names: ClassVar[dict[str, str]] = {"max_nesting": "depth"}
    """Names of fields in manifests, where they differ."""

    attempts: int = option(
        3,
        "Most requests for one result; each repetition quotes the error of the one before.",
        ge=1,
        metavar="N",
        group="Curation",
    )
    refilled_distance: float = option(
        0.2, "Largest normalised edit distance to the trace of a document of its own sentences.", ge=0, le=1
    )
    final_distance: float = option(
        0.7, "Largest normalised edit distance after rewriting, for each path and for the whole.", ge=0, le=1
    )
    judge: bool = option(
        False,
        "Also ask the model whether paths depend on each other; with compose, whether each answer makes sense.",
        group="Curation",
    )
    rewrite: bool = option(True, "Have the model rewrite every path so that it stands alone.", group="Curation")
    dialect: DialectChoice = like(CommonOptions, "dialect", group="Curation")
    max_nesting: int = option(3, "Deepest nesting of blocks.", ge=1, was="depth")
    max_tokens: int = like(CommonOptions, "max_tokens", 4096, was="answer_tokens")
    max_answer: int = option(100_000, "Longest completion that is parsed, in characters.", ge=1)
    quoted: int = option(2000, "Characters of an invalid completion that are quoted in the retry.", ge=1)
    phrase: str = option("Let's think in parallel.", "Last words of a text before a block; empty for none.")
    validation: float = like(CommonOptions, "validation", group="Output")

    @property
    def tags(self) -> Dialect:
        """The dialect itself."""
        return DIALECTS[self.dialect]

    def recorded(self) -> dict[str, Any]:
        """The values as manifests hold them."""
        values = asdict(self)
        last = {"validation": values.pop("validation")}
        return {self.manifest_names.get(name, name): value for name, value in values.items()} | last


@dataclass(frozen=True)
class DistillConfig(CurationConfig):
    """Which samples a distillation takes and keeps. Fields that belong to the stages of curation are not used."""

    manifest_names: ClassVar[dict[str, str]] = {
        **CurationConfig.manifest_names,
        "samples": "n",
        "min_parallelism": "parallelism",
        "min_difference": "difference",
    }

    samples: int = option(4, "Completions of each question.", ge=1, metavar="K", group="Sampling", was="n")
    instruction: str = option("", "Text appended to every question.")
    min_parallelism: float = option(
        1.05, "Least parallelism of a document, counted in words.", ge=1, metavar="X", group="Filters", was="parallelism"
    )
    min_difference: float = option(
        0.05,
        "Least normalised edit distance between documents for one question.",
        ge=0,
        le=1,
        metavar="X",
        group="Filters",
        was="difference",
    )


@dataclass(frozen=True)
class DataflowConfig(CurationConfig):
    """How solutions become documents by data flow. Fields that belong to the stages of curation are not used."""

    min_gain: int = option(
        0, "Words by which a block has to shorten the longest chain, at least.", ge=0, metavar="N", group="Curation"
    )
    keep_sequential: bool = option(
        True, "Keep solutions without anything to do side by side, as documents without a block.", group="Curation"
    )


@dataclass(frozen=True)
class EndpointConfig(Options):
    """Which model is asked, and how.

    `temperature` and `seed` are sent only where they are set; the seed also decides which questions are kept for validation.
    There are fewer requests in flight than `concurrency` while the endpoint is overloaded.
    """

    base_url: str = option(
        help="Endpoint with OpenAI's chat completions API, up to /v1.", metavar="URL", group="Model", env="OPENAI_BASE_URL"
    )
    model: str = like(CommonOptions, "model", required=True, metavar="NAME")
    api_key: str | None = like(CommonOptions, "api_key", was="key")
    temperature: float | None = like(CommonOptions, "temperature", None, show_default="the endpoint's")
    seed: int | None = like(CommonOptions, "seed", None, show_default="none is sent")
    concurrency: int = like(CommonOptions, "concurrency", 16)
    timeout: float = option(300.0, "Seconds that a request may take.", gt=0, metavar="S", group="Limits")
    tries: int = option(8, "How often to send a request that fails with a transient error.", ge=1, metavar="N", group="Limits")
    backoff: float = option(0.5, "Seconds before the second try; doubled after each further one.", ge=0)

    @property
    def address(self) -> str:
        """The base URL without credentials and query."""
        url = urlsplit(self.base_url)
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))

    @property
    def sampling(self) -> dict[str, Any]:
        """What a completion depends on besides the request; part of its key in the store."""
        return {"model": self.model, "temperature": self.temperature, "seed": self.seed}


@dataclass(frozen=True)
class BudgetConfig(Options):
    """Prices, and the most that a folder may take over all its runs; `None` is no limit."""

    price_in: float = option(0.0, "Price of a million prompt tokens.", ge=0, metavar="X", group="Cost")
    price_out: float = option(0.0, "Price of a million completion tokens.", ge=0, metavar="X", group="Cost")
    max_cost: float | None = option(
        None, "Most that the folder may cost, all runs together.", ge=0, metavar="X", group="Cost", show_default="no limit"
    )
    token_budget: int | None = option(
        None,
        "Most tokens that the folder may take, all runs together.",
        ge=0,
        metavar="N",
        group="Cost",
        show_default="no limit",
    )

    @property
    def priced(self) -> bool:
        """Whether there are prices."""
        return bool(self.price_in or self.price_out)

    def cost(self, usage: Usage) -> float:
        """Cost of these tokens."""
        return (usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out) / 1e6
