"""What rows read, with every join and layout: queues, slots and the prefix cache with scripted requests. No model is needed."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from multiverse import SamplingParams
from multiverse.engine import ModelInfo, Request, Scheduler, SlotPool
from multiverse.engine.scheduler import Chunk
from multiverse.structure import MULTIVERSE, Block, Body, Dialect, Document, Layout, encode, resolve
from tests.conftest import build_tokenizer

DIALECTS = {
    "kv": MULTIVERSE,
    "released": replace(MULTIVERSE, positions="released"),
    "text": replace(MULTIVERSE, join="text"),
    "message": replace(MULTIVERSE, join="message"),
}
END = 0


def draw(rng: random.Random) -> Document:
    """A document with blocks in paths."""

    def body(depth: int) -> Body:
        items: list[str | Block] = []
        for _ in range(rng.randint(1, 2)):
            if not items or isinstance(items[-1], Block):
                items.append("t" * rng.randint(1, 9))
            if depth and rng.random() < 0.7:
                count = rng.randint(1, 3)
                paths = tuple(body(depth - 1) for _ in range(count))
                items.append(Block(("o",) * count, paths, "c" * rng.randint(1, 4)))
        return tuple(items) if isinstance(items[-1], str) else (*items, "e")

    return Document((*body(2), Block(("a", "b"), (("xx",), ("yyyy",)), "z"), "q"), "Answer: 1")


def script_of(token_ids: tuple[int, ...], where: Layout) -> dict[tuple[int, ...], list[int]]:
    """The tokens of each branch, by its path of (block, child) steps."""
    paths: dict[int, tuple[int, ...]] = {0: ()}
    blocks: dict[int, dict[int, int]] = {}
    for index, branch in enumerate(where.table):
        if branch.parent >= 0:
            numbers = blocks.setdefault(branch.parent, {})
            number = numbers.setdefault(branch.block, len(numbers))
            paths[index] = (*paths[branch.parent], number, int(branch.label.rpartition(".")[2]) - 1)
    script: dict[tuple[int, ...], list[int]] = {}
    for token, index in zip(token_ids, where.writers, strict=True):
        script.setdefault(paths[index], []).append(token)
    script[()].append(END)
    return script


def check_lines(chunks: list[Chunk]) -> None:
    """With a join by text or message a row reads one token at each position before its own."""
    for request in {chunk.request.id: chunk.request for chunk in chunks}.values():
        own = [chunk for chunk in chunks if chunk.request is request]
        at = request.computed.count - sum(len(chunk.token_ids) for chunk in own)
        for chunk in own:
            for number in range(len(chunk.token_ids)):
                seen = request.tree.visible[chunk.branch.index][request.computed.owners[:at]]
                read = sorted(request.computed.positions[:at][seen].tolist())
                assert read == list(range(chunk.position + number))
                at += 1


def simulate(dialect: Dialect, rng: random.Random) -> None:
    """Write random documents at once, in chunks and waves, with preemptions, and check what is read and what comes out."""
    tokenizer = build_tokenizer(dialect)
    tokens = resolve(tokenizer, dialect)
    size = rng.choice([800, 2000, 10000])
    budget, branches = rng.choice([13, 50, 1000]), rng.choice([1, 3, 256])
    one = Scheduler(SlotPool(size), max_batch_tokens=budget, max_requests=5, max_batch_branches=branches)
    info = ModelInfo(tokens, tokens.decode, 1 << 20, stop_ids=frozenset({END}))
    requests, encoded, scripts = [], [], []
    for _ in range(4):
        found = encode(draw(rng), tokens)
        params = SamplingParams(temperature=0, max_tokens=700, max_branches=1000, reserved_tokens=1)
        prompt = tokens.encode("Qu" * rng.randint(1, 3))
        if len(found.token_ids) < 690:
            requests.append(Request(len(requests), prompt, params, info))
            encoded.append(found)
            scripts.append(script_of(*found))
            one.add(requests[-1])
    while one.busy:
        for request in requests:
            if request.finish_reason is None:
                request.check_limits(time.monotonic())
        chunks = one.schedule()
        if dialect.join != "kv":
            check_lines(chunks)
        for chunk in (chunk for chunk in chunks if chunk.sample and chunk.request.finish_reason is None):
            request, branch = chunk.request, chunk.branch
            behind = len(branch.behind.token_ids) if branch.behind is not None else 0
            token = scripts[request.id][branch.path][len(branch.token_ids) + behind]
            if token == END:
                request.end_of_text(branch, token)
            else:
                request.advance(branch, token)
            if not request.prompt_computed:
                one.insert_prompt(request)
        for request in {chunk.request.id: chunk.request for chunk in chunks}.values():
            if request.finish_reason is not None:
                one.finish(request)
        one.check_integrity()
        if one.running and rng.random() < 0.1:
            one.preempt(rng.choice(one.running))
            if rng.random() < 0.5:
                one.cache.clear()
            one.check_integrity()
    for request, found in zip(requests, encoded, strict=True):
        generation = request.generation()
        assert generation.finish_reason == "stop", request.error
        assert generation.token_ids[:-1] == found.token_ids
        if dialect.join == "kv":
            assert generation.positions[:-1] == tuple(len(request.prompt) + position for position in found.layout.positions)
        elif dialect.join == "text":
            assert generation.positions[-1] == len(request.prompt) + len(found.token_ids)


@pytest.mark.parametrize("seed", [25, pytest.param(range(40), marks=pytest.mark.slow)], ids=str)
def test_rows_read_what_their_join_and_layout_say(seed: int | range) -> None:
    for number in [seed] if isinstance(seed, int) else seed:
        rng = random.Random(number)
        for dialect in DIALECTS.values():
            simulate(dialect, rng)
