"""From numbers of sentences to a document. Numbering, tags and separators are the renderer's; this makes the tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..structure import Block, Body, Document
from .config import CurationConfig
from .outline import Filled, FilledBlock, within
from .stages.conclude import Concluded
from .types import Trace


@dataclass
class Rewritten:
    """What the model has written, by name (see `plan`).

    Attributes:
        paths: the text of each stretch of a path.
        blocks: goal and conclusion of a block.
    """

    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: dict[str, Concluded] = field(default_factory=dict)

    def forget(self, block: str) -> None:
        """Take a block back to its refilled text, with all that it holds."""
        below: list[dict[str, tuple[str, ...]] | dict[str, Concluded]] = [self.paths, self.blocks]
        for texts in below:
            for name in [name for name in texts if name == block or name.startswith(f"{block}/")]:
                del texts[name]


def assemble(filled: Filled, trace: Trace, settings: CurationConfig, rewritten: Rewritten | None = None) -> Document:
    """The document of a trace: rewritten where there is something to put, else with the trace's own sentences."""
    assembler = _Assembler(trace, settings, Rewritten() if rewritten is None else rewritten)
    thinking = assembler.body(filled, "")
    if settings.tags.think is not None:
        return Document(thinking, trace.answer)
    # No tag sets the answer apart, so it ends the thinking.
    *earlier, last = thinking
    if not trace.answer:
        return Document(thinking)
    return Document((*earlier, f"{last}\n\n{trace.answer}") if isinstance(last, str) else (*thinking, trace.answer))


def put_back(sentences: tuple[int, ...], trace: Trace) -> str:
    """These sentences of the trace as they stood there, without the white space around them."""
    return "".join(trace.sentences[number - 1] for number in sentences).strip()


def white_space_behind(number: int, trace: Trace) -> str:
    """What stands between this sentence of the trace and the next one: a blank, or the end of a line."""
    sentence = trace.sentences[number - 1]
    return sentence[len(sentence.rstrip()) :] or " "


@dataclass(frozen=True)
class _Assembler:
    trace: Trace
    settings: CurationConfig
    rewritten: Rewritten

    def body(self, filled: Filled, name: str) -> Body:
        texts = self.rewritten.paths.get(name)
        if texts is None:
            texts = tuple(put_back(stretch, self.trace) for stretch in filled.stretches)
        items: list[str | Block] = []
        for index, block in enumerate(filled.blocks):
            announced = "\n".join(text for text in (texts[index], self.settings.phrase) if text)
            if announced:
                items.append(announced)
            items.append(self.block(block, within(name, index)))
        if texts[-1]:
            items.append(texts[-1])
        return tuple(items)

    def block(self, block: FilledBlock, name: str) -> Block:
        paths = tuple(self.body(path, within(name, number)) for number, path in enumerate(block.paths))
        blocks: Mapping[str, Concluded] = self.rewritten.blocks
        goal, conclusion = blocks[name] if name in blocks else (block.outlines, self.outcomes(block))
        return Block(goal, paths, conclusion if self.settings.tags.conclusion is not None else "")

    def outcomes(self, block: FilledBlock) -> str:
        """What the trace says of the outcome; where it says nothing, the last sentence of each path."""
        if block.conclusion:
            return put_back(block.conclusion, self.trace)
        last = (list(path.sentences())[-1] for path in block.paths)
        return " ".join(" ".join(put_back((number,), self.trace).split()) for number in last)
