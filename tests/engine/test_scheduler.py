"""Who is read when: admission, the budget of a forward, chunks, turns. No model is needed for any of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse import SamplingParams
from multiverse.engine import ModelInfo, Request, Scheduler, ScoringRequest, SlotPool
from multiverse.engine.scheduler import Chunk
from multiverse.engine.scripted import Script
from multiverse.structure import Block, Document, Role, TokenDialect, encode
from tests.engine.steering import bare_request, two_paths
from tests.strategies import documents
from tests.structure.adapted import TOKENS
from tests.structure.test_machine import paths_of


def plain(prompt: int, max_tokens: int = 4, priority: int = 0, start: int = 0, leader: Request | None = None) -> Request:
    """A request of a model without a dialect; with another `start`, a prompt that no other begins with."""
    params = SamplingParams(max_tokens=max_tokens)
    return bare_request(None, range(start, start + prompt), params, priority=priority, leader=leader)


def different(*shapes: tuple[int, int]) -> list[Request]:
    """Requests with so many tokens of prompt, and to write; no two have a prompt in common."""
    return [plain(prompt, most, start=1000 * number) for number, (prompt, most) in enumerate(shapes)]


def scheduler(*, slots: int = 1000, budget: int = 1000, requests: int = 100, branches: int = 256) -> Scheduler:
    return Scheduler(SlotPool(slots), max_batch_tokens=budget, max_requests=requests, max_batch_branches=branches)


def add(one: Scheduler, requests: list[Request]) -> None:
    for request in requests:
        one.add(request)


def shapes(chunks: list[Chunk]) -> list[tuple[int, int, int, bool]]:
    """Request, first position, number of tokens and whether to sample, per chunk."""
    first = min((chunk.request.id for chunk in chunks), default=0)
    return [(chunk.request.id - first, chunk.position, len(chunk.token_ids), chunk.sample) for chunk in chunks]


def answer(one: Scheduler, chunks: list[Chunk], token: int = 7) -> list[Request]:
    """Choose this token wherever one is to be chosen, as the engine does; returns the requests that have finished."""
    for chunk in chunks:
        if chunk.sample:
            chunk.request.advance(chunk.branch, token)
            if not chunk.request.prompt_computed:
                one.insert_prompt(chunk.request)
    finished = [chunk.request for chunk in chunks if chunk.sample and chunk.request.finish_reason is not None]
    for request in finished:
        one.finish(request)
    one.check_integrity()
    return finished


def test_a_prompt_then_one_token_at_a_time() -> None:
    one = scheduler()
    assert not one.busy
    one.add(plain(3))
    assert one.busy
    seen = []
    for _ in range(3):
        chunks = one.schedule()
        seen.append(shapes(chunks))
        answer(one, chunks)
    # The last token of a prompt is read by itself, in the same forward.
    assert seen == [[(0, 0, 2, False), (0, 2, 1, True)], [(0, 3, 1, True)], [(0, 4, 1, True)]]


def test_a_long_prompt_is_read_in_chunks_and_sampled_after_the_last() -> None:
    one = scheduler(budget=4)
    request = plain(10)
    one.add(request)
    chunks = [chunk for _ in range(3) for chunk in one.schedule()]
    assert [shapes([chunk])[0][1:] for chunk in chunks] == [(0, 4, False), (4, 4, False), (8, 1, False), (9, 1, True)]
    assert [token for chunk in chunks for token in chunk.token_ids] == request.prompt
    assert request.computed.slots.tolist() == [slot for chunk in chunks for slot in chunk.slots]
    assert request.computed.positions.tolist() == list(range(10))
    # Nothing is left to read until a token is chosen.
    assert not request.queues.prefill
    assert (request.queues.take_decode(100), request.queues.take_pending(100)) == (None, None)


def test_many_requests_share_a_forward() -> None:
    one = scheduler(budget=8)
    add(one, different((3, 4), (3, 4), (3, 4)))
    first = one.schedule()
    assert shapes(first) == [(0, 0, 2, False), (0, 2, 1, True), (1, 0, 2, False), (1, 2, 1, True), (2, 0, 2, False)]
    assert len({slot for chunk in first for slot in chunk.slots}) == 8
    answer(one, first)
    assert shapes(one.schedule()) == [(0, 3, 1, True), (1, 3, 1, True), (2, 2, 1, True)]


def test_what_has_begun_comes_before_a_prompt() -> None:
    one = scheduler(budget=4)
    add(one, different((1, 50), (1, 50)))
    answer(one, one.schedule())
    one.add(plain(9, start=5000))
    seen = []
    for _ in range(5):
        chunks = one.schedule()
        seen.append([shape[1:] for shape in shapes(chunks)])
        answer(one, chunks)
    rows = [[(n, 1, True), (n, 1, True)] for n in range(1, 6)]
    prompt = [[(0, 2, False)], [(2, 2, False)], [(4, 2, False)], [(6, 2, False)], [(8, 1, True)]]
    assert seen == [a + b for a, b in zip(rows, prompt, strict=True)]


def test_nobody_starves_when_every_forward_is_full() -> None:
    one = scheduler(budget=6)
    requests = different(*[(1, 50)] * 6)
    add(one, requests)
    answer(one, one.schedule())
    one.max_batch_tokens = 2
    for _ in range(30):
        chunks = one.schedule()
        assert sum(len(chunk.token_ids) for chunk in chunks) == 2
        answer(one, chunks)
    assert [request.num_generated for request in requests] == [11] * 6


def test_those_who_wait_come_in_as_others_finish() -> None:
    one = scheduler(budget=2)
    requests = different(*[(1, 5)] * 6)
    add(one, requests)
    finished = []
    for _ in range(15):
        finished += answer(one, one.schedule())
    assert finished == requests
    assert not one.busy
    assert one.pool.owned == 0


def test_admission_counts_what_is_wanted_soon() -> None:
    one = scheduler(slots=100)
    requests = different((3, 90), (3, 90), (3, 90))
    add(one, requests)
    chunks = one.schedule()
    # Two of them could come to need 186 slots; within sight are 32 tokens each. For a third there is no room even so.
    assert one.running == requests[:2]
    assert one.waiting == requests[2:]
    assert one.pool.free == 94
    answer(one, chunks)
    one.finish(requests[0])
    answer(one, one.schedule())
    assert one.running == requests[1:]
    for request in requests[1:]:
        one.finish(request)
    assert not one.busy
    one.check_integrity()
    one.cache.clear()
    assert one.pool.free == 100


def test_the_end_of_a_request_is_within_sight() -> None:
    one = scheduler(slots=20)
    requests = different((3, 7), (2, 8), (1, 1), (1, 1))
    add(one, requests)
    one.schedule()
    # 10 + 10 slots at the most: just so. The third would want 2 more than there are.
    assert one.running == requests[:2]
    one.finish(requests[0])
    one.schedule()
    assert one.running == requests[1:]


def test_alone_a_request_is_always_let_in() -> None:
    one = scheduler(slots=10)
    one.add(plain(4, max_tokens=100))
    assert len(one.schedule()) == 2


def test_whoever_came_last_gives_way_and_goes_on_where_it_was() -> None:
    one = scheduler(slots=70)
    requests = different((3, 40), (3, 40))
    add(one, requests)
    first, last = requests
    finished: list[Request] = []
    forwards = 0
    while one.busy:
        chunks = one.schedule()
        forwards += 1
        if first.finish_reason is None:
            assert chunks[0].request is first
        finished += answer(one, chunks)
    assert finished == requests
    assert (first.preemptions, last.preemptions, one.preemptions) == (0, 1, 1)
    assert [request.num_generated for request in requests] == [40, 40]
    assert forwards < 40 + 20  # what the first leaves is taken at once
    assert last.computed.positions.tolist() == list(range(42))
    assert last.computed.token_ids.tolist() == [*last.prompt, *last.trunk.token_ids[:-1]]


def test_what_gave_way_reads_again_only_what_the_cache_has_lost() -> None:
    one = scheduler()
    request = plain(10, 40)
    one.add(request)
    for _ in range(5):
        answer(one, one.schedule())
    # Five tokens were chosen, and the last of them is not read yet.
    for number, (lost, expected) in enumerate(((0, [(14, 1, True)]), (4, [(11, 4, False), (15, 1, True)])), 1):
        one.preempt(request)
        assert (one.running, one.waiting) == ([], [request])
        assert (one.pool.owned, request.computed.count) == (0, 0)
        one.check_integrity()
        one.cache.evict(lost)
        chunks = one.schedule()
        assert [shape[1:] for shape in shapes(chunks)] == expected
        answer(one, chunks)
        assert request.preemptions == one.preemptions == number
    assert request.cached_tokens == 0  # that is of the prompt, when it is read for the first time
    assert request.computed.positions.tolist() == list(range(16))


def test_a_family_that_gave_way_before_its_paths_began_goes_on() -> None:
    # Nothing has to be read again, and nothing goes on but the heads of its paths.
    tokens = TOKENS["multiverse"]
    script = Script(two_paths(), tokens)
    request = bare_request(tokens, [1], SamplingParams(max_tokens=500))
    one = scheduler(budget=1)
    one.add(request)
    while request.queues.decode or request.queues.prefill or not request.queues.pending:
        for chunk in one.schedule():
            if chunk.sample:
                request.advance(chunk.branch, script.next(chunk.branch))
                if not request.prompt_computed:
                    one.insert_prompt(request)
    one.preempt(request)
    (chunk,) = one.schedule()
    assert (chunk.branch.label, chunk.token_ids) == ("1", [tokens.ids[Role.PATH_OPEN]])


def test_the_first_in_line_takes_room_from_lower_priority() -> None:
    one = scheduler(requests=2)
    low = different((3, 40), (3, 40))
    add(one, low)
    answer(one, one.schedule())
    high = plain(3, 40, priority=1, start=9000)
    one.add(high)
    answer(one, one.schedule())
    assert one.running == [high, low[0]]
    assert (one.waiting, one.preemptions) == ([low[1]], 1)
    # Among equals nobody is put out.
    one.add(plain(3, 40, start=8000))
    answer(one, one.schedule())
    assert one.running == [high, low[0]]
    urgent = plain(3, 40, priority=5, start=7000)
    one.add(urgent)
    answer(one, one.schedule())
    assert one.running == [urgent, high]
    assert one.waiting[:2] == low


def test_higher_priority_waits_in_front() -> None:
    one = scheduler(requests=1)
    requests = [plain(1, 2, priority) for priority in (0, 2, 1, 2)]
    add(one, requests)
    finished = []
    while one.busy:
        finished += answer(one, one.schedule())
    assert finished == [requests[i] for i in (1, 3, 2, 0)]


def test_a_prompt_that_another_one_reads_is_waited_for() -> None:
    one = scheduler(budget=6)
    requests = [plain(10, 3)]
    requests += [plain(10, 3, leader=requests[0]) for _ in range(2)]
    other = plain(2, 3, start=500)
    add(one, [*requests, other])
    first = one.schedule()
    assert [chunk.request for chunk in first] == [requests[0]]
    second = one.schedule()
    # The rest of the leader's prompt; whoever needs no leader may overtake.
    assert shapes(second) == [(0, 6, 3, False), (0, 9, 1, True), (3, 0, 1, False), (3, 1, 1, True)]
    answer(one, first)
    answer(one, second)
    third = one.schedule()
    assert [shape for shape in shapes(third) if shape[0] in (1, 2)] == [(1, 9, 1, True), (2, 9, 1, True)]
    assert [request.cached_tokens for request in (*requests, other)] == [0, 9, 9, 0]
    answer(one, third)
    while one.busy:
        answer(one, one.schedule())


def test_a_leader_that_is_given_up_is_not_waited_for() -> None:
    one = scheduler(budget=4)
    leader = plain(10, 3)
    follower = plain(10, 3, leader=leader)
    add(one, [leader, follower])
    one.schedule()
    leader.abort()
    one.finish(leader)
    assert shapes(one.schedule()) == [(0, 4, 4, False)]  # what the leader did read is used
    assert follower.cached_tokens == 4


def test_what_has_been_read_once_is_not_read_again() -> None:
    one = scheduler()
    for prompt, count, found in ((10, 1, 0), (10, 1, 9), (14, 1, 10), (5, 1, 4)):
        request = plain(prompt, count)
        one.add(request)
        chunks = one.schedule()
        assert request.cached_tokens == found
        assert sum(len(chunk.token_ids) for chunk in chunks) == prompt - found
        assert request.computed.positions.tolist() == list(range(prompt))
        assert answer(one, chunks) == [request]


def test_scoring_reads_everything_and_so_much_a_forward() -> None:
    one = scheduler()
    tokens = list(range(600))
    for _ in range(2):  # the second time, nothing is taken from the cache
        request = ScoringRequest(0, tokens, SamplingParams(max_tokens=1), ModelInfo(None, lambda ids: "?" * len(ids), 1 << 20))
        one.add(request)
        seen = []
        while request.queues.prefill:
            chunks = one.schedule()
            assert not any(chunk.sample for chunk in chunks)
            seen += [(chunk.first, len(chunk.token_ids)) for chunk in chunks]
        assert seen == [(0, 256), (256, 256), (512, 88)]
        request.finish_reason = "stop"
        one.finish(request)
        one.check_integrity()


def test_a_blocked_request_is_looked_up_again_only_when_the_cache_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scheduler(slots=400)
    runs, blocked = plain(300, 90), plain(200, start=5000)
    add(one, [runs, blocked])
    looked_up: list[int] = []
    find = one.cache.find

    def counted(keys: Any) -> Any:
        looked_up.append(len(keys))
        return find(keys)

    monkeypatch.setattr(one.cache, "find", counted)
    for _ in range(40):
        answer(one, one.schedule())
    assert one.waiting == [blocked]
    # At first, and after the prompt of the other was inserted (which looks it up, too).
    assert looked_up == [299, 199, 299, 199]
    assert one.cache.queries == 299
    while one.busy:
        answer(one, one.schedule())
    assert (one.cache.queries, one.cache.hits) == (299 + 199, 0)


def test_a_blocked_request_is_admitted_as_soon_as_less_is_wanted() -> None:
    one = scheduler(slots=100)
    runs, blocked = plain(3, 60), plain(30, 40, start=5000)
    add(one, [runs, blocked])
    seen = []
    while blocked not in one.running:
        seen.append(one.available - len(blocked.queues))
        answer(one, one.schedule())
        assert len(seen) < 50
    # 100 slots: 30 for its prompt and 32 for what it generates soon, beside what the other one will have in the end.
    assert runs.num_generated <= 60 - 32 + 1


def test_no_more_requests_run_than_allowed() -> None:
    one = scheduler(requests=2)
    requests = different((1, 4), (1, 4), (1, 4))
    add(one, requests)
    answer(one, one.schedule())
    assert one.running == requests[:2]
    one.finish(requests[1])
    answer(one, one.schedule())
    assert one.running == [requests[0], requests[2]]


def test_a_waiting_request_can_be_taken_out() -> None:
    one = scheduler(requests=1)
    requests = [plain(1), plain(1)]
    add(one, requests)
    one.schedule()
    one.finish(requests[1])
    assert not one.waiting
    one.finish(requests[0])
    assert not one.busy


def test_a_full_cache_is_not_gone_through_for_every_token_of_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scheduler(slots=6400)
    for request in different(*[(64, 1)] * 99):
        one.add(request)
        answer(one, one.schedule())
    asked: list[int] = []
    honest = one.cache.evict

    def evict(count: int) -> None:
        asked.append(count)
        honest(count)

    monkeypatch.setattr(one.cache, "evict", evict)
    add(one, [plain(8, 50, start=1_000_000 * number) for number in range(1, 9)])
    while one.busy:
        answer(one, one.schedule())
    assert one.cache.evicted >= 300
    assert len(asked) <= 1 + one.cache.evicted // (one.pool.size // 64)


@pytest.mark.parametrize("finish_reason", ["stop", "error"])
def test_whoever_leaves_has_given_back_everything_before_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, finish_reason: str
) -> None:
    one = scheduler()
    (request,) = different((8, 4))
    add(one, [request])
    answer(one, one.schedule())
    for name in ("unlock", "insert", "discard"):
        honest = getattr(one.cache, name)

        def seen(*args: Any, honest: Any = honest) -> Any:
            assert one.running == [request], "other threads take an empty list to mean that all is back"
            return honest(*args)

        monkeypatch.setattr(one.cache, name, seen)
    request.finish_reason = finish_reason
    one.finish(request)
    assert not one.running
    one.check_integrity()


Scripts = dict[int, tuple[Request, dict[tuple[int, ...], list[int]]]]


def write_out(one: Scheduler, scripts: Scripts, rng: random.Random | None = None) -> list[list[Chunk]]:
    """Run requests to the end, each token from its script; returns the forwards. With `rng`, some are preempted on the way."""
    forwards: list[list[Chunk]] = []
    troubles = 0
    while one.busy:
        if rng is not None and one.running and troubles < 20 and rng.random() < 0.2:
            troubles += 1
            one.preempt(rng.choice(one.running))
            one.cache.evict(rng.randrange(one.cache.evictable + 1))
            one.check_integrity()
        chunks = one.schedule()
        forwards.append(chunks)
        assert chunks
        assert sum(len(chunk.token_ids) for chunk in chunks) <= one.max_batch_tokens
        assert sum(chunk.sample for chunk in chunks) <= one.max_batch_branches
        slots = [slot for chunk in chunks for slot in chunk.slots]
        assert len(set(slots)) == len(slots)
        finished = []
        for chunk in chunks:
            assert chunk.token_ids
            assert len(chunk.slots) == len(chunk.token_ids)
            if chunk.sample:
                request, branch = chunk.request, chunk.branch
                assert not request.queues.waits(branch)
                request.advance(branch, scripts[request.id][1][branch.path][len(branch.token_ids)])
                if not request.prompt_computed:
                    one.insert_prompt(request)
                machine = request.trunk.machine
                assert machine is not None
                if len(request.trunk.token_ids) == len(scripts[request.id][1][()]):
                    assert machine.complete
                    finished.append(request)
        one.check_integrity()
        for request in finished:
            one.finish(request)
    one.check_integrity()
    assert one.pool.owned == 0
    return forwards


@pytest.mark.parametrize("tight", [False, True], ids=["room for all", "too little room"])
@given(docs=st.lists(documents(depth=2, forks=True), min_size=1, max_size=4), seed=st.integers(0, 1 << 32))
@settings(max_examples=15)
def test_families_of_branches_are_read_once_in_a_safe_order(docs: list[Document], seed: int, tight: bool) -> None:
    tokens: TokenDialect = TOKENS["multiverse"]
    rng = random.Random(seed)
    encodings = [encode(document, tokens) for document in docs]
    slots = max(len(encoded.token_ids) for encoded in encodings) + 3 if tight else 6000
    one = scheduler(
        slots=slots, budget=rng.choice([1, 3, 20, 500]), requests=rng.choice([1, 2, 8]), branches=rng.choice([1, 2, 256])
    )
    scripts: Scripts = {}
    layouts = {}
    for document, encoded in zip(docs, encodings, strict=True):
        prompt = tokens.encode("Q" * rng.randrange(1, 4))
        request = bare_request(tokens, prompt, SamplingParams(max_tokens=2500, max_branches=1000))
        scripts[request.id] = request, Script(document, tokens).by_path
        layouts[request.id] = encoded
        one.add(request)
    forwards = write_out(one, scripts, rng if tight else None)
    if not tight:
        assert one.preemptions == 0
    for request, script in scripts.values():
        layout = layouts[request.id].layout
        paths = paths_of(layouts[request.id])
        offset = len(request.prompt)
        written = {branch.path: branch for branch in request.tree.branches}
        computed = request.computed
        assert set(written) == set(script)
        for index, path in paths.items():
            branch = written[path]
            own = [i for i, owner in enumerate(layout.branches) if owner == index]
            assert branch.positions == [layout.positions[i] + offset for i in own]
            assert branch.forced == [layout.forced[i] for i in own]
            # Every token but the very last was read, once, in the branch's own order.
            mine = computed.owners == branch.index
            expected = branch.positions if path else [*range(offset), *branch.positions[:-1]]
            assert computed.positions[mine].tolist() == expected
            ids = branch.token_ids if path else [*request.prompt, *branch.token_ids[:-1]]
            assert computed.token_ids[mine].tolist() == ids
        assert len(set(computed.slots.tolist())) == computed.count
        if not tight:
            counted = sum(len(chunk.token_ids) for chunks in forwards for chunk in chunks if chunk.request is request)
            assert counted == computed.count - request.cached_tokens
        # Whoever is read sees everything before it: the highest visible position is the one before its own.
        for i in range(computed.count):
            seen = request.tree.visible[computed.owners[i]][computed.owners[:i]]
            assert max(computed.positions[:i][seen], default=-1) == computed.positions[i] - 1


@pytest.mark.parametrize("budget", [1, 5, 1000])
def test_branches_of_a_family_advance_side_by_side(budget: int) -> None:
    tokens = TOKENS["multiverse"]
    document = two_paths("x" * 30, "y" * 30)
    encoded = encode(document, tokens)
    request = bare_request(tokens, [1], SamplingParams(max_tokens=500))
    one = scheduler(budget=budget)
    one.add(request)
    forwards = len(write_out(one, {request.id: (request, Script(document, tokens).by_path)}))
    if budget == 1:
        assert forwards == len(encoded.token_ids)  # one token a forward: the prompt's, then all but the last
    if budget == 1000:
        # Forced tokens came along with the one before. The last forward is that before the last token, which is only chosen.
        assert forwards == encoded.layout.critical_path_steps() < encoded.layout.critical_path() - 20


@pytest.mark.parametrize(("branches", "waves"), [(1, 6), (2, 3), (4, 2), (6, 1), (256, 1)])
def test_a_wide_block_is_gone_through_in_waves(branches: int, waves: int) -> None:
    tokens = TOKENS["multiverse"]
    document = Document((Block(("o",) * 6, (("x" * 9,),) * 6, "c"),), "A")
    request = bare_request(tokens, [1], SamplingParams(max_tokens=1000))
    one = scheduler(branches=branches)
    one.add(request)
    forwards = write_out(one, {request.id: (request, Script(document, tokens).by_path)})
    rows = [[chunk.branch.label for chunk in chunks if chunk.sample and chunk.branch.label] for chunks in forwards]
    rows = [row for row in rows if row]
    # Each wave is finished before the next begins, and they come in the order of the labels.
    order = list(dict.fromkeys(tuple(sorted(row)) for row in rows))
    width = min(branches, 6)
    labels = [str(i + 1) for i in range(6)]
    assert order == [tuple(labels[i : i + width]) for i in range(0, 6, width)]
    assert len(order) == waves
    assert len(rows) == waves * len(" xxxxxxxxx\n>")


def test_two_families_share_the_waves() -> None:
    # The heads of one may not keep another from going on.
    tokens = TOKENS["multiverse"]
    document = Document((Block(("o",) * 4, (("x" * 9,),) * 4, "c"),), "A")
    one = scheduler(branches=3)
    scripts: Scripts = {}
    for _ in range(2):
        request = bare_request(tokens, [1], SamplingParams(max_tokens=1000))
        scripts[request.id] = request, Script(document, tokens).by_path
        one.add(request)
    forwards = write_out(one, scripts)
    first, last = (request for request, _ in scripts.values())
    both = [{chunk.request.id for chunk in chunks if chunk.sample} for chunks in forwards]
    assert sum(ids == {first.id, last.id} for ids in both) > 50
    assert len(forwards) < 1.2 * sum(len(script[()]) + 4 * len(script[0, 0]) for _, script in scripts.values()) / 2
