"""What all stages share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from ..completions import ValidationError, read_json
from ..config import CurationConfig
from ..prompting import fill, quoted
from ..types import Completion, Request, Trace

Result = TypeVar("Result")


class Failure(NamedTuple):
    """An answer that would not do, and why."""

    answer: str
    complaint: ValidationError


@dataclass(frozen=True)
class Stage(ABC, Generic[Result]):
    """One question to the model about a trace.

    Attributes:
        name: of the stage, of its prompt, and in every count.
        field: what the object in the answer must hold.
    """

    name: ClassVar[str]
    field: ClassVar[str]

    trace: Trace
    settings: CurationConfig

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """What the prompt is filled with."""

    @abstractmethod
    def read(self, value: Any) -> Result:
        """What the answer says, checked (`Complaint` otherwise)."""

    def request(self, attempt: int = 0, failure: Failure | None = None) -> Request:
        """The question; after a failure, with the answer that would not do and what was wrong with it."""
        messages = fill(self.name, stage=self.name, row=self.trace.id, question=self.trace.question, **self.inputs())
        if failure is not None:
            _, complaint = fill("retry", stage=self.name, row=self.trace.id, complaint=failure.complaint.detail)
            messages = (*messages, ("assistant", quoted(failure.answer, self.settings.quoted)), complaint)
        return Request(self.trace.id, self.name, attempt, messages, self.settings.max_tokens)

    def parse(self, answer: Completion) -> Result:
        """What an answer says (`Complaint` if it will not do)."""
        if answer.finish_reason == "length":
            raise ValidationError(
                "answer cut short", "the answer was cut short: say the same in fewer words, and close every brace"
            )
        return self.read(read_json(answer.text, self.field, self.settings.tags, self.settings.max_answer))
