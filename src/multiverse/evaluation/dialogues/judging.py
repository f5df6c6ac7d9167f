"""Judges: who decides the items of a checklist for one answer.

A model judges with one request an answer: it sees the image, the conversation, the answer and the reference, and replies with
one verdict for each item as JSON. A reply that is not exactly that is sent back with the complaint; after so many of them the
turn is set aside. The prompt (`prompts/judge.md`) is ours, and so is the scale of yes and no: none was published with
MultiVerse.

Needs inspect for judges that are models.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import MultiverseError
from .config import JudgeConfig
from .dialogue import Dialogue, Turn
from .messages import Message, persona
from .rules import decide, resembles
from .store import Answer, Decision, Judgement, Store

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, Model

RULES = "rules"
"""Name of the judge that is no model."""

_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
_LONGEST = 100_000  # characters of a reply that are read
_QUOTED = 2000  # characters of a reply that are sent back
_PIXELS_PER_TOKEN = 28 * 28  # of models that see in patches of this size; others take fewer tokens
_REASON = 2000  # longest reason, in characters


class BudgetError(MultiverseError):
    """The next judgement might cost more than is left."""


class Case(NamedTuple):
    """One answer with what is needed to judge it.

    Attributes:
        history: the conversation before the answer, the user's last utterance included, without instructions of a mode.
    """

    dialogue: Dialogue
    answer: Answer
    history: tuple[Message, ...]

    @property
    def turn(self) -> Turn:
        """The turn that is answered."""
        return self.dialogue.turns[self.answer.turn]


class Verdicts(NamedTuple):
    """What became of a judgement: decisions on each item, or the reason why there are none."""

    decisions: tuple[Decision, ...]
    reason: str = ""


class Judge(ABC):
    """Decides the items of an answer's checklist.

    Attributes:
        name: in tables and files.
        prices: of a million prompt and completion tokens.
    """

    name: str
    prices: tuple[float, float] = (0.0, 0.0)

    @abstractmethod
    async def judge(self, case: Case, repeat: int, store: Store) -> Verdicts:
        """The verdicts on an answer; each reply is in the store before it is used, and taken from there if it is known.

        Args:
            repeat: which of several judgements of the same answer.

        Raises:
            BudgetError: nothing more can be paid for.
            DiskError: the disk is full.
        """


class RulesJudge(Judge):
    """Decides by each item's rule; items without one are met if the answer has half of the reference's words."""

    name = RULES

    async def judge(self, case: Case, repeat: int, store: Store) -> Verdicts:
        """As `Judge.judge`."""
        if (own := _unasked(case, self.name, repeat, store)) is not None:
            return Verdicts(own.decisions)
        key = _hash(self.name, repeat, case.answer.answer, case.dialogue.digest, case.answer.turn)
        decisions = tuple(
            Decision(
                decide(item.rule, case.answer.answer)
                if item.rule is not None
                else resembles(case.answer.answer, case.turn.reference),
                "by rule" if item.rule is not None else "by comparison of words with the reference",
            )
            for item in case.turn.checklist
        )
        if key not in store.judgements:
            store.add_judgement(_judgement(case, self.name, repeat, key, decisions))
        return Verdicts(store.judgements[key].decisions)


@dataclass
class _Limit:
    """What may still be spent, over all judges of a run."""

    config: JudgeConfig
    reserved: float = 0.0


class ModelJudge(Judge):
    """A model behind an endpoint.

    Args:
        name: the model's, with the endpoint's address.
        model: inspect's.
        config: see `JudgeConfig`.
        limit: of all judges of the run, made by `limits`.
    """

    def __init__(self, name: str, model: Model, config: JudgeConfig, limit: _Limit) -> None:
        self.name, self._model, self._config, self._limit = name, model, config, limit
        self.prices = (config.judge_price_in, config.judge_price_out)
        self._refused: set[str] = set()  # parameters that the endpoint does not take

    async def judge(self, case: Case, repeat: int, store: Store) -> Verdicts:
        """As `Judge.judge`."""
        if (own := _unasked(case, self.name, repeat, store)) is not None:
            return Verdicts(own.decisions)
        system, user = prompt_of(case)
        prompt, complaint, before = (system, user.encode(errors="replace").decode()), "", ""
        for attempt in range(self._config.judge_attempts):
            sampled = (self._config.judge_temperature, self._config.judge_max_tokens)
            image = case.dialogue.image.digest if case.dialogue.image is not None else ""
            key = _hash(self.name, repeat, attempt, prompt, image, before, complaint, sampled)
            judgement = store.judgements.get(key)
            if judgement is None:
                text, tokens = await self._ask(case, prompt, before, complaint, store)
                decisions, problem = read_verdicts(text, len(case.turn.checklist))
                judgement = Judgement(*case.answer.key, self.name, repeat, attempt, key, text, problem, decisions, *tokens)
                store.add_judgement(judgement)
            if not judgement.problem:
                return Verdicts(judgement.decisions)
            before, complaint = judgement.text, judgement.problem
        return Verdicts((), f"the judge's reply was not valid {self._config.judge_attempts} times, last: {complaint}")

    async def _ask(
        self, case: Case, prompt: tuple[str, str], before: str, complaint: str, store: Store
    ) -> tuple[str, tuple[int, int]]:
        """A reply, with its prompt and completion tokens."""
        from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig

        from .chat import as_chat

        chat: list[ChatMessage] = [
            ChatMessageSystem(content=prompt[0]),
            as_chat(Message("user", prompt[1], case.dialogue.image)),
        ]
        if complaint:
            chat += [
                ChatMessageAssistant(content=_quoted(before)),
                ChatMessageUser(content=f"This reply is not valid: {complaint}. Reply again, with the one JSON object alone."),
            ]
        most = self._bound(chat, case)
        self._reserve(most, store)
        parameters = {"temperature": self._config.judge_temperature, "response_schema": _schema()}
        try:
            while True:
                sent = {name: value for name, value in parameters.items() if name not in self._refused}
                try:
                    output = await self._model.generate(
                        chat, config=GenerateConfig(max_tokens=self._config.judge_max_tokens, **sent)
                    )
                    break
                except MultiverseError as error:
                    if getattr(error, "status", None) not in (400, 422) or (name := _parameter(str(error), sent)) is None:
                        raise
                    self._refused.add(name)
        finally:
            self._limit.reserved -= most
        usage = output.usage
        given = (usage.input_tokens, usage.output_tokens) if usage is not None else (0, 0)
        estimated = sum(len(message.text) for message in chat) // 4 + 1, len(output.completion) // 4 + 1
        return output.completion, (given[0] or estimated[0], given[1] or estimated[1])

    def _bound(self, chat: list[ChatMessage], case: Case) -> float:
        """The most that a request can cost: a token has at least one byte."""
        prompt = sum(len(message.text.encode("utf-8", "surrogatepass")) + 16 for message in chat)
        image = case.dialogue.image
        if image is not None:
            prompt += image.width * image.height // _PIXELS_PER_TOKEN + 512
        return self._config.cost(prompt, self._config.judge_max_tokens)

    def _reserve(self, most: float, store: Store) -> None:
        cap = self._config.judge_max_cost
        spent = store.cost
        if cap is not None and spent + self._limit.reserved + most > cap:
            raise BudgetError(
                f"--judge-max-cost {cap:g} leaves too little for the next judgement ({spent:.4f} spent): judgements are kept; "
                "raise it and run the command again to judge the rest"
            )
        self._limit.reserved += most


def limits(config: JudgeConfig) -> _Limit:
    """What the judges of a run share."""
    return _Limit(config)


def prompt_of(case: Case) -> tuple[str, str]:
    """System and user message of a judge."""
    system, user = _templates()
    turn = case.turn
    described = persona(case.dialogue)
    lines = [f"[{number}] {' '.join(item.question.split())}" for number, item in enumerate(turn.checklist, 1)]
    count = len(lines)
    return system, user.substitute(
        persona=f"Who the user is:\n\n{described}\n\n" if described else "",
        conversation="\n\n".join(_transcribed(message) for message in case.history),
        answer=case.answer.answer,
        reference=turn.reference or "(none)",
        count="one question" if count == 1 else f"{count} questions",
        checklist="\n".join(lines),
    )


def _transcribed(message: Message) -> str:
    speaker = "USER" if message.role == "user" else "ASSISTANT"
    return f"{speaker}{' (with the image)' if message.image is not None else ''}:\n<<<\n{message.text}\n>>>"


def read_verdicts(text: str, count: int) -> tuple[tuple[Decision, ...], str]:
    """The decisions in a reply, or none and what is wrong with it."""
    try:
        return _verdicts(text, count), ""
    except ValueError as error:
        return (), str(error)


def _verdicts(text: str, count: int) -> tuple[Decision, ...]:
    if not text.strip():
        raise ValueError("it is empty")
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text):,} characters: be brief")
    fenced = _FENCE.fullmatch(text.strip())
    try:
        value = json.loads(fenced[1] if fenced is not None else text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not one JSON object ({error.msg}, character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict) or value.keys() != {"verdicts"}:
        raise ValueError("it must be an object with the one field verdicts")
    verdicts = value["verdicts"]
    if not isinstance(verdicts, list) or len(verdicts) != count:
        got = len(verdicts) if isinstance(verdicts, list) else "no list of"
        raise ValueError(f"it has {got} verdicts, and the checklist has {count} questions: give one for each")
    return tuple(_decision(one, number) for number, one in enumerate(verdicts, 1))


def _decision(value: Any, number: int) -> Decision:
    if not isinstance(value, dict) or value.keys() != {"item", "reason", "met"}:
        raise ValueError(f"verdict {number} must be an object with item, reason and met")
    if type(value["item"]) is not int or value["item"] != number:
        raise ValueError(f"verdict {number} is on item {value['item']!r:.40}: keep the order of the checklist, from 1")
    if type(value["met"]) is not bool:
        raise ValueError(f"verdict {number} has met = {value['met']!r:.40}: it must be true or false")
    if not isinstance(value["reason"], str) or len(value["reason"]) > _REASON:
        raise ValueError(f"verdict {number} has no short reason: it must be a sentence")
    return Decision(value["met"], value["reason"].strip())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field stands twice in one object")
    return dict(pairs)


def _unasked(case: Case, judge: str, repeat: int, store: Store) -> Judgement | None:
    """The judgement on an empty answer, which meets nothing: nobody is asked."""
    if case.answer.answer.strip():
        return None
    key = _hash(judge, repeat, case.answer.key, "empty")
    decisions = tuple(Decision(False, "the answer is empty") for _ in case.turn.checklist)
    if key not in store.judgements:
        store.add_judgement(_judgement(case, judge, repeat, key, decisions))
    return store.judgements[key]


def _judgement(case: Case, judge: str, repeat: int, key: str, decisions: tuple[Decision, ...]) -> Judgement:
    return Judgement(*case.answer.key, judge, repeat, 0, key, "", "", decisions)


def _quoted(text: str) -> str:
    shown = text[:_QUOTED].encode(errors="replace").decode()
    return shown if shown.strip() else "(an empty reply)"


def _hash(*parts: Any) -> str:
    return sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:24]


_REFUSALS = {
    "response_schema": ("response_format", "json_schema", "schema", "structured"),
    "temperature": ("temperature",),
}
"""Parameters that a judge can do without (its reply is checked here in any case), and words of messages that refuse them."""


def _parameter(message: str, sent: dict[str, Any]) -> str | None:
    """The parameter among `sent` that a message refuses, if it is one to do without."""
    words = message.lower()
    return next((name for name in sent if any(word in words for word in _REFUSALS[name])), None)


@cache
def _templates() -> tuple[str, Template]:
    text = (files(__package__) / "prompts" / "judge.md").read_text(encoding="utf-8")
    system, _, user = text.partition("\n---\n")
    return system.strip(), Template(user.strip())


def _schema() -> Any:
    from inspect_ai.model import ResponseSchema
    from inspect_ai.util import JSONSchema

    verdict = JSONSchema(
        type="object",
        properties={
            "item": JSONSchema(type="integer"),
            "reason": JSONSchema(type="string"),
            "met": JSONSchema(type="boolean"),
        },
        required=["item", "reason", "met"],
        additionalProperties=False,
    )
    whole = JSONSchema(
        type="object",
        properties={"verdicts": JSONSchema(type="array", items=verdict)},
        required=["verdicts"],
        additionalProperties=False,
    )
    return ResponseSchema(name="verdicts", json_schema=whole, strict=True)
