"""No output of a model exceeds the limits of its request, blocks the engine or affects other requests."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import Branch, Request, TokenEvent
from multiverse.engine.sampler import Sampler
from multiverse.errors import RequestError
from multiverse.structure import ChatEncoder, Role, TokenDialect, parse, render
from tests.engine.steering import GREEDY, NESTED, PolicySampler, always_fork, prompt_ids, run_documents, two_paths

RAW = replace(GREEDY, guard=False)
"""As `GREEDY`, without the guard: limits cut the text off."""


def dialect_of(llm: LLM) -> TokenDialect:
    assert llm.engine.tokens is not None
    return llm.engine.tokens


def eager(llm: LLM, width: int) -> None:
    llm.engine.sampler = PolicySampler(always_fork(dialect_of(llm), width, int(llm.tokenizer.eos_token_id)))


def blocks_in(generation: Generation, tokens: TokenDialect) -> int:
    return generation.token_ids.count(tokens.fork_tag)


def paths_in(generation: Generation, tokens: TokenDialect) -> int:
    return generation.token_ids.count(tokens.ids[Role.PATH_OPEN])


def own_tokens(generation: Generation) -> list[tuple[str, int]]:
    return list(zip(generation.branches, generation.token_ids, strict=True))


def test_max_tokens_to_the_token(steered: LLM) -> None:
    # Limits over the length of one document with nested blocks, all in one batch.
    (whole,) = run_documents(steered, [NESTED])
    size = whole.usage.total_tokens
    assert whole.finish_reason == "stop"
    limits = [*range(1, size, 7), size - 1, size, size + 1]
    cut = run_documents(steered, [NESTED] * len(limits), params=[replace(RAW, max_tokens=limit) for limit in limits])
    steps = dict.fromkeys(own_tokens(whole))
    close = dialect_of(steered).ids[Role.THINK_CLOSE]
    for limit, generation in zip(limits, cut, strict=True):
        assert generation.usage.total_tokens == len(generation.token_ids) == min(limit, size)
        assert generation.finish_reason == ("stop" if limit >= size else "length")
        # Cut anywhere in the thinking there is no tree; a cut in the answer only makes that shorter.
        if close not in generation.token_ids:
            assert generation.tree is None
        if generation.tree is None:
            assert generation.structure_error is not None
            assert generation.structure_error.startswith("cut short (length): ")
        else:
            assert generation.tree.thinking == NESTED.thinking
            assert render(generation.tree) == generation.text
        assert set(own_tokens(generation)) <= steps.keys()
        # Each branch has written a beginning of what it writes without a limit.
        for label in set(whole.branches) - {"1"}:  # two branches are called 1
            mine = [token for branch, token in own_tokens(generation) if branch == label]
            assert [token for branch, token in own_tokens(whole) if branch == label][: len(mine)] == mine
        assert generation.usage.critical_path_tokens <= generation.usage.total_tokens


def test_a_longer_bound_only_adds(steered: LLM) -> None:
    texts = [
        [pair for pair in own_tokens(generation) if pair[0] == ""]
        for generation in run_documents(steered, [NESTED] * 5, params=[replace(RAW, max_tokens=n) for n in range(60, 80, 4)])
    ]
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(texts))


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_max_depth(steered: LLM, depth: int) -> None:
    eager(steered, width=2)
    (generation,) = steered.generate("Q", SamplingParams(max_depth=depth, max_tokens=3000, max_branches=1000))
    assert generation.finish_reason == "stop"
    assert max((label.count(".") + 1 for label in generation.branches if label), default=0) == depth
    assert blocks_in(generation, dialect_of(steered)) == 2**depth - 1
    assert paths_in(generation, dialect_of(steered)) == 2 ** (depth + 1) - 2


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_max_branches_of_one_block(steered: LLM, most: int) -> None:
    eager(steered, width=8)
    (generation,) = steered.generate("Q", SamplingParams(max_branches=most, max_tokens=3000))
    assert generation.finish_reason == "stop"
    assert paths_in(generation, dialect_of(steered)) == most
    assert set(generation.branches) == {"", *(str(i + 1) for i in range(most))}


def test_the_deepest_chain_uses_up_the_branches(steered: LLM) -> None:
    eager(steered, width=1)
    (generation,) = steered.generate("Q", SamplingParams(max_branches=6, max_depth=50, max_tokens=3000))
    assert generation.finish_reason == "stop"
    assert paths_in(generation, dialect_of(steered)) == 6
    assert "1.1.1.1.1.1" in generation.branches


def endless(llm: LLM) -> None:
    """Three paths that never close by themselves."""
    tokens = dialect_of(llm)
    word = tokens.encode("w")[0]
    fork = always_fork(tokens, 3, int(llm.tokenizer.eos_token_id))
    llm.engine.sampler = PolicySampler(lambda request, branch: word if branch.label else fork(request, branch))


def test_an_endless_thinker_is_cut(steered: LLM) -> None:
    endless(steered)
    (generation,) = steered.generate("Q", SamplingParams(max_tokens=222, guard=False))
    assert generation.finish_reason == "length"
    assert generation.usage.total_tokens == 222
    assert set(generation.branches) == {"", "1", "2", "3"}
    assert generation.tree is None
    assert generation.closed == ()


def test_an_endless_thinker_is_closed(steered: LLM) -> None:
    endless(steered)
    (generation,) = steered.generate("Q", SamplingParams(max_tokens=222))
    assert generation.finish_reason == "length"
    assert 190 < generation.usage.total_tokens <= 222
    assert generation.closed == (("1", "length"), ("2", "length"), ("3", "length"))
    # The three come to an end at once, and everything that was opened is closed.
    lengths = [generation.branches.count(label) for label in ("1", "2", "3")]
    assert max(lengths) - min(lengths) <= 1
    ids = dialect_of(steered).ids
    for opening, closing in ((Role.THINK_OPEN, Role.THINK_CLOSE), (Role.PATH_OPEN, Role.PATH_CLOSE)):
        assert generation.token_ids.count(ids[opening]) == generation.token_ids.count(ids[closing])


def test_the_model_s_last_position_ends_a_request(steered: LLM) -> None:
    limit = steered.engine.loaded.max_positions
    assert limit == 2048
    tokens = dialect_of(steered)
    word = tokens.encode("w")[0]
    steered.engine.sampler = PolicySampler(lambda _request, _branch: word)
    prompt = [word] * (limit - 5)
    (generation,) = steered.generate([prompt], SamplingParams(max_tokens=50))
    assert generation.finish_reason == "length"
    assert generation.positions == tuple(range(limit - 5, limit))


def test_end_of_text_in_a_branch_is_malformed(llm: LLM) -> None:
    tokens, end = dialect_of(llm), int(llm.tokenizer.eos_token_id)
    fork = always_fork(tokens, 3, end)

    def policy(request: Request, branch: Branch) -> int:
        if branch.label == "2" and len(branch.token_ids) == 6:
            return end
        return tokens.encode("w")[0] if branch.label else fork(request, branch)

    llm.engine.sampler = PolicySampler(policy)
    (generation,) = llm.generate("Q", SamplingParams(max_tokens=500, logprobs=True))
    assert generation.finish_reason == "malformed"
    assert generation.tree is None
    assert generation.structure_error == "found the end of text in thinking, expected text or <Parallel> or </Path>"
    assert generation.token_ids.count(end) == 1
    assert generation.usage.total_tokens < 100


@pytest.mark.parametrize("text", ["<Think>\n", "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n"])
def test_end_of_text_inside_the_thinking_is_malformed(steered: LLM, text: str) -> None:
    tokens, end = dialect_of(steered), int(steered.tokenizer.eos_token_id)
    script = [*tokens.encode(text), end]
    steered.engine.sampler = PolicySampler(lambda _request, branch: script[len(branch.token_ids)])
    (generation,) = steered.generate("Q")
    assert generation.finish_reason == "malformed"
    assert generation.text == text
    assert generation.structure_error is not None
    assert generation.structure_error.startswith("found the end of text in ")


def test_end_of_text_can_be_ignored(steered: LLM) -> None:
    end = int(steered.tokenizer.eos_token_id)
    steered.engine.sampler = PolicySampler(lambda _request, _branch: end)
    (generation,) = steered.generate("Q", SamplingParams(max_tokens=7, ignore_eos=True))
    assert (generation.finish_reason, generation.token_ids) == ("length", (end,) * 7)
    (generation,) = steered.generate("Q", SamplingParams(max_tokens=7))
    assert (generation.finish_reason, generation.token_ids, generation.text) == ("stop", (end,), "")


@pytest.mark.parametrize("dialect", [True, False], ids=["dialect", "plain"])
def test_the_end_of_text_waits_for_min_tokens(llm: LLM, dialect: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    end = int(llm.tokenizer.eos_token_id)
    if not dialect:
        monkeypatch.setattr(llm.engine, "info", llm.engine.info._replace(tokens=None))
    llm.engine.sampler = Sampler()
    eager = {"temperature": 0, "logit_bias": {end: 1e5}, "max_depth": 0}
    (alone,) = llm.generate("Q", SamplingParams(**eager))
    assert (alone.finish_reason, alone.token_ids) == ("stop", (end,))
    (later,) = llm.generate("Q", SamplingParams(**eager, min_tokens=6))
    assert (later.finish_reason, later.token_ids.index(end), len(later.token_ids)) == ("stop", 6, 7)
    (never,) = llm.generate("Q", SamplingParams(**eager, min_tokens=6, max_tokens=6))
    assert (never.finish_reason, len(never.token_ids), end in never.token_ids) == ("length", 6, False)
    (through,) = llm.generate("Q", SamplingParams(**eager, min_tokens=6, max_tokens=8, ignore_eos=True))
    assert through.token_ids == (end,) * 8


def test_stop_strings_are_looked_for_after_min_tokens(steered: LLM) -> None:
    words = dialect_of(steered).encode("ab" * 20)
    steered.engine.sampler = PolicySampler(lambda _request, branch: words[len(branch.token_ids)])
    for least, text in ((0, "a"), (1, "a"), (2, "aba"), (5, "ababa"), (6, "abababa")):
        params = SamplingParams(temperature=0, max_tokens=30, stop="b", min_tokens=least)
        assert [own.text for own in steered.generate(["Q", "R"], params)] == [text] * 2, least
        streamed = [event.text for event in steered.stream("Q", params) if isinstance(event, TokenEvent)]
        assert "".join(streamed).startswith(text)


def test_a_malformed_other_request_changes_nothing(steered: LLM) -> None:
    tokens = dialect_of(steered)
    good = always_fork(tokens, 3, int(steered.tokenizer.eos_token_id))
    begins = tokens.encode("B")

    def policy(request: Request, branch: Branch) -> int:
        if request.prompt[:1] == begins and request.num_generated > 30 + len(request.prompt):
            return tokens.ids[Role.GOAL_CLOSE if branch.label else Role.PATH_CLOSE]
        return good(request, branch)

    steered.engine.sampler = PolicySampler(policy)
    params = SamplingParams(max_depth=2)
    (alone,) = steered.generate("Good", params)
    assert alone.finish_reason == "stop"
    bad, fine, worse = steered.generate(["Bad", "Good", "Broken as can be"], params)
    for generation in (bad, worse):
        assert generation.finish_reason == "malformed"
        assert generation.tree is None
        assert generation.structure_error is not None
        assert generation.structure_error.startswith("found </")
    assert (fine.token_ids, fine.positions, fine.finish_reason) == (alone.token_ids, alone.positions, alone.finish_reason)


def test_an_illegal_token_in_a_branch_ends_the_request(steered: LLM) -> None:
    tokens = dialect_of(steered)
    fork = always_fork(tokens, 2, int(steered.tokenizer.eos_token_id))
    illegal = tokens.ids[Role.THINK_CLOSE]
    steered.engine.sampler = PolicySampler(lambda request, branch: illegal if branch.label == "1" else fork(request, branch))
    (generation,) = steered.generate("Q")
    assert generation.finish_reason == "malformed"
    assert generation.structure_error == "found </Think> in thinking, expected text or <Parallel> or </Path>"
    assert illegal in generation.token_ids  # it can be looked at


def test_stop_string_in_the_trunk(steered: LLM) -> None:
    document = two_paths()
    (whole,) = run_documents(steered, [document])
    (generation,) = run_documents(steered, [document], params=replace(GREEDY, stop="wer: "))
    assert generation.finish_reason == "stop"
    assert generation.text == whole.text[: whole.text.index("wer: ")]
    assert generation.text.endswith("</Think>\n\nAns")
    assert generation.tree is not None
    assert generation.answer == "Ans"


def test_stop_string_in_a_branch_leaves_the_others_as_far_as_they_came(steered: LLM) -> None:
    document = two_paths("one, to the end", "two, STOP here")
    (generation,) = run_documents(steered, [document], params=replace(GREEDY, stop=["never", "STOP"]))
    assert generation.finish_reason == "stop"
    assert generation.tree is None
    assert generation.structure_error
    head, _, rest = generation.text.partition("<Path>\n1:")
    first, _, second = rest.partition("<Path>\n2:")
    assert parse(head + "<Path>\n1: x\n</Path>\n<Path>\n2: y\n</Path>\n<Conclusion>\n\n</Conclusion>\n</Parallel>\n</Think>")
    assert second == " two, "
    assert " one, to the end".startswith(first)
    assert len(first) >= len(second)


@pytest.mark.parametrize("stop", ["\n", "one, to", ["Goal", "Path"], "\n\n"])
def test_in_a_chat_stops_count_in_the_answer_alone(steered: LLM, stop: Any) -> None:
    document = two_paths("one, to the end", "two")
    (whole,) = run_documents(steered, [document])
    (generation,) = run_documents(steered, [document], params=replace(GREEDY, stop=stop).for_chat())
    assert (generation.text, generation.finish_reason, generation.stop_reason) == (whole.text, "stop", None)
    (generation,) = run_documents(
        steered, [document], params=replace(GREEDY, stop=(stop, "wer") if stop == "\n" else "wer").for_chat()
    )
    assert generation.text == whole.text[: whole.text.index("wer")]
    assert generation.stop_reason == "wer"


@pytest.mark.parametrize("include", [False, True])
def test_what_stopped_a_text_is_said_and_may_be_included(steered: LLM, include: bool) -> None:
    tokens, document = dialect_of(steered), two_paths("one, STOP here", "two")
    params = replace(GREEDY, include_stop_str_in_output=include)
    (generation,) = run_documents(steered, [document], params=replace(params, stop=["x", "STOP"]))
    assert generation.stop_reason == "STOP"
    assert generation.text.partition("<Path>\n2:")[0].endswith("<Path>\n1: one, STOP" if include else "<Path>\n1: one, ")
    close = tokens.ids[Role.GOAL_CLOSE]
    head = generation.text[: generation.text.index("</Goal>")]
    ways: list[dict[str, Any]] = [{"stop_token_ids": [close]}, {"stop": "</Goal>"}]
    for stops in ways:
        for own in (replace(params, **stops), replace(params, **stops).for_chat()):
            (generation,) = run_documents(steered, [document], params=own)
            assert generation.text == head + ("</Goal>" if include else "")
            assert generation.stop_reason == (close if "stop_token_ids" in stops else "</Goal>")
            assert generation.finish_reason == "stop"
            assert generation.token_ids[-1] == close


def test_a_tag_that_a_text_speaks_of_stops_no_chat(steered: LLM) -> None:
    tokens = dialect_of(steered)
    eos = int(steered.tokenizer.eos_token_id)
    script = [*tokens.encode("the "), *ChatEncoder(steered.tokenizer, tokens).text("</Think> tag."), eos]
    steered.engine.sampler = PolicySampler(lambda _, branch: script[len(branch.token_ids)])
    (generation,) = steered.generate("Q", replace(GREEDY, stop="</Think>").for_chat())
    assert (generation.text, generation.answer, generation.stop_reason) == ("the </Think> tag.", "the </Think> tag.", None)


def test_a_stop_token_must_be_one_of_the_model(llm: LLM) -> None:
    with pytest.raises(RequestError, match="stop_token_ids names token id 99999, outside the vocabulary"):
        llm.generate("Q", SamplingParams(stop_token_ids=[99999]))


def test_a_stop_string_is_found_in_a_branch_s_own_text_only(steered: LLM) -> None:
    # The end of path 1 and the head of path 2 stand side by side in the document, but no branch ever wrote both.
    document = two_paths("end", "start")
    (generation,) = run_documents(steered, [document], params=replace(GREEDY, stop="</Path>\n<Path>"))
    assert generation.tree == document


def test_the_earliest_of_several_stop_strings_wins(steered: LLM) -> None:
    document = two_paths(conclusion="alpha beta gamma")
    (generation,) = run_documents(steered, [document], params=replace(GREEDY, stop=("beta", "alpha beta")))
    assert generation.text.endswith("<Conclusion>\n")


def test_a_stop_string_that_ends_inside_a_wide_character(steered: LLM) -> None:
    document = two_paths(conclusion="né fin")
    (generation,) = run_documents(steered, [document], params=replace(GREEDY, stop="é f"))
    assert generation.text.endswith("<Conclusion>\nn")


def test_prompts_that_cannot_run_are_refused(llm: LLM) -> None:
    engine, limit = llm.engine, llm.engine.loaded.max_positions
    with pytest.raises(RequestError, match="the prompt is empty"):
        engine.submit([], GREEDY)
    with pytest.raises(RequestError, match=rf"has {limit} tokens, .* at most {limit - 1}: shorten"):
        engine.submit([1] * limit, SamplingParams(max_tokens=1))
    size = engine.slots.size
    with pytest.raises(RequestError, match=rf"prompt \(3 tokens\) and max_tokens={size} need more than the {size} tokens"):
        engine.submit([1, 2, 3], SamplingParams(max_tokens=size))
    assert not engine.busy
    engine.check([1, 2, 3], SamplingParams(max_tokens=size - 3))


def test_an_aborted_request_frees_everything(steered: LLM) -> None:
    eager(steered, width=3)
    engine = steered.engine
    params = SamplingParams(max_depth=2)
    doomed = engine.submit(prompt_ids(steered, "doomed"), params)
    kept = engine.submit(prompt_ids(steered, "kept"), params)
    waiting = engine.submit(prompt_ids(steered, "never begun"), params)
    engine.abort(waiting)
    while len(doomed.tree.branches) < 8:
        engine.step()
    engine.check_integrity()
    own = [int(engine.slots.owns(request.computed.slots).sum()) for request in (doomed, kept)]
    assert engine.slots.owned == sum(own)
    assert min(own) > 100
    engine.abort(doomed)
    assert engine.slots.owned == own[1]
    # All that it held can be had again.
    assert engine.slots.free + engine.cache.evictable == engine.slots.size - kept.computed.count
    engine.check_integrity()
    engine.run([kept])
    assert engine.generation(kept).finish_reason == "stop"
    assert (doomed.finish_reason, waiting.finish_reason) == ("abort", "abort")


def test_an_interrupted_run_aborts_what_is_left(steered: LLM) -> None:
    eager(steered, width=2)
    requests = [steered.engine.submit(prompt_ids(steered, "x"), replace(GREEDY, max_tokens=n)) for n in (5, 500)]

    def interrupt(request: Request) -> None:
        assert request is requests[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steered.engine.run(requests, interrupt)
    assert not steered.engine.busy
