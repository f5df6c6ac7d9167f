"""Who is read when: admission, the budget of a forward, chunks, turns. No model is needed for any of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse import SamplingParams
from multiverse.engine import Request, Scheduler, SlotPool
from multiverse.engine.scheduler import Chunk
from multiverse.engine.scripted import Script
from multiverse.structure import Document, TokenDialect, encode
from tests.engine.steering import bare_request, two_paths
from tests.strategies import documents
from tests.structure.adapted import TOKENS
from tests.structure.test_machine import paths_of


def plain(prompt: int, max_tokens: int = 4) -> Request:
    """A request of a model without a dialect."""
    return bare_request(None, range(prompt), SamplingParams(max_tokens=max_tokens))


def scheduler(*, slots: int = 1000, budget: int = 1000, requests: int = 100) -> Scheduler:
    return Scheduler(SlotPool(slots), max_batch_tokens=budget, max_requests=requests)


def shapes(chunks: list[Chunk]) -> list[tuple[int, int, int, bool]]:
    """Request, first position, number of tokens and whether to sample, per chunk."""
    first = min((chunk.request.id for chunk in chunks), default=0)
    return [(chunk.request.id - first, chunk.position, len(chunk.token_ids), chunk.sample) for chunk in chunks]


def answer(chunks: list[Chunk], token: int = 7) -> None:
    for chunk in chunks:
        if chunk.sample:
            chunk.request.advance(chunk.branch, token, None)


def test_a_prompt_then_one_token_at_a_time() -> None:
    one = scheduler()
    assert not one.busy
    one.add(plain(3))
    assert one.busy
    seen = []
    for _ in range(3):
        chunks = one.schedule()
        seen.append(shapes(chunks))
        answer(chunks)
    assert seen == [[(0, 0, 3, True)], [(0, 3, 1, True)], [(0, 4, 1, True)]]


def test_a_long_prompt_is_read_in_chunks_and_sampled_after_the_last() -> None:
    one = scheduler(budget=4)
    request = plain(10)
    one.add(request)
    chunks = [one.schedule()[0] for _ in range(3)]
    assert [shapes([chunk])[0][1:] for chunk in chunks] == [(0, 4, False), (4, 4, False), (8, 2, True)]
    assert [token for chunk in chunks for token in chunk.token_ids] == request.prompt
    assert list(request.slots) == [slot for chunk in chunks for slot in chunk.slots]
    assert list(request.read_positions) == list(range(10))
    assert one.schedule() == []  # nothing to read until a token is chosen


def test_many_requests_share_a_forward() -> None:
    one = scheduler(budget=8)
    for prompt in (3, 3, 3):
        one.add(plain(prompt))
    first = one.schedule()
    assert shapes(first) == [(0, 0, 3, True), (1, 0, 3, True), (2, 0, 2, False)]
    assert len({slot for chunk in first for slot in chunk.slots}) == 8
    answer(first)
    # The forward was full, so the first one moves to the end of the line.
    assert shapes(one.schedule()) == [(1, 3, 1, True), (2, 2, 1, True), (0, 3, 1, True)]


def test_nobody_starves_when_every_forward_is_full() -> None:
    one = scheduler(budget=2)
    requests = [plain(1, max_tokens=50) for _ in range(6)]
    for request in requests:
        one.add(request)
    for _ in range(30):
        chunks = one.schedule()
        assert sum(len(chunk.token_ids) for chunk in chunks) == 2
        answer(chunks)
    assert [request.written for request in requests] == [10] * 6


def test_admission_counts_the_most_that_a_request_may_need() -> None:
    one = scheduler(slots=20)
    requests = [plain(3, max_tokens=7), plain(2, max_tokens=8), plain(1, max_tokens=1)]
    for request in requests:
        one.add(request)
    one.schedule()
    # 10 + 10 slots are spoken for although 5 are in use; first come, first served.
    assert list(one.running) == requests[:2]
    assert list(one.waiting) == requests[2:]
    assert one.pool.free == 15
    one.retire(requests[0])
    assert one.pool.free == 18
    one.schedule()
    assert list(one.running) == requests[1:]
    for request in requests[1:]:
        one.retire(request)
    assert not one.busy
    assert one.pool.free == 20
    one.pool.check_integrity()


def test_no_more_requests_run_than_allowed() -> None:
    one = scheduler(requests=2)
    requests = [plain(1) for _ in range(3)]
    for request in requests:
        one.add(request)
    one.schedule()
    assert list(one.running) == requests[:2]
    one.retire(requests[1])
    one.schedule()
    assert list(one.running) == [requests[0], requests[2]]


def test_a_waiting_request_can_be_taken_out() -> None:
    one = scheduler(requests=1)
    requests = [plain(1), plain(1)]
    for request in requests:
        one.add(request)
    one.schedule()
    one.retire(requests[1])
    assert not one.waiting
    one.retire(requests[0])
    assert not one.busy


def write_out(one: Scheduler, scripts: dict[int, tuple[Request, dict[tuple[int, ...], list[int]]]], budget: int) -> int:
    """Run requests to the end, each token from its script; returns the number of forwards."""
    forwards = 0
    while one.busy:
        chunks = one.schedule()
        forwards += 1
        assert chunks
        assert sum(len(chunk.token_ids) for chunk in chunks) <= budget
        assert sum(request.capacity for request in one.running) <= one.pool.size
        slots = [slot for chunk in chunks for slot in chunk.slots]
        assert len(set(slots)) == len(slots)
        finished = []
        for chunk in chunks:
            assert chunk.token_ids
            assert len(chunk.slots) == len(chunk.token_ids)
            if chunk.sample:
                request, branch = chunk.request, chunk.branch
                assert not branch.unread
                request.advance(branch, scripts[request.id][1][branch.path][len(branch.token_ids)], None)
                machine = request.trunk.machine
                assert machine is not None
                if len(request.trunk.token_ids) == len(scripts[request.id][1][()]):
                    assert machine.complete
                    finished.append(request)
        one.pool.check_integrity()
        for request in finished:
            one.retire(request)
    return forwards


@given(docs=st.lists(documents(depth=2, forks=True), min_size=1, max_size=4), rng=st.randoms(use_true_random=False))
@settings(max_examples=15)
def test_families_of_branches_are_read_once_in_a_safe_order(docs: list[Document], rng: random.Random) -> None:
    tokens: TokenDialect = TOKENS["multiverse"]
    budget = rng.choice([1, 3, 20, 500])
    one = scheduler(slots=6000, budget=budget, requests=rng.choice([1, 2, 8]))
    scripts = {}
    encodings = {}
    for document in docs:
        prompt = tokens.encode("Q" * rng.randrange(1, 4))
        request = bare_request(tokens, prompt, SamplingParams(max_tokens=2500, max_branches=1000))
        scripts[request.id] = request, Script(document, tokens).by_path
        encodings[request.id] = encode(document, tokens)
        one.add(request)
    write_out(one, scripts, budget)
    assert one.pool.free == one.pool.size
    for request, script in scripts.values():
        layout = encodings[request.id].layout
        paths = paths_of(encodings[request.id])
        offset = len(request.prompt)
        written = {branch.path: branch for branch in request.branches}
        assert set(written) == set(script)
        for index, path in paths.items():
            branch = written[path]
            own = [i for i, owner in enumerate(layout.branches) if owner == index]
            assert branch.positions == [layout.positions[i] + offset for i in own]
            assert branch.forced == [layout.forced[i] for i in own]
            # Every token but the very last was read, once, in the branch's own order.
            mine = request.read_positions[request.owners == branch.index]
            expected = branch.positions if path else [*range(offset), *branch.positions[:-1]]
            assert list(mine) == expected
        # Whoever is read sees everything before it: the highest visible position is the one before its own.
        for i in range(request.read):
            seen = request.visible[request.owners[i]][request.owners[:i]]
            assert max(request.read_positions[:i][seen], default=-1) == request.read_positions[i] - 1


@pytest.mark.parametrize("budget", [1, 5, 1000])
def test_branches_of_a_family_advance_side_by_side(budget: int) -> None:
    tokens = TOKENS["multiverse"]
    document = two_paths("x" * 30, "y" * 30)
    encoded = encode(document, tokens)
    request = bare_request(tokens, [1], SamplingParams(max_tokens=500))
    one = scheduler(budget=budget)
    one.add(request)
    forwards = write_out(one, {request.id: (request, Script(document, tokens).by_path)}, budget)
    if budget == 1:
        assert forwards == len(encoded.token_ids)  # one token a forward: the prompt's, then all but the last
    if budget == 1000:
        # A forward a position, less those whose tokens were forced and came along with the one before.
        assert forwards < encoded.layout.critical_path()
        assert forwards > encoded.layout.critical_path() - 20
