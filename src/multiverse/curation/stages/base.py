"""Base class of the stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from ..completions import read_json
from ..config import CurationConfig
from ..errors import ValidationError
from ..prompting import fill, quoted
from ..types import Completion, Request, Trace

Result = TypeVar("Result")


class Failure(NamedTuple):
    """The text of an invalid completion, and its error."""

    text: str
    error: ValidationError


@dataclass(frozen=True)
class Stage(ABC, Generic[Result]):
    """One request of the model about a trace.

    Attributes:
        name: of the stage, of its prompt, and in every count.
        field: field of the JSON object in the completion.
    """

    name: ClassVar[str]
    field: ClassVar[str]

    trace: Trace
    config: CurationConfig

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Variables of the prompt."""

    @abstractmethod
    def read(self, value: Any) -> Result:
        """The result from the field's value (`ValidationError` if it is invalid)."""

    def request(self, attempt: int = 0, failure: Failure | None = None) -> Request:
        """The request; after a failure, with the invalid completion and its error."""
        messages = fill(self.name, stage=self.name, row=self.trace.id, question=self.trace.question, **self.inputs())
        if failure is not None:
            _, retry = fill("retry", stage=self.name, row=self.trace.id, complaint=failure.error.detail)
            messages = (*messages, ("assistant", quoted(failure.text, self.config.quoted)), retry)
        return Request(self.trace.id, self.name, attempt, messages, self.config.max_tokens)

    def parse(self, completion: Completion) -> Result:
        """The result from a completion (`ValidationError` if it is invalid)."""
        if completion.finish_reason == "length":
            detail = "the answer was cut short: say the same in fewer words, and close every brace"
            raise ValidationError("answer cut short", detail)
        return self.read(read_json(completion.text, self.field, self.config.tags, self.config.max_answer))
