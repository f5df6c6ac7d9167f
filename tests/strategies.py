"""Hypothesis strategies for random documents."""

from __future__ import annotations

from hypothesis import strategies as st

from multiverse.structure import Block, Blocks, Body, Document

WORDS = st.text(alphabet="abc xyz 0123\n:é.", min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
"""Texts, with white space, line ends, digits and a two-byte character."""

SHORT = st.text(alphabet="ab 1", max_size=4)


@st.composite
def bodies(draw: st.DrawFn, depth: int, max_width: int = 3) -> Body:
    """Up to three texts and blocks, texts never next to each other; no blocks at depth 0."""
    items: list[str | Block] = []
    for _ in range(draw(st.integers(0, 3))):
        if depth and draw(st.integers(0, 3)) == 0:
            items.append(draw(blocks(depth, max_width)))
        elif not items or not isinstance(items[-1], str):
            items.append(draw(WORDS))
    return tuple(items)


@st.composite
def blocks(draw: st.DrawFn, depth: int, max_width: int = 3) -> Block:
    width = draw(st.integers(1, max_width))
    return Block(
        outlines=tuple(draw(SHORT) for _ in range(width)),
        paths=tuple(draw(bodies(depth - 1, max_width)) for _ in range(width)),
        conclusion=draw(SHORT),
    )


@st.composite
def documents(
    draw: st.DrawFn, depth: int = 3, max_width: int = 3, *, forks: bool = False, places: Blocks = "thinking"
) -> Document:
    """A document with blocks nested up to `depth` deep; most documents have a block, all of them with `forks`.

    Args:
        places: where blocks of the trunk may stand.
    """

    def trunk() -> Body:
        body = draw(bodies(depth, max_width))
        return (*body, draw(blocks(depth, max_width))) if depth and (forks or draw(st.integers(0, 3))) else body

    if places == "thinking":
        return Document(trunk(), draw(st.sampled_from(["", "Answer: 4", "x"])))
    thinking = trunk() if places == "both" else draw(st.sampled_from([None, (), ("so",)]))
    behind = draw(st.sampled_from([(), ("Answer: 4",)]))
    answer = trunk()
    return Document(thinking, (*answer, *behind) if not answer or isinstance(answer[-1], Block) else answer)
