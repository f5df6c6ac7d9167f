"""Curation in process: planted structure is recovered, and no invalid completion gets into a document."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from multiverse.curation.checks import body_texts, check_grammar
from multiverse.curation.config import CurationConfig
from multiverse.curation.curator import NOTHING, curate
from multiverse.curation.prompting import _environment
from multiverse.curation.types import Completion, Curated, Outcome, Rejected, Request, Trace
from multiverse.errors import ExtraError, MultiverseError
from multiverse.structure import MULTIVERSE, parse, render

from .annotator import (
    FORKING,
    INVENTED,
    PHRASE,
    SPOILS,
    Planted,
    answer,
    planted_rows,
    recovered,
    row_of,
    spoiled,
    stage_of,
    whole,
)

CONFIG = CurationConfig()
STAGES = ("summary", "groups", "outline", "refill", "rewrite", "conclude")

Reply = Callable[[Request, str], str | Completion]
"""From a request and the right answer to the answer that is given."""


def curated(planted: Planted, reply: Reply | None = None, config: CurationConfig = CONFIG) -> Outcome:
    """What becomes of a planted row."""

    async def ask(request: Request) -> Completion:
        right = answer(stage_of(request.messages), request.messages, planted)
        given = right if reply is None else reply(request, right)
        return given if isinstance(given, Completion) else Completion(given)

    return asyncio.run(curate(planted.trace, ask, config))


def check_sound(outcome: Outcome, planted: Planted) -> None:
    """Whatever was answered: nothing lost, nothing invented, no tag, and a reason where there is no document."""
    assert outcome.trace is planted.trace
    if isinstance(outcome, Rejected):
        assert outcome.stage
        assert outcome.reason
        assert outcome.detail
        return
    assert whole(outcome.refilled, planted.trace)
    for document in (outcome.refilled, outcome.document):
        check_grammar(document, MULTIVERSE)
        assert document.plain_answer == planted.trace.answer
        text = render(document)
        assert parse(text) == document
        text.encode()
        assert INVENTED not in text
        assert "98765" not in text
        assert len(text) < 3 * len(planted.trace.reasoning) + 2000
    assert outcome.distances["refilled"] <= CONFIG.refilled_distance
    assert outcome.distances["final"] <= CONFIG.final_distance


ROWS = planted_rows(24, seed=1)


# -- a perfect annotator -----------------------------------------------------------------------------------------------


def test_planted_structure_is_recovered() -> None:
    rows = planted_rows(320)
    right = 0
    for planted in rows:
        outcome = curated(planted)
        check_sound(outcome, planted)
        assert isinstance(outcome, Curated), (outcome.stage, outcome.reason, outcome.detail)
        assert not outcome.fallbacks
        right += recovered(outcome.refilled, planted) and recovered(outcome.document, planted)
        # Not only the structure: it is the very document, so it teaches what the planted one would.
        assert render(outcome.document) == render(planted.document)
    assert right == len(rows)
    depths = Counter(planted.document.depth for planted in rows)
    assert {1, 2, 3} <= depths.keys()


@pytest.mark.parametrize("family", FORKING)
def test_every_family(family: str) -> None:
    for planted in planted_rows(6, seed=9, families=[family]):
        outcome = curated(planted)
        assert isinstance(outcome, Curated)
        assert recovered(outcome.refilled, planted)
        assert outcome.distances == {"refilled": 0.0, "final": 0.0}


def test_a_trace_without_parallel_parts_is_rejected() -> None:
    for planted in planted_rows(6, families=["chain"]):
        outcome = curated(planted)
        assert isinstance(outcome, Rejected)
        assert (outcome.stage, outcome.reason) == ("groups", NOTHING)
        assert outcome.attempts == {"summary": 1, "groups": 1}


@pytest.mark.parametrize("dialect", ["npr", "threadweaver", "multiverse-answer"])
def test_other_dialects(dialect: str) -> None:
    config = CurationConfig(dialect=dialect)
    kept = 0
    for planted in ROWS[:8]:
        outcome = curated(planted, config=config)
        if isinstance(outcome, Rejected):  # what was planted nests, or is wider than the dialect allows
            assert not config.tags.nests
            assert outcome.stage in ("groups", "outline")
            continue
        kept += 1
        check_grammar(outcome.document, config.tags)
        assert whole(outcome.refilled, planted.trace)
    assert kept == 8 if config.tags.nests else kept >= 2


def test_without_rewriting() -> None:
    outcome = curated(ROWS[0], config=CurationConfig(rewrite=False))
    assert isinstance(outcome, Curated)
    assert outcome.document == outcome.refilled
    assert outcome.attempts == {"summary": 1, "groups": 1, "outline": 1, "refill": 1}


def test_the_same_answers_give_the_same_outcome() -> None:
    assert curated(ROWS[3]) == curated(ROWS[3])


def test_requests_are_the_same_in_every_run() -> None:
    def keys() -> list[str]:
        found: list[str] = []

        def reply(request: Request, right: str) -> str:
            found.append(request.key(model="m"))
            return right[:-1] if len(found) % 3 == 0 else right

        curated(ROWS[3], reply)
        return found

    first = keys()
    assert first == keys()
    assert len(set(first)) == len(first)


# -- an annotator that misbehaves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPOILS)
def test_one_invalid_completion_in_each_stage_is_retried(kind: str) -> None:
    for planted in ROWS[:8]:
        rng = Random(kind)
        outcome = curated(planted, lambda request, right: spoiled(kind, right, rng) if request.attempt == 0 else right)  # noqa: B023
        check_sound(outcome, planted)
        assert isinstance(outcome, Curated)
        assert recovered(outcome.refilled, planted)


@pytest.mark.parametrize("kind", SPOILS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_without_a_valid_completion(kind: str, stage: str) -> None:
    for planted in ROWS[:4]:
        rng = Random(kind)
        outcome = curated(planted, lambda request, right: spoiled(kind, right, rng) if request.stage == stage else right)  # noqa: B023
        check_sound(outcome, planted)
        assert outcome.attempts[stage] >= 1
        if isinstance(outcome, Curated):
            assert recovered(outcome.refilled, planted)
        else:
            assert stage in ("summary", "groups", "outline", "refill")
            assert outcome.stage == stage


def test_misbehaving_at_random() -> None:
    ends: Counter[str] = Counter()
    for seed, planted in enumerate(planted_rows(150, seed=2)):
        rng = Random(seed)

        def reply(_: Request, right: str, rng: Random = rng) -> str:
            return spoiled(rng.choice(SPOILS), right, rng) if rng.random() < 0.3 else right

        outcome = curated(planted, reply)
        check_sound(outcome, planted)
        if isinstance(outcome, Curated):
            assert recovered(outcome.refilled, planted)
        ends["curated" if isinstance(outcome, Curated) else "set aside"] += 1
    assert ends["curated"] > 100
    assert sum(ends.values()) == 150


def test_a_truncated_completion_is_retried() -> None:
    heard: list[str] = []

    def reply(request: Request, right: str) -> Completion:
        heard.append(request.messages[-1][1])
        return Completion(right, finish_reason="length" if request.attempt == 0 else "stop")

    outcome = curated(ROWS[0], reply)
    assert isinstance(outcome, Curated)
    assert "cut short" in heard[1]


def test_invalid_completions_are_quoted_truncated() -> None:
    longest = [0]

    def reply(request: Request, right: str) -> str:
        longest[0] = max(longest[0], *(len(content) for _, content in request.messages))
        request.messages[-1][1].encode()
        return "\ud83d" * 1_000_000 if request.attempt == 0 else right

    assert isinstance(curated(ROWS[0], reply), Curated)
    assert longest[0] < 20_000


def test_attempts_are_limited_and_counted() -> None:
    outcome = curated(ROWS[0], lambda request, right: "no" if request.stage == "refill" else right, CurationConfig(attempts=5))
    assert isinstance(outcome, Rejected)
    assert (outcome.stage, outcome.reason) == ("refill", "not JSON")
    assert outcome.attempts == {"summary": 1, "groups": 1, "outline": 1, "refill": 5}


def test_a_path_that_is_not_rewritten_keeps_its_text() -> None:
    def reply(request: Request, right: str) -> str:
        return "no" if "\npath: 1/2\n" in request.messages[1][1] else right

    outcome = curated(ROWS[0], reply)
    assert isinstance(outcome, Curated)
    assert outcome.fallbacks == ("1/2",)
    assert any(note.startswith("1/2 kept its refilled text (rewrite)") for note in outcome.notes)


def test_a_block_that_is_not_concluded_keeps_its_text() -> None:
    planted = next(row for row in ROWS if row.document.depth == 2)

    def reply(request: Request, right: str) -> str:
        if request.stage == "rewrite":
            return right.replace(" is ", " is just ")
        return "no" if "\nblock: 1\n" in request.messages[1][1] else right

    outcome = curated(planted, reply)
    assert isinstance(outcome, Curated)
    assert outcome.fallbacks == ("1",)
    assert (outcome.document.thinking or ())[1] == (outcome.refilled.thinking or ())[1]


def test_rewrites_are_used() -> None:
    planted = next(row for row in ROWS if "is even" in row.trace.reasoning)

    def reply(request: Request, right: str) -> str:
        return right.replace("is even", "is an even number") if request.stage == "rewrite" else right

    outcome = curated(planted, reply)
    assert isinstance(outcome, Curated)
    assert not outcome.fallbacks
    assert "is an even number" in render(outcome.document)
    assert "is an even number" not in render(outcome.refilled)
    assert 0 < outcome.distances["final"] < 0.5


def borders(rng: Random, first: int, last: int, pieces: int) -> list[list[int]]:
    """Sentences from first to last, cut into so many spans or fewer."""
    cuts = sorted(rng.sample(range(first + 1, last + 1), min(pieces - 1, last - first)))
    return [[a, b - 1] for a, b in zip([first, *cuts], [*cuts, last + 1], strict=True)]


def invent_structure(request: Request, rng: Random, trace: Trace, right: str) -> str:
    """An answer that is well formed, and right only by chance."""
    last = len(trace.sentences)
    if request.stage == "summary":
        spans = borders(rng, 1, last, 6)
        steps = [[{"summary": "t", "sentences": span} for span in borders(rng, *outer, 3)] for outer in spans]
        return json.dumps({"steps": [{"summary": "s", "substeps": substeps} for substeps in steps]})
    if request.stage == "groups":
        start, width = rng.randint(1, 3), rng.randint(2, 3)
        outer = [[str(start + number)] for number in range(width)]
        inner = [[f"{start}.1"], [f"{start}.2"]]
        kinds = [{"kind": "selective", "reason": "r", "paths": paths} for paths in (outer, inner)]
        return json.dumps({"groups": kinds[: rng.randint(1, 2)]})
    if request.stage == "outline":
        outlines = [{"outline": "the one"}, {"outline": "the other"}, {"outline": "the third"}]
        if rng.random() < 0.5:
            outlines[0]["inside"] = [{"group": 2, "paths": [{"outline": "the one"}, {"outline": "the other"}]}]  # type: ignore[assignment]
        return json.dumps({"blocks": [{"group": 1, "paths": outlines[: rng.randint(2, 3)]}]})
    if request.stage == "refill":
        places = len(re.findall("^P[0-9]+: ", request.messages[1][1], re.MULTILINE))
        spans = borders(rng, 1, last, places)
        return json.dumps({"places": {f"P{number}": span for number, span in enumerate(spans, 1)}})
    return right


def test_random_structure_invents_no_text() -> None:
    ends: Counter[str] = Counter()
    for seed, planted in enumerate(planted_rows(100, seed=3)):
        rng = Random(seed)

        async def ask(request: Request, rng: Random = rng, planted: Planted = planted) -> Completion:
            right = "{}" if request.stage == "conclude" else answer(request.stage, request.messages, planted)
            return Completion(invent_structure(request, rng, planted.trace, right))

        outcome = asyncio.run(curate(planted.trace, ask, CONFIG))
        check_sound(outcome, planted)
        ends["curated" if isinstance(outcome, Curated) else outcome.reason] += 1
    assert ends["curated"] > 10
    assert len(ends) > 1


def test_the_annotator_reads_the_requests_of_an_endpoint() -> None:
    heard: list[Request] = []
    curated(ROWS[3], lambda request, right: heard.append(request) or right)  # type: ignore[func-returns-value]
    for request in heard:
        wire = [{"role": role, "content": content} for role, content in request.messages]
        assert (stage_of(wire), row_of(wire)) == (request.stage, request.row)
        assert answer(request.stage, wire, ROWS[3]) == answer(request.stage, request.messages, ROWS[3])


# -- independence --------------------------------------------------------------------------------------------------------

CHAINED = Trace(
    "r",
    "What comes of 13?",
    ("Begin with 13. ", "Its ninth multiple: 13*9=117. ", "Twice that: 117*2=234. ", "So it is 234."),
    "234",
)
ANSWERS = {
    "summary": {"steps": [{"summary": "s", "substeps": [{"summary": "t", "sentences": [n, n]}]} for n in (1, 2, 3, 4)]},
    "groups": {"groups": [{"kind": "collective", "reason": "r", "paths": [["2"], ["3"]]}]},
    "outline": {"blocks": [{"group": 1, "paths": [{"outline": "the multiple"}, {"outline": "twice that"}]}]},
    "refill": {"places": {"P1": [1, 1], "P2": [2, 2], "P3": [3, 3], "P4": [4, 4]}},
    "judge": {"dependent": []},
}


def chained(later_groups: object, config: CurationConfig = CONFIG) -> tuple[Outcome, list[Request]]:
    heard = []

    async def ask(request: Request) -> Completion:
        heard.append(request)
        value = {"groups": later_groups} if request.stage == "groups" and request.attempt else ANSWERS[request.stage]
        return Completion(json.dumps(value))

    return asyncio.run(curate(CHAINED, ask, config)), heard


def test_groups_with_dependent_paths_are_retried() -> None:
    outcome, heard = chained([])
    assert isinstance(outcome, Rejected)
    assert outcome.reason == NOTHING
    again = [request for request in heard if request.stage == "groups"][1]
    assert "117" in again.messages[-1][1]
    assert outcome.attempts["groups"] == 2


def test_all_paths_may_use_the_question() -> None:
    async def ask(request: Request) -> Completion:
        return Completion(json.dumps(ANSWERS[request.stage]))

    trace = Trace("r", "Is 117 right, and what comes of 13?", CHAINED.sentences, "234")
    assert isinstance(asyncio.run(curate(trace, ask, CurationConfig(rewrite=False))), Curated)


def test_traces_with_dependent_paths_are_rejected() -> None:
    outcome, _ = chained(ANSWERS["groups"]["groups"])
    assert isinstance(outcome, Rejected)
    assert (outcome.stage, outcome.reason) == ("groups", "not independent")
    assert "117" in outcome.detail
    assert outcome.attempts == {"summary": 1, "groups": 3, "outline": 3, "refill": 3}


def test_the_judge_decides() -> None:
    config = CurationConfig(judge=True)
    outcome = curated(ROWS[0], config=config)
    assert isinstance(outcome, Curated)
    assert "block 1: independent, says the judge" in outcome.notes
    finds = json.dumps({"dependent": [{"path": 2, "on": 1, "because": "it continues it"}]})
    outcome = curated(ROWS[0], lambda request, right: finds if request.stage == "judge" else right, config)
    assert isinstance(outcome, Rejected)
    assert (outcome.stage, outcome.reason) == ("groups", "not independent")
    outcome = curated(ROWS[0], lambda request, right: "no" if request.stage == "judge" else right, config)
    assert isinstance(outcome, Curated)
    assert any("no verdict" in note for note in outcome.notes)


def test_only_the_last_verdict_is_in_the_notes() -> None:
    planted = next(row for row in ROWS if len(list(row.document.blocks())) > 1)
    heard: list[str] = []

    def reply(request: Request, right: str) -> str:
        if request.stage != "judge":
            return right
        heard.append(request.messages[1][1])
        return json.dumps({"dependent": [{"path": 2, "on": 1, "because": "so"}]}) if len(heard) == 2 else right

    outcome = curated(planted, reply, CurationConfig(judge=True))
    assert isinstance(outcome, Curated)
    assert outcome.attempts["groups"] == 2
    verdicts = [note for note in outcome.notes if "says the judge" in note]
    assert len(verdicts) == len(list(planted.document.blocks()))


# -- the edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "stage", "reason"),
    [
        (Trace("r", "q", (f"One {MULTIVERSE.path.open}. ", "Two."), "2"), "trace", "tag in the trace"),
        (Trace("r", "q", ("One. ", "Two."), MULTIVERSE.goal.close), "trace", "tag in the trace"),
        (Trace("r", "q", ("One \ud83d. ", "Two."), "2"), "trace", "broken text"),
        (Trace("r", "q", ("One.",), "2"), "trace", NOTHING),
        (Trace("r", "q", (), "2"), "trace", NOTHING),
    ],
)
def test_traces_that_are_not_worth_a_request(trace: Trace, stage: str, reason: str) -> None:
    async def ask(request: Request) -> Completion:
        raise AssertionError(request)

    outcome = asyncio.run(curate(trace, ask, CONFIG))
    assert isinstance(outcome, Rejected)
    assert (outcome.stage, outcome.reason, outcome.attempts) == (stage, reason, {})


def test_errors_of_the_client_are_raised() -> None:
    class SpentError(MultiverseError):
        pass

    async def ask(request: Request) -> Completion:
        raise SpentError(request.stage)

    with pytest.raises(SpentError):
        asyncio.run(curate(ROWS[0].trace, ask, CONFIG))


@pytest.mark.parametrize(("module", "library"), [("rapidfuzz.distance", "rapidfuzz"), ("jinja2", "jinja2")])
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, module: str, library: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    _environment.cache_clear()
    with pytest.raises(ExtraError, match=rf"{library}.*\[curate\]"):
        curated(ROWS[0])


def test_many_at_once() -> None:
    async def one(planted: Planted) -> Outcome:
        async def ask(request: Request) -> Completion:
            await asyncio.sleep(0)
            return Completion(answer(request.stage, request.messages, planted))

        return await curate(planted.trace, ask, CONFIG)

    async def everybody() -> list[Outcome]:
        return await asyncio.gather(*map(one, ROWS))

    for planted, outcome in zip(ROWS, asyncio.run(everybody()), strict=True):
        assert isinstance(outcome, Curated)
        assert outcome == curated(planted)


@pytest.mark.parametrize("bad", [{"attempts": 0}, {"dialect": "x"}, {"final_distance": 2.0}, {"depth": 0}])
def test_options_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        CurationConfig(**bad)  # type: ignore[arg-type]


def test_planting_makes_a_sequential_trace() -> None:
    for planted in ROWS:
        lines = "\n".join(body_texts(planted.document.thinking or (), PHRASE, conclusions=True))
        assert "".join(planted.trace.reasoning.split()) == "".join(lines.split())
