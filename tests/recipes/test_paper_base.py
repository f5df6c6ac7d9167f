"""The comparison's base learns the parts, and neither a block nor an order of its paths."""

from __future__ import annotations

import json
from random import Random

from multiverse.structure import MULTIVERSE, Block
from recipes.paper.base import records, shuffled


def test_it_sees_no_tag_of_a_block() -> None:
    text = json.dumps(list(records(7, 40, 4)))
    think = MULTIVERSE.think
    assert think is not None
    assert think.open in text
    assert not [tag for tag in MULTIVERSE.tags if tag not in think and tag in text]


def test_paths_and_their_outlines_are_shuffled_alike_and_what_is_concluded_stays() -> None:
    names = tuple("abcdef")
    inner = Block(("x", "y"), (("x1",), ("y1",)), "xy")
    block = Block(names, tuple((name, inner) for name in names), "all")
    (found,) = shuffled((block,), Random(3))
    assert isinstance(found, Block)
    assert found.outlines != block.outlines
    assert sorted(found.outlines) == list(names)
    assert found.conclusion == "all"
    for name, path in zip(found.outlines, found.paths, strict=True):
        text, below = path
        assert text == name
        assert isinstance(below, Block)
        assert dict(zip(below.outlines, below.paths, strict=True)) == {"x": ("x1",), "y": ("y1",)}


def test_the_same_every_time() -> None:
    assert list(records(7, 5, 1)) == list(records(7, 5, 1))
