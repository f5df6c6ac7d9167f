"""A tiny random model that generates scripted texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import ModuleList

from multiverse import LLM
from multiverse.engine import Branch, Request
from multiverse.engine.sampler import Choice
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Block, Dialect, Document

Write = Callable[[str], Document | str]

NESTED = Document(
    (
        "Two teams.",
        Block(
            outlines=("Red team", "Blue team"),
            paths=(
                (Block(("Mia", "Tom"), (("1+2=3.",), ("4+5=9, 9+1=10.",)), "3+10=13."), "Red: 13."),
                ("20+1=21.",),
            ),
            conclusion="13+21=34.",
        ),
        "Once more.",
        Block(("Check",), (("34-21=13.",),), "It fits."),
    ),
    "Answer: 34",
)
"""Two blocks of one trunk, which use the same labels, and a nested one."""


class Line:
    """Tokens that the trunk writes, whatever the grammar says."""

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids

    def next(self, branch: Branch) -> int:
        return self.token_ids[len(branch.token_ids)]


class Writer(ScriptedSampler):
    """Gives every request the script that `write` makes of its prompt: a document, or text to write as it is."""

    def __init__(self, llm: LLM, write: Write) -> None:
        super().__init__()
        self.llm, self.write = llm, write

    def sample(self, logits_BV: Tensor, rows: list[tuple[Request, Branch]], *_: Any) -> Choice:
        for request, _ in rows:
            if request.id not in self.scripts:
                self.scripts[request.id] = self.script(self.write(self.llm.engine.decode(request.prompt)))
        return super().sample(logits_BV, rows)

    def script(self, wanted: Document | str) -> Any:
        tokens, end = self.llm.engine.tokens, int(self.llm.tokenizer.eos_token_id)
        assert tokens is not None
        if isinstance(wanted, Document):
            return Script(wanted, tokens, end)
        return Line([*tokens.encode(wanted), end])


FORKED = Document(
    None,
    (
        "Two questions.",
        Block(
            outlines=("Bread", "The sky"),
            paths=(
                ("It is baked.", Block(("Flour", "Water"), (("Ground.",), ("Wet.",)), "Then dough.")),
                ("Blue light\n\nis scattered more.",),
            ),
            conclusion="One is made, one is seen.",
        ),
        "And a third.",
        Block(("Magnets",), (("They pull.",),), ""),
        "Answer: 3",
    ),
)
"""An answer that forks: two blocks, a nested one, and text before, between and after."""

FORKED_MARKDOWN = """Two questions.

### Bread

It is baked.

#### Flour

Ground.

#### Water

Wet.

Then dough.

### The sky

Blue light

is scattered more.

One is made, one is seen.

And a third.

### Magnets

They pull.

Answer: 3"""
"""How it reads."""


def scripted_llm(folder: Path, write: Write, dialect: Dialect | None = None) -> LLM:
    """An LLM over the tiny model in `folder` that writes what `write` makes of each prompt.

    What its layers make of a prompt plays no part, so it goes without, which halves the time of a step.
    """
    llm = LLM(folder, dialect=dialect, kv_memory=32 << 20, packed_linears=False)
    llm.engine.loaded.model.model.layers = ModuleList()
    llm.engine.sampler = Writer(llm, write)
    return llm
