"""Options of the probing test and the prompting test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...common import CommonOptions
from ...errors import RequestError
from ...options import Options, like, option
from ..config import EvaluationConfig

_TEXTS = "Texts"
Place = Literal["sentence", "token", "question"]


@dataclass(frozen=True)
class CaseOptions(Options):
    """Which questions and documents are used."""

    family: Literal["all", "worksheet", "cases", "countdown", "nested", "chain", "lookup", "listing", "sorting"] = option(
        "all", "Problems of this project.", flag="-f", group=_TEXTS
    )
    documents: str | None = option(
        None,
        "Take questions and documents from here: .xml, .jsonl, .json, .parquet, a folder, or a hub id.",
        metavar="SOURCE",
        was="data",
        group=_TEXTS,
        show_default="the task families",
    )
    limit: int = like(EvaluationConfig, "limit", 100, group=_TEXTS, show_default=None)
    seed: int = like(CommonOptions, "seed", 7, group=_TEXTS)


@dataclass(frozen=True)
class SiteOptions(Options):
    """At which tokens a probe is asked whether a fork is about to start.

    Attributes:
        at: ``sentence``: the last token of every sentence behind which a block may start. ``token``: every token of these
            sentences. ``question``: the prompt's last token.
        within: for ``token``, how many tokens before the fork it counts as about to start.
    """

    error: ClassVar[type[Exception]] = RequestError

    at: Place = option(
        "sentence", "Where: ends of sentences, all tokens of sentences, or the last token of the question.", group=_TEXTS
    )
    within: int = option(8, "With --at token: this many tokens ahead count as about to start.", ge=1, metavar="K", group=_TEXTS)
