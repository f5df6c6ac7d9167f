"""The model answers single questions; what is no good as a part of a document is rejected with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...structure import Dialect
from ..errors import ValidationError
from ..types import Ask, Completion, Request
from . import filters
from .config import ComposeConfig
from .questions import Answered, Question

ANSWER, JUDGE = "answer", "judge"

SINGLE_HINTS = ("", "Keep it short.")
"""What is put behind a request that stays alone, one an attempt; `ComposeConfig.hints` are those of parts."""

JUDGE_PROMPT = """\
Question: {question}

Answer: {answer}

Does this answer address the question, and make sense? Reply with one word: yes or no."""

_VERDICT_TOKENS = 8


class Answering:
    """Gets the answer of a question: `answer`."""

    def __init__(self, config: ComposeConfig) -> None:
        self.config = config

    async def answer(self, question: Question, ask: Ask) -> Answered:
        """The first answer that passes; each attempt asks for the length in other words.

        Raises:
            ValidationError: none passes; it is the last one's.
            CurationError: whatever `ask` raises.
        """
        hints = SINGLE_HINTS if question.single else self.config.hints
        problem = ValidationError("no answer", "the model was not asked")
        for attempt, hint in enumerate(hints):
            asked = f"{question.text} {hint}".rstrip()
            longest = self.config.max_tokens if question.single else self.config.max_part_tokens
            messages = (*self._system(), *question.history, ("user", asked))
            completion = await ask(Request(question.id, ANSWER, attempt, messages, longest))
            try:
                self._check(question, completion)
                if self.config.judge:
                    await self._judge(question, completion, ask, attempt)
            except ValidationError as error:
                problem = error
            else:
                return Answered(question, completion.text.strip(), hint, completion.completion_tokens)
        raise problem

    def _system(self) -> Sequence[tuple[str, str]]:
        return (("system", self.config.system),) if self.config.system else ()

    def _check(self, question: Question, completion: Completion) -> None:
        config, text = self.config, completion.text.strip()
        if completion.finish_reason != "stop":
            raise ValidationError("cut short", "the answer did not end by itself")
        if not text:
            raise ValidationError("no answer", "the answer is empty")
        check_plain(text, config.tags)
        filters.check_refusal(text)
        if not question.single and completion.completion_tokens < config.min_part_tokens:
            detail = f"the answer has {completion.completion_tokens} tokens, at least {config.min_part_tokens} are asked for"
            raise ValidationError("too short", detail)
        filters.check_repetition(text, config.max_repetition)
        if config.check_language:
            filters.check_language(question.text, text)
        if config.check_topic and not question.single:
            filters.check_topic(question.text, text)

    async def _judge(self, question: Question, completion: Completion, ask: Ask, attempt: int) -> None:
        prompt = JUDGE_PROMPT.format(question=question.text, answer=completion.text.strip())
        said = await ask(Request(question.id, JUDGE, attempt, (("user", prompt),), _VERDICT_TOKENS))
        verdict = re.match(r"\W*(yes|no)\b", said.text, re.IGNORECASE)
        if verdict is None:
            raise ValidationError("no verdict", f"the judge says neither yes nor no: {said.text.strip()[:80]!r}")
        if verdict[1].lower() == "no":
            raise ValidationError("judged wrong", "the judge says that the answer does not address the question")


def check_plain(text: str, dialect: Dialect) -> None:
    """The text holds no tag, no control characters and no halves of characters: it can stand in a document."""
    for tag in dialect.tags:
        if tag in text:
            raise ValidationError("tag in the answer", f"the answer holds the tag {tag}")
    found = re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
    if found:
        raise ValidationError("control character", f"the answer holds the character {found[0]!a}")
