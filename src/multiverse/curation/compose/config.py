"""Options of composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...common import DialectChoice
from ...options import like, option
from ..config import CurationConfig

Form = Literal[
    "running", "sentences", "ordered", "numbered", "bullets", "lines", "letters", "table",
    "each", "compare", "compare_by", "kinds", "aspects", "nested",
]  # fmt: skip

_PARTS, _FILTERS, _TEXTS = "Documents", "Filters", "Texts"


@dataclass(frozen=True)
class ComposeConfig(CurationConfig):
    """How answered questions become documents. Fields that belong to the stages of curation are not used."""

    num_documents: int | None = option(
        None,
        "How many documents to compose.",
        ge=1,
        metavar="N",
        group=_PARTS,
        show_default="as many as use each answer three times",
    )
    min_parts: int = option(2, "Fewest parts of a request that forks.", ge=2, le=12, metavar="N", group=_PARTS)
    max_parts: int = option(5, "Most parts of a request that forks.", ge=2, le=12, metavar="N", group=_PARTS)
    unforked: float = option(0.25, "Share of documents without a block.", ge=0, le=1, metavar="X", group=_PARTS)
    unsplit: float = option(
        0.4,
        "Share of those whose request does not split: the file's single requests, and questions about two things.",
        ge=0,
        le=1,
        metavar="X",
        group=_PARTS,
    )
    follow_ups: float = option(
        0.06, "Share of forked documents that come later in a chat.", ge=0, le=1, metavar="X", group=_PARTS
    )
    forms: tuple[Form, ...] = option(
        (), "Use only these forms of requests; may be repeated.", group=_PARTS, show_default="all that the questions allow"
    )
    min_part_tokens: int = option(40, "Fewest tokens of an answer that becomes a path.", ge=1, metavar="N", group=_FILTERS)
    max_part_tokens: int = option(160, "Most tokens of an answer that becomes a path.", ge=1, metavar="N", group=_FILTERS)
    max_repetition: float = option(
        0.12, "Largest share of runs of four words that an answer may repeat.", ge=0, le=1, metavar="X", group=_FILTERS
    )
    check_language: bool = option(True, "Reject answers in another language than the question.", group=_FILTERS)
    check_topic: bool = option(True, "Reject answers without any content word of the question.", group=_FILTERS)
    judge: bool = like(CurationConfig, "judge", group=_FILTERS)
    hints: tuple[str, ...] = option(
        (
            "Answer in a short paragraph.",
            "Write a paragraph of about 100 words.",
            "Answer in two to four sentences.",
        ),
        "Sentence behind a question that asks for the length of an answer; repeated, one an attempt.",
        metavar="TEXT",
        group=_TEXTS,
        name="--hint",
    )
    system: str = option(
        "", "System message that begins the conversation.", metavar="TEXT", group=_TEXTS, show_default="the model's own"
    )
    outline_writer: Literal["code", "model"] = option("code", "Who shortens questions to outlines.", group=_TEXTS)
    conclusion_writer: Literal["code", "model"] = option("code", "Who writes the conclusions.", group=_TEXTS)
    twins: Literal["parts", "model"] = option(
        "parts", "The answer in a line: the parts one after the other, or the model's to the whole request.", group=_TEXTS
    )
    held_out: float = option(
        0.15,
        "Share of topics and of wordings kept for validation, where the questions do not say.",
        ge=0,
        le=0.5,
        metavar="X",
        group="Output",
    )
    max_tokens: int = like(CurationConfig, "max_tokens", 512, group=_FILTERS)
    validation: float = like(CurationConfig, "validation")
    dialect: DialectChoice = like(CurationConfig, "dialect", "multiverse-answer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_parts < self.min_parts:
            raise self.error(f"max_parts={self.max_parts} is not valid: it must be at least min_parts, {self.min_parts}")
        if self.max_part_tokens < self.min_part_tokens:
            allowed = f"it must be at least min_part_tokens, {self.min_part_tokens}"
            raise self.error(f"max_part_tokens={self.max_part_tokens} is not valid: {allowed}")
        if not self.hints:
            raise self.error("hints=() is not valid: give at least one, an empty one for none")
