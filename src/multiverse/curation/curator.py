"""One trace through all stages: what is asked, what is done with a bad answer, and what is done when there is no good one."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, TypeVar

from ..data.records import checked
from ..structure import Block, Document, render
from .assemble import Rewritten, assemble, put_back, white_space_behind
from .checks import (
    Site,
    check_answer,
    check_distance,
    check_grammar,
    check_independence,
    check_sentences,
    distance,
    retold,
    sites,
    told,
)
from .completions import ValidationError
from .config import CurationConfig
from .outline import Filled, within
from .stages import Conclude, Failure, Groups, Judge, Outline, Refill, Rewrite, Stage, Summary, units_of
from .stages.rewrite import parts
from .types import Ask, Curated, Outcome, Rejected, Trace

Result = TypeVar("Result")

NOTHING = "nothing parallel"
"""Reason of a trace in which nothing forks: not a failure, and the most common fate of a short one."""


async def curate(trace: Trace, ask: Ask, settings: CurationConfig) -> Outcome:
    """The document of a trace, or why there is none.

    A stage that gets no good answer is asked again with what was wrong, up to the limit. After that a rewrite falls back to
    the refilled text, and a trace whose structure cannot be had is set aside; so is one in which nothing is parallel, which
    is not a failure. The same answers give the same outcome.

    Raises:
        CurationError: whatever `ask` raises.
    """
    curation = _Curation(trace, ask, settings)
    try:
        return await curation.outcome()
    except _RejectedError as aside:
        return Rejected(trace, aside.stage, aside.complaint.reason, aside.complaint.detail, dict(curation.attempts))


class _RejectedError(Exception):
    """The trace cannot go on."""

    def __init__(self, stage: str, complaint: ValidationError) -> None:
        self.stage, self.complaint = stage, complaint
        super().__init__(stage, complaint)


class _Got(NamedTuple):
    """Words of an answer, and how many attempts it took."""

    answer: str
    tries: int


class _Curation:
    def __init__(self, trace: Trace, ask: Ask, settings: CurationConfig) -> None:
        self.trace, self.ask, self.settings = trace, ask, settings
        self.attempts: Counter[str] = Counter()
        self.fallbacks: list[str] = []
        self.notes: list[str] = []

    async def outcome(self) -> Curated:
        self.check_trace()
        filled, refilled = await self.structured()
        document = await self.rewritten(filled, refilled) if self.settings.rewrite else refilled
        return Curated(
            self.trace,
            document,
            refilled,
            {"refilled": self.distance(filled, refilled), "final": self.distance(filled, document)},
            tuple(self.fallbacks),
            dict(self.attempts),
            tuple(self.notes),
        )

    def check_trace(self) -> None:
        """What no answer could mend is said before anything is paid."""
        reasoning = self.trace.reasoning
        for tag in self.settings.tags.tags:
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

    # -- stages i to iv ------------------------------------------------------------------------------------------------

    async def structured(self) -> tuple[Filled, Document]:
        """The refilled document; groups whose paths turn out to depend on each other are asked for again."""
        steps, _ = await self.asked(Summary(self.trace, self.settings))
        stage = Groups(self.trace, self.settings, steps)
        tries, failure = 0, None
        while True:
            groups, got = await self.asked(stage, tries, failure)
            if not groups:
                raise _RejectedError(stage.name, ValidationError(NOTHING, "no group of steps is parallel"))
            blocks, _ = await self.asked(Outline(self.trace, self.settings, steps, groups))
            if not blocks:
                raise _RejectedError(Outline.name, ValidationError(NOTHING, "no group became a block"))
            filled, _ = await self.asked(Refill(self.trace, self.settings, blocks))
            document = assemble(filled, self.trace, self.settings)
            self.check_refilled(filled, document)
            try:
                check_independence(filled, document, self.trace.question, self.settings.phrase)
                verdicts = await self.judge(filled, document) if self.settings.judge else []
            except ValidationError as complaint:
                tries, failure = got.tries, Failure(got.answer, complaint)
                if tries >= self.settings.attempts:
                    raise _RejectedError(stage.name, complaint) from None
                continue
            found = self.sites(filled, document)
            self.notes += [*(f"block {site.name} ({site.filled.kind}): {site.filled.reason}" for site in found), *verdicts]
            return filled, document

    def check_refilled(self, filled: Filled, document: Document) -> None:
        try:
            check_grammar(document, self.settings.tags)
            check_sentences(filled, document, self.trace, self.settings.phrase)
            check_answer(filled, document, self.trace, self.settings.phrase)
            check_distance(self.original, self.text(filled, document), self.settings.refilled_distance)
        except ValidationError as complaint:
            raise _RejectedError(Refill.name, complaint) from None

    async def judge(self, filled: Filled, document: Document) -> list[str]:
        """What the judge says of each block (`Complaint` where it finds that paths depend on each other)."""
        said = []
        for site in self.sites(filled, document):
            paths = tuple(self.paths(site))
            try:
                verdicts, _ = await self.asked(
                    Judge(self.trace, self.settings, site.name, site.before, paths, self.rendered(site))
                )
            except _RejectedError as aside:
                said.append(f"block {site.name}: no verdict of the judge ({aside.complaint.reason})")
                continue
            if verdicts:
                path, on, because = verdicts[0]
                outline = site.refilled.outlines[path - 1]
                raise ValidationError("not independent", f"path {path} ({outline}) depends on path {on} beside it: {because}")
            said.append(f"block {site.name}: independent, says the judge")
        return said

    # -- stage v -------------------------------------------------------------------------------------------------------

    async def rewritten(self, filled: Filled, refilled: Document) -> Document:
        """The final document; where no rewrite passes, the refilled text stays."""
        written = Rewritten()
        for site in self.sites(filled, refilled):
            for number in range(len(site.filled.paths)):
                await self.rewrite_path(site, number, written)
            await self.conclude(site, filled, written)
        document = assemble(filled, self.trace, self.settings, written)
        try:
            check_grammar(document, self.settings.tags)
            check_answer(filled, document, self.trace, self.settings.phrase)
            check_independence(filled, document, self.trace.question, self.settings.phrase)
            check_distance(self.original, self.text(filled, document), self.settings.final_distance)
        except ValidationError as complaint:
            self.fallbacks = [site.name for site in self.sites(filled, refilled)]
            self.notes.append(f"the rewritten document was given up: {complaint}")
            return refilled
        return document

    async def rewrite_path(self, site: Site, number: int, written: Rewritten) -> None:
        path, name = site.filled.paths[number], within(site.name, number)
        paths = self.paths(site)
        before = "\n".join((site.before, *site.refilled.outlines))
        blocks = tuple(item for item in site.refilled.paths[number] if isinstance(item, Block))
        inside = "\n".join(told(blocks, self.settings.phrase, conclusions=True))
        texts = [""] * len(path.stretches)
        for part in parts(units_of(path)):
            pieces = tuple(put_back(unit.sentences, self.trace) for unit in part)
            outline, siblings = site.filled.outlines[number], tuple(paths[:number])
            stage = Rewrite(self.trace, self.settings, name, outline, before, paths[number], pieces, siblings, inside)
            try:
                answer, _ = await self.asked(stage)
            except _RejectedError as aside:
                self.fall_back(name, aside)
                return
            for unit, text in zip(part, answer, strict=True):
                texts[unit.stretch] += text + white_space_behind(unit.sentences[-1], self.trace)
        written.paths[name] = tuple(text.rstrip() for text in texts)

    async def conclude(self, site: Site, filled: Filled, written: Rewritten) -> None:
        document = assemble(filled, self.trace, self.settings, written)
        block = next(other.refilled for other in self.sites(filled, document) if other.name == site.name)
        paths = tuple("\n".join(told(path, self.settings.phrase, conclusions=True)) for path in block.paths)
        rendered = self.rendered(site._replace(refilled=block))
        drafts, given = site.filled.outlines, put_back(site.filled.conclusion, self.trace)
        stage = Conclude(self.trace, self.settings, site.name, site.filled.kind, site.before, drafts, paths, rendered, given)
        try:
            written.blocks[site.name], _ = await self.asked(stage)
        except _RejectedError as aside:
            written.forget(site.name)
            self.fall_back(site.name, aside)

    def fall_back(self, name: str, aside: _RejectedError) -> None:
        self.fallbacks.append(name)
        self.notes.append(f"{name} kept its refilled text ({aside.stage}): {aside.complaint}")

    # -- asking --------------------------------------------------------------------------------------------------------

    async def asked(self, stage: Stage[Result], tries: int = 0, failure: Failure | None = None) -> tuple[Result, _Got]:
        """The first answer of a stage that will do, counted on from earlier attempts (`_Aside` if there is none)."""
        while tries < self.settings.attempts:
            answer = await self.ask(stage.request(tries, failure))
            tries += 1
            self.attempts[stage.name] += 1
            try:
                return stage.parse(answer), _Got(answer.text, tries)
            except ValidationError as complaint:
                failure = Failure(answer.text, complaint)
        assert failure is not None
        raise _RejectedError(stage.name, failure.complaint)

    # -- texts ---------------------------------------------------------------------------------------------------------

    @property
    def original(self) -> str:
        """What the thinking is compared with: a dialect without a tag for it holds the answer there too."""
        return self.trace.reasoning if self.settings.tags.think is not None else f"{self.trace.reasoning}\n{self.trace.answer}"

    def text(self, filled: Filled, document: Document) -> str:
        return "\n".join(retold(filled, document.thinking or (), self.settings.phrase))

    def paths(self, site: Site) -> list[str]:
        """The paths of a block as the trace tells them."""
        both = zip(site.filled.paths, site.refilled.paths, strict=True)
        return ["\n".join(retold(path, body, self.settings.phrase)) for path, body in both]

    def distance(self, filled: Filled, document: Document) -> float:
        return distance(self.original, self.text(filled, document))

    def sites(self, filled: Filled, document: Document) -> list[Site]:
        return sites(filled, document, self.settings.phrase)

    def rendered(self, site: Site) -> str:
        """A block as the renderer writes it, for prompts."""
        return render(Document((site.refilled,)), self.settings.tags)
