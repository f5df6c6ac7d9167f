"""Assemble the document of a trace from numbers of sentences; tags, labels and separators are written by the renderer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..pages import within
from ..structure import Block, Body, Document, place, unnested
from .config import CurationConfig
from .outline import Filled, FilledBlock
from .stages.conclude import Concluded
from .types import Trace


@dataclass
class Rewritten:
    """Texts that the model has written, by the names of `outline`.

    Attributes:
        paths: the text of each stretch of a path.
        blocks: goal and conclusion of a block.
    """

    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: dict[str, Concluded] = field(default_factory=dict)

    def forget(self, block: str) -> None:
        """Discard the rewritten texts of a block and of everything inside it."""
        below: list[dict[str, tuple[str, ...]] | dict[str, Concluded]] = [self.paths, self.blocks]
        for texts in below:
            for name in [name for name in texts if name == block or name.startswith(f"{block}/")]:
                del texts[name]


def assemble(filled: Filled, trace: Trace, config: CurationConfig, rewritten: Rewritten | None = None) -> Document:
    """The document of a trace: with rewritten texts where there are some, else with the trace's own sentences."""
    assembler = _Assembler(trace, config, Rewritten() if rewritten is None else rewritten)
    thinking = assembler.body(filled, "")
    return place(thinking, trace.answer, config.tags)


def original_text(sentences: tuple[int, ...], trace: Trace) -> str:
    """The original text of these sentences, without white space around it."""
    return "".join(trace.sentences[number - 1] for number in sentences).strip()


def space_after(number: int, trace: Trace) -> str:
    """The white space between this sentence of the trace and the next one; at least a blank."""
    sentence = trace.sentences[number - 1]
    return sentence[len(sentence.rstrip()) :] or " "


@dataclass(frozen=True)
class _Assembler:
    trace: Trace
    config: CurationConfig
    rewritten: Rewritten

    def body(self, filled: Filled, name: str) -> Body:
        texts = self.rewritten.paths.get(name)
        if texts is None:
            texts = tuple(original_text(stretch, self.trace) for stretch in filled.stretches)
        items: list[str | Block] = []
        for index, block in enumerate(filled.blocks):
            announced = "\n".join(text for text in (texts[index], self.config.phrase) if text)
            if announced:
                items.append(announced)
            items.append(self.block(block, within(name, index)))
        if texts[-1]:
            items.append(texts[-1])
        return tuple(items)

    def block(self, block: FilledBlock, name: str) -> Block:
        bodies = (self.body(path, within(name, number)) for number, path in enumerate(block.paths))
        paths = tuple(body if self.config.tags.nests else unnested(body) for body in bodies)
        blocks: Mapping[str, Concluded] = self.rewritten.blocks
        goal, conclusion = blocks[name] if name in blocks else (block.outlines, self.conclusion(block))
        return Block(goal, paths, conclusion if self.config.tags.conclusion is not None else "")

    def conclusion(self, block: FilledBlock) -> str:
        """The trace's own conclusion; if there is none, the last sentence of each path."""
        if block.conclusion:
            return original_text(block.conclusion, self.trace)
        last = (list(path.sentences())[-1] for path in block.paths)
        return " ".join(" ".join(original_text((number,), self.trace).split()) for number in last)
