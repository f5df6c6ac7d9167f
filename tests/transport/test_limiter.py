"""The limit of calls in flight."""

from __future__ import annotations

import asyncio

from multiverse.transport.limiter import ConcurrencyLimiter


def test_the_limiter_halves_once_a_round_and_grows_slowly() -> None:
    async def rounds() -> list[float]:
        limiter: ConcurrencyLimiter[RuntimeError] = ConcurrencyLimiter(16)
        seen: list[float] = []
        permits = [await limiter.acquire() for _ in range(16)]
        for permit in permits:
            limiter.release(permit, overloaded=True, success=False)
        seen.append(limiter.limit)
        for _ in range(8):
            limiter.release(await limiter.acquire())
        seen.append(round(limiter.limit))
        for _ in range(5):
            limiter.release(await limiter.acquire(), overloaded=True, success=False)
        seen.append(limiter.limit)
        for _ in range(500):
            limiter.release(await limiter.acquire())
        return [*seen, limiter.limit]

    assert asyncio.run(rounds()) == [8, 9, 1, 16]


def test_the_limiter_is_fair() -> None:
    async def queue() -> list[int]:
        limiter: ConcurrencyLimiter[RuntimeError] = ConcurrencyLimiter(2)
        order: list[int] = []

        async def pass_through(number: int) -> None:
            permit = await limiter.acquire()
            order.append(number)
            await asyncio.sleep(0)
            limiter.release(permit)

        tasks = [asyncio.create_task(pass_through(number)) for number in range(20)]
        await asyncio.sleep(0)
        tasks[7].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        return order

    assert asyncio.run(queue()) == [number for number in range(20) if number != 7]


def test_a_permit_of_a_cancelled_caller_is_not_lost() -> None:
    async def leave() -> None:
        limiter: ConcurrencyLimiter[RuntimeError] = ConcurrencyLimiter(1)
        permit = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        limiter.release(permit)  # grants the permit
        waiting.cancel()  # but is cancelled
        await asyncio.gather(waiting, return_exceptions=True)
        await limiter.acquire()

    asyncio.run(leave())


def test_the_limiter_pauses() -> None:
    async def pause() -> None:
        limiter: ConcurrencyLimiter[RuntimeError] = ConcurrencyLimiter(4)
        limiter.pause(0.01)
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()
        await waiting

    asyncio.run(pause())


def test_a_stopped_limiter() -> None:
    async def stop() -> None:
        limiter: ConcurrencyLimiter[RuntimeError] = ConcurrencyLimiter(1)
        await limiter.acquire()
        tasks = [asyncio.create_task(limiter.acquire()), asyncio.create_task(limiter.sleep(3600))]
        await asyncio.sleep(0)
        limiter.stop(RuntimeError("enough"))
        for error in await asyncio.gather(*tasks, limiter.acquire(), limiter.sleep(1), return_exceptions=True):
            assert isinstance(error, RuntimeError)

    asyncio.run(stop())


def test_higher_priority_goes_first() -> None:
    async def queue() -> list[int]:
        limiter: ConcurrencyLimiter[RuntimeError] = ConcurrencyLimiter(1)
        order: list[int] = []
        permit = await limiter.acquire()

        async def pass_through(priority: int) -> None:
            mine = await limiter.acquire(priority)
            order.append(priority)
            limiter.release(mine)

        tasks = [asyncio.create_task(pass_through(priority)) for priority in (0, 2, 1)]
        await asyncio.sleep(0)
        limiter.release(permit)
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(queue()) == [2, 1, 0]
