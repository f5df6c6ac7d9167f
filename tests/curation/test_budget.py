"""Limits hold whatever the endpoint returns; the estimate before a run."""

from __future__ import annotations

import asyncio

import pytest

from multiverse.curation.budget import Budget, upper_bound
from multiverse.curation.config import BudgetConfig, CurationConfig
from multiverse.curation.errors import BudgetError, StoppedError
from multiverse.curation.estimate import CostEstimate
from multiverse.curation.types import Completion, Request, Trace, Usage

REQUEST = Request("row", "stage", 0, (("user", "x" * 84),), max_tokens=100)  # at most 200 tokens


def test_upper_bound_of_a_call() -> None:
    assert upper_bound(REQUEST) == Usage(1, 100, 100)
    assert upper_bound(REQUEST._replace(messages=(("user", "🙂"),))).prompt_tokens == 4 + 16
    assert upper_bound(REQUEST._replace(messages=(("user", "\ud83d"),))).prompt_tokens > 16


def test_token_budget() -> None:
    async def spend() -> int:
        budget, calls = Budget(BudgetConfig(token_budget=1000)), 0
        with pytest.raises(BudgetError, match=r"--token-budget 1000.*raise the limit"):  # noqa: PT012
            while True:
                reserved = await budget.reserve(REQUEST)
                budget.settle(reserved, Completion("", "stop", 20, 30))
                calls += 1
        assert budget.spent == Usage(calls, 20 * calls, 30 * calls)
        return calls

    assert asyncio.run(spend()) == 17  # at 850 spent, 200 more would be too much


def test_max_cost() -> None:
    async def spend() -> float:
        budget = Budget(BudgetConfig(1e6, 2e6, max_cost=1000))
        with pytest.raises(BudgetError, match=r"--max-cost 1000"):  # noqa: PT012
            while True:
                budget.settle(await budget.reserve(REQUEST), Completion("", "stop", 50, 50))
        return budget.cost

    assert asyncio.run(spend()) == 750


def test_calls_in_flight_count_with_their_upper_bound_and_are_waited_for() -> None:
    async def many() -> tuple[int, int, int]:
        budget = Budget(BudgetConfig(token_budget=1000))
        flying = most = done = 0

        async def call() -> None:
            nonlocal flying, most, done
            reserved = await budget.reserve(REQUEST)
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0)
            flying -= 1
            budget.settle(reserved, Completion("", "stop", 5, 5))
            done += 1

        outcomes = await asyncio.gather(*(call() for _ in range(100)), return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, BudgetError) for outcome in outcomes)
        return most, done, budget.spent.tokens

    most, done, spent = asyncio.run(many())
    assert most == 5
    assert done >= 80
    assert spent <= 1000


def test_a_failed_call_counts_nothing() -> None:
    async def fail() -> Usage:
        budget = Budget(BudgetConfig(token_budget=200))
        for _ in range(5):
            budget.settle(await budget.reserve(REQUEST), None)
        return budget.spent

    assert asyncio.run(fail()) == Usage()


def test_earlier_runs_count() -> None:
    async def spend() -> None:
        budget = Budget(BudgetConfig(token_budget=1000), Usage(10, 500, 400))
        with pytest.raises(BudgetError, match="900 tokens spent"):
            await budget.reserve(REQUEST)

    asyncio.run(spend())


def test_close_ends_waiting_reservations() -> None:
    async def close() -> None:
        budget = Budget(BudgetConfig(token_budget=200))
        await budget.reserve(REQUEST)
        waiting = asyncio.create_task(budget.reserve(REQUEST))
        await asyncio.sleep(0)
        budget.close(StoppedError("enough"))
        with pytest.raises(StoppedError, match="enough"):
            await waiting

    asyncio.run(close())


def test_estimate() -> None:
    trace = Trace("1", "Why?", tuple("A sentence of forty characters, or so... " for _ in range(100)), "42")
    one, two, plain = (
        CostEstimate(CurationConfig()),
        CostEstimate(CurationConfig(judge=True)),
        CostEstimate(CurationConfig(rewrite=False)),
    )
    for estimate in (one, two, plain):
        assert estimate.usage == Usage()
        estimate.add(trace)
    own = len(trace.reasoning) // 4
    assert one.stages.keys() == {"summary", "groups", "outline", "refill", "rewrite", "conclude"}
    assert own < one.stages["summary"].prompt_tokens < 3 * own
    assert 5 * own < one.usage.tokens < 20 * own
    assert plain.usage.tokens < one.usage.tokens < two.usage.tokens
    one.add(trace)
    assert one.rows == 2
    assert one.stages["rewrite"].completion_tokens == 2 * own
