"""Curation of one trace: the stages in order, retries after invalid completions, and fallbacks."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from ..data.records import checked
from ..pages import within
from ..structure import Block, Document, place, render
from .assemble import Rewritten, assemble, original_text, space_after
from .checks import (
    PlacedBlock,
    body_texts,
    check_answer,
    check_distance,
    check_grammar,
    check_independence,
    check_sentences,
    distance,
    placed_blocks,
    trace_texts,
)
from .config import CurationConfig
from .errors import ValidationError
from .outline import Filled
from .stages import Conclude, Failure, Groups, Judge, Outline, Refill, Rewrite, Stage, Summary, units_of
from .stages.rewrite import parts
from .types import Ask, Curated, Outcome, Rejected, Trace

Result = TypeVar("Result")

NOTHING = "nothing parallel"
"""Reason of a trace without parallel parts. This is no failure, and frequent for short traces."""


async def curate(trace: Trace, ask: Ask, config: CurationConfig) -> Outcome:
    """The document of a trace, or why there is none.

    After an invalid completion a stage is asked again with the error, up to `config.attempts` requests. If none is valid, a
    rewrite falls back to the refilled text, and a trace without structure is rejected; so is one in which nothing is parallel.
    The same completions give the same outcome.

    Raises:
        CurationError: whatever `ask` raises.
    """
    curation = _Curation(trace, ask, config)
    try:
        return await curation.outcome()
    except _RejectedError as rejected:
        return Rejected(trace, rejected.stage, rejected.error.reason, rejected.error.detail, dict(curation.attempts))


class _RejectedError(Exception):
    """The trace becomes no document, or a stage of it has no valid completion."""

    def __init__(self, stage: str, error: ValidationError) -> None:
        self.stage, self.error = stage, error
        super().__init__(stage, error)


class _Curation:
    def __init__(self, trace: Trace, ask: Ask, config: CurationConfig) -> None:
        self.trace, self.ask, self.config = trace, ask, config
        self.attempts: Counter[str] = Counter()
        self.fallbacks: list[str] = []
        self.notes: list[str] = []

    async def outcome(self) -> Curated:
        self.check_trace()
        filled, refilled = await self.structured()
        document = await self.rewritten(filled, refilled) if self.config.rewrite else refilled
        distances = {
            name: distance(self.original, self.text(filled, other))
            for name, other in (("refilled", refilled), ("final", document))
        }
        fallbacks, notes = tuple(self.fallbacks), tuple(self.notes)
        return Curated(self.trace, document, refilled, distances, fallbacks, dict(self.attempts), notes)

    def check_trace(self) -> None:
        """Reject before any request what no completion could repair."""
        reasoning = self.trace.reasoning
        for tag in self.config.tags.tags:
            if tag in reasoning or tag in self.trace.answer:
                raise _RejectedError(
                    "trace", ValidationError("tag in the trace", f"the trace holds the tag {tag}: take it out first")
                )
        try:
            checked(reasoning, "the reasoning")
            checked(self.trace.answer, "the answer")
        except ValueError as error:
            raise _RejectedError("trace", ValidationError("broken text", str(error))) from None
        if len(self.trace.sentences) < 2:
            raise _RejectedError("trace", ValidationError(NOTHING, "the reasoning has fewer than two sentences"))

    # -- stages 1 to 4 -------------------------------------------------------------------------------------------------

    async def structured(self) -> tuple[Filled, Document]:
        """The refilled document. Groups whose paths turn out to depend on each other are requested again."""
        steps, _ = await self.result(Summary(self.trace, self.config))
        stage, failure = Groups(self.trace, self.config, steps), None
        while True:
            groups, text = await self.result(stage, self.attempts[stage.name], failure)
            if not groups:
                raise _RejectedError(stage.name, ValidationError(NOTHING, "no group of steps is parallel"))
            blocks, _ = await self.result(Outline(self.trace, self.config, steps, groups))
            if not blocks:
                raise _RejectedError(Outline.name, ValidationError(NOTHING, "no group became a block"))
            filled, _ = await self.result(Refill(self.trace, self.config, blocks))
            document = assemble(filled, self.trace, self.config)
            self.check_refilled(filled, document)
            try:
                check_independence(filled, document, self.trace.question, self.config.phrase)
                verdicts = await self.judge(filled, document) if self.config.judge else []
            except ValidationError as error:
                if self.attempts[stage.name] >= self.config.attempts:
                    raise _RejectedError(stage.name, error) from None
                failure = Failure(text, error)
                continue
            found = self.blocks(filled, document)
            self.notes += [*(f"block {one.name} ({one.filled.kind}): {one.filled.reason}" for one in found), *verdicts]
            return filled, document

    def check_refilled(self, filled: Filled, document: Document) -> None:
        try:
            check_grammar(document, self.config.tags)
            check_sentences(filled, document, self.trace, self.config.phrase)
            check_answer(filled, document, self.trace, self.config.phrase)
            check_distance(self.original, self.text(filled, document), self.config.refilled_distance)
        except ValidationError as error:
            raise _RejectedError(Refill.name, error) from None

    async def judge(self, filled: Filled, document: Document) -> list[str]:
        """The judge's verdict on each block (`ValidationError` if it finds dependent paths)."""
        verdicts = []
        for block in self.blocks(filled, document):
            paths = tuple(self.paths(block))
            stage = Judge(self.trace, self.config, block.name, block.before, paths, self.rendered(block))
            try:
                dependences, _ = await self.result(stage)
            except _RejectedError as rejected:
                verdicts.append(f"block {block.name}: no verdict of the judge ({rejected.error.reason})")
                continue
            if dependences:
                path, on, because = dependences[0]
                outline = block.refilled.outlines[path - 1]
                raise ValidationError("not independent", f"path {path} ({outline}) depends on path {on} beside it: {because}")
            verdicts.append(f"block {block.name}: independent, says the judge")
        return verdicts

    # -- stage 5 -------------------------------------------------------------------------------------------------------

    async def rewritten(self, filled: Filled, refilled: Document) -> Document:
        """The final document; where no rewrite is valid, the refilled text stays."""
        written = Rewritten()
        for block in self.blocks(filled, refilled):
            for number in range(len(block.filled.paths)):
                await self.rewrite_path(block, number, written)
            await self.conclude(block, filled, written)
        document = assemble(filled, self.trace, self.config, written)
        try:
            check_grammar(document, self.config.tags)
            check_answer(filled, document, self.trace, self.config.phrase)
            check_independence(filled, document, self.trace.question, self.config.phrase)
            check_distance(self.original, self.text(filled, document), self.config.final_distance)
        except ValidationError as error:
            self.fallbacks = [block.name for block in self.blocks(filled, refilled)]
            self.notes.append(f"the rewritten document was given up: {error}")
            return refilled
        return document

    async def rewrite_path(self, block: PlacedBlock, number: int, written: Rewritten) -> None:
        path, name = block.filled.paths[number], within(block.name, number)
        paths = self.paths(block)
        before = "\n".join((block.before, *block.refilled.outlines))
        inner = tuple(item for item in block.refilled.paths[number] if isinstance(item, Block))
        inside = "\n".join(body_texts(inner, self.config.phrase, conclusions=True))
        texts = [""] * len(path.stretches)
        for part in parts(units_of(path)):
            pieces = tuple(original_text(unit.sentences, self.trace) for unit in part)
            outline, siblings = block.filled.outlines[number], tuple(paths[:number])
            stage = Rewrite(self.trace, self.config, name, outline, before, paths[number], pieces, siblings, inside)
            try:
                rewritten, _ = await self.result(stage)
            except _RejectedError as rejected:
                self.fall_back(name, rejected)
                return
            for unit, text in zip(part, rewritten, strict=True):
                texts[unit.stretch] += text + space_after(unit.sentences[-1], self.trace)
        written.paths[name] = tuple(text.rstrip() for text in texts)

    async def conclude(self, block: PlacedBlock, filled: Filled, written: Rewritten) -> None:
        document = assemble(filled, self.trace, self.config, written)
        current = next(other.refilled for other in self.blocks(filled, document) if other.name == block.name)
        paths = tuple("\n".join(body_texts(path, self.config.phrase, conclusions=True)) for path in current.paths)
        rendered = self.rendered(block._replace(refilled=current))
        drafts, given = block.filled.outlines, original_text(block.filled.conclusion, self.trace)
        stage = Conclude(self.trace, self.config, block.name, block.filled.kind, block.before, drafts, paths, rendered, given)
        try:
            written.blocks[block.name], _ = await self.result(stage)
        except _RejectedError as rejected:
            written.forget(block.name)
            self.fall_back(block.name, rejected)

    def fall_back(self, name: str, rejected: _RejectedError) -> None:
        self.fallbacks.append(name)
        self.notes.append(f"{name} kept its refilled text ({rejected.stage}): {rejected.error}")

    # -- requests and texts --------------------------------------------------------------------------------------------

    async def result(self, stage: Stage[Result], attempt: int = 0, failure: Failure | None = None) -> tuple[Result, str]:
        """Result and text of the first valid completion from this attempt on (`_RejectedError` if there is none)."""
        while attempt < self.config.attempts:
            completion = await self.ask(stage.request(attempt, failure))
            attempt += 1
            self.attempts[stage.name] += 1
            try:
                return stage.parse(completion), completion.text
            except ValidationError as error:
                failure = Failure(completion.text, error)
        assert failure is not None
        raise _RejectedError(stage.name, failure.error)

    @property
    def original(self) -> str:
        """The text that the reasoning is compared with; where it is one trunk with the answer, it includes that."""
        return self.trace.reasoning if self.config.tags.apart else f"{self.trace.reasoning}\n{self.trace.answer}"

    def text(self, filled: Filled, document: Document) -> str:
        return "\n".join(trace_texts(filled, document.trunk, self.config.phrase))

    def paths(self, block: PlacedBlock) -> list[str]:
        """The texts of a block's paths."""
        both = zip(block.filled.paths, block.refilled.paths, strict=True)
        return ["\n".join(trace_texts(path, body, self.config.phrase)) for path, body in both]

    def blocks(self, filled: Filled, document: Document) -> list[PlacedBlock]:
        return placed_blocks(filled, document, self.config.phrase)

    def rendered(self, block: PlacedBlock) -> str:
        """A rendered block, for prompts."""
        return render(place((block.refilled,), "", self.config.tags), self.config.tags)
