"""Generations as notebooks show them."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from multiverse.engine import Generation, Usage
from multiverse.structure import Block, Document

EVIL = "<script>alert(1)</script><img src=x onerror=\"alert('2')\">"
INNER = Block(("deep",), (("inner",),), "joined")
TREE = Document(
    ("Let's think.", Block((f"first {EVIL}", "second"), ((f"1 {EVIL}",), ("2", INNER)), f"both {EVIL}")), "Answer: 3"
)
GENERATION = Generation(
    text="x" * 5000,
    answer=f"3 {EVIL}",
    tree=TREE,
    finish_reason="stop",
    usage=Usage(prompt_tokens=5, total_tokens=40, critical_path_tokens=20, critical_path_steps=20, seconds=1.5),
    token_ids=tuple(range(5000)),
    positions=(),
    branches=(),
    forced=(),
    logprobs=None,
    prompt_token_ids=(),
)


class Elements(HTMLParser):
    """Checks that elements are closed in order; collects them and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_generation_is_one_short_line() -> None:
    assert repr(replace(GENERATION, answer="56")) == (
        "<Generation answer='56', finish_reason='stop', 3 paths, 40 tokens, parallelism 2.00>"
    )
    long = repr(replace(GENERATION, answer="", tree=None, finish_reason="length"))
    assert "no tree" in long
    assert len(long) < 200


def test_the_tree_is_drawn_and_what_the_model_wrote_is_text() -> None:
    drawn = Elements(GENERATION._repr_html_())
    assert drawn.names == {"div", "b"}
    assert drawn.attributes == {"style"}
    shown = "".join(drawn.text)
    for part in ("Let's think.", f"first {EVIL}", "second", f"1 {EVIL}", "2.1", "inner", "joined", f"3 {EVIL}"):
        assert part in shown
    assert shown.endswith("40 tokens, critical path 20, parallelism 2.00, 1.50 s")


def test_a_text_without_a_tree_and_an_answer_that_forks() -> None:
    cut = replace(GENERATION, tree=None, text=EVIL, structure_error="cut <short>", finish_reason="length")
    drawn = Elements(cut._repr_html_())
    assert drawn.names == {"div"}
    assert "".join(drawn.text).startswith(f"{EVIL}no tree: cut <short>40 tokens")
    assert "".join(drawn.text).endswith("ended by length")
    forked = Elements(replace(GENERATION, tree=Document(None, ("Two.", INNER)))._repr_html_())
    assert "Two.1 deepinner" in "".join(forked.text)
