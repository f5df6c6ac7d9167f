"""A run of composition: first the answers of all questions, then the documents, both from stored completions on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..client import Client
from ..errors import CurationError, RunError, ValidationError
from ..job import Job
from ..outcomes import CURATED, OUTCOMES, Outcomes
from ..output import Expected
from ..run import CurateRow, run, work_on
from ..types import Ask, Completion, Curated, Outcome, Rejected, Request, Trace, Usage
from . import answering, filters, writing
from .answering import Answering
from .composer import Composed
from .config import ComposeConfig
from .plan import can_fork, composed_documents, pool_of, together
from .pool import Pool
from .questions import Answered, Question, hold_out
from .wordings import OWN, Wordings, read_wordings
from .writing import Writing, plain_document


@dataclass(frozen=True)
class Composition(Job):
    """Composes documents of questions in a folder; `start` as that of `Job`.

    A start makes all documents anew, from the completions in the store: what was paid for is not asked again, and the same
    completions give the same files.

    Attributes:
        questions: the questions, as they were read.
        wordings: file of the wordings of requests.
    """

    config: ComposeConfig
    questions: Sequence[Question] = ()
    wordings: Path = OWN
    _found: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        """The manifest's description, with the questions and all texts that documents depend on."""
        description = super().describe()
        texts = [answering.SINGLE_HINTS, answering.JUDGE_PROMPT, writing.OUTLINE_PROMPT, writing.CONCLUDE_PROMPT, writing.RETRY]
        hashes = {
            "compose": sha256(repr(texts).encode()).hexdigest(),
            "wordings": sha256(self.wordings.read_bytes()).hexdigest(),
            "questions": sha256(repr(self.questions).encode("utf-8", "surrogatepass")).hexdigest(),
        }
        return {**description, "prompts": {**description["prompts"], **hashes}}

    def open_outcomes(self) -> Outcomes:
        """The file of outcomes, empty: composition takes milliseconds, the completions are in the store."""
        (self.out / OUTCOMES).unlink(missing_ok=True)
        return Outcomes(self.out / OUTCOMES)

    def expected(self) -> Expected:
        """What the outputs count besides outcomes."""
        found = self._found
        totals: dict[str, Any] = {
            name: found[name] for name in ("questions", "answered", "train_answers", "validation_answers") if name in found
        }
        return Expected(found.get("rows"), found.get("usage", Usage()), totals, "Composed answers")

    async def work(
        self,
        traces: Iterable[Trace],  # noqa: ARG002
        curate: CurateRow,  # noqa: ARG002
        client: Client,
        outcomes: Outcomes,
    ) -> CurationError | None:
        """Answer, then compose."""
        seed = self.endpoint.seed or 0
        questions = hold_out(self.questions, self.config.held_out, seed)
        wordings = self._wordings()
        questions += together(questions, wordings, self.config, seed)
        answers = _Answers(self.config, questions, client, outcomes)
        ended = await answers.run()
        self._found.update(questions=len(questions), answered=len(answers.answered), usage=answers.usage, rows=None)
        if ended is not None:
            return ended
        rejected = answers.rejected()
        pools = {
            held_out: pool_of(answers.in_order(), held_out=held_out, least=self.config.min_parts) for held_out in (False, True)
        }
        self._found.update(train_answers=len(pools[False].parts), validation_answers=len(pools[True].parts))
        enough = can_fork(pools[False], self.config)
        composed = list(composed_documents(pools, wordings, self.config, seed)) if enough else []
        rows = {f"composed-{number:06}": one for number, one in enumerate(composed, 1)}
        self._found["rows"] = outcomes.expected = len(rejected) + len(rows)
        writer = Writing(self.config)

        async def row(trace: Trace, ask: Ask) -> Outcome:
            return rejected[trace.id] if trace.id in rejected else await writer.write(trace, rows[trace.id], ask)

        every = [*(one.trace for one in rejected.values()), *(_trace(name, one) for name, one in rows.items())]
        outcomes.statuses.clear()
        ended = await run(every, row, client, outcomes, dialect=self.config.tags)
        return ended if enough or ended is not None else RunError(_too_few(pools[False], rejected, self.config))

    def _wordings(self) -> Wordings:
        """The wordings; of the built-in English ones only those without words, if the questions are in another language."""
        found = read_wordings(self.wordings)
        text = " ".join(one.text for one in self.questions)
        english = filters.script(text) == "latin" and filters.language(text) in ("en", "")
        return found if english or self.wordings != OWN else found.neutral()


class _Answers:
    """Asks all questions, some at a time.

    Attributes:
        answered: answers that passed, by the question's id.
        usage: of all their completions.
    """

    def __init__(self, config: ComposeConfig, questions: Sequence[Question], client: Client, outcomes: Outcomes) -> None:
        self.config, self.questions, self.client, self.outcomes = config, questions, client, outcomes
        self.answered: dict[str, Answered] = {}
        self.usage = Usage()
        self._records: dict[int, dict[str, Any]] = {}
        self._answering = Answering(config)
        self._by_id = {one.id: one for one in questions}

    async def run(self) -> CurationError | None:
        """Ask until all are answered; returns what ended it early."""
        self.outcomes.expected = len(self.questions)
        waiting = iter(enumerate(self.questions))
        ended: CurationError | None = None

        async def worker() -> None:
            nonlocal ended
            for number, question in waiting:
                if ended is not None or self.client.limiter.stopped is not None:
                    return
                try:
                    record = await work_on(number, _question_trace(question), self._row, self.client.ask, self.config.tags)
                except CurationError as error:
                    ended = ended or error
                    self.client.stop(error)
                    return
                self.outcomes.count(record)
                self._records[number] = record

        workers = [asyncio.create_task(worker()) for _ in range(2 * self.client.config.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        for record in self._records.values():
            self.usage = self.usage.add(Usage(**record["usage"]))
        return ended or self.client.limiter.stopped

    async def _row(self, trace: Trace, ask: Ask) -> Outcome:
        attempts: Counter[str] = Counter()

        async def counted(request: Request) -> Completion:
            attempts[request.stage] += 1
            return await ask(request)

        try:
            found = await self._answering.answer(self._by_id[trace.id], counted)
        except ValidationError as error:
            return Rejected(trace, answering.ANSWER, error.reason, error.detail, dict(attempts))
        self.answered[trace.id] = found
        document = plain_document(found.text, self.config.tags)
        return Curated(trace, document, document, {})

    def in_order(self) -> list[Answered]:
        """The answers in the order of the questions."""
        return [self.answered[one.id] for one in self.questions if one.id in self.answered]

    def rejected(self) -> dict[str, Rejected]:
        """The questions without an answer, by id, in order."""
        found = {}
        for number, question in enumerate(self.questions):
            record = self._records[number]
            if record["status"] != CURATED:
                self.answered.pop(question.id, None)  # one that cannot be written
                said = (record["stage"], record["reason"], record["detail"], record["attempts"])
                found[question.id] = Rejected(_question_trace(question), *said)
        return found


def _question_trace(question: Question) -> Trace:
    return Trace(question.id, question.text, (), "", question.source, question.line, question.history)


def _trace(name: str, composed: Composed) -> Trace:
    first = composed.parts[0].question
    return Trace(name, composed.request, (), "", first.source, first.line, composed.history)


def _too_few(pool: Pool, rejected: Mapping[str, Rejected], config: ComposeConfig) -> str:
    reasons: Counter[str] = Counter()
    for one in rejected.values():
        reasons[one.reason] += 1
    most = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items(), key=lambda item: -item[1])[:4])
    why = f" (rejected: {most}; see outcomes.jsonl)" if most else ""
    return (
        f"only {len(pool.parts)} answers can become parts, of which a request needs {config.min_parts} on different topics"
        f"{why}: give more questions, or loosen the filters, such as --min-part-tokens"
    )
