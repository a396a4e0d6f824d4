"""Requests that are awaited, several at once, and abandoned."""

import asyncio

import pytest

from splitc.common import ort
from splitc.common.errors import InputError, RuntimeFailure
from splitc.runtime.aio import AsyncSession
from tests.conftest import Tiny
from tests.runtime import servers
from tests.runtime.test_session import FAST, INPUTS, is_right, of_kind


def test_requests_at_once(tiny: Tiny) -> None:
    async def work(url: str) -> None:
        async with AsyncSession(
            tiny.bundle.folder, server=url, start=FAST, cut=of_kind(tiny, "split")
        ) as session:
            want = ort.run(ort.session(tiny.model), INPUTS)
            assert session.manifest == tiny.bundle.manifest
            assert is_right(await session.run(INPUTS), want)
            outcomes = await asyncio.gather(*(session.request(INPUTS) for _ in range(20)))
            assert all(is_right(outcome.outputs, want) for outcome in outcomes)
            assert session.conditions().uplink_bps > 0
            with pytest.raises(InputError):
                await session.run({})

    with servers.serve(servers.Tails(tiny.bundle)) as server:
        asyncio.run(asyncio.wait_for(work(server.url), servers.LONGEST_S))


def test_the_loop_goes_on_meanwhile_and_a_cancelled_request_harms_no_other(tiny: Tiny) -> None:
    tails = servers.Tails(tiny.bundle)

    async def work(url: str) -> None:
        async with AsyncSession(
            tiny.bundle.folder, server=url, start=FAST, cut=of_kind(tiny, "split")
        ) as session:
            want = await session.run(INPUTS)
            tails.delay_s = 0.2
            tasks = [asyncio.create_task(session.run(INPUTS)) for _ in range(5)]
            await asyncio.sleep(0.02)
            assert not any(task.done() for task in tasks[:1])
            for task in tasks:
                task.cancel()
            assert all(
                isinstance(result, asyncio.CancelledError)
                for result in await asyncio.gather(*tasks, return_exceptions=True)
            )
            tails.delay_s = 0.0
            assert is_right(await session.run(INPUTS), want)

    with servers.serve(tails) as server:
        asyncio.run(asyncio.wait_for(work(server.url), servers.LONGEST_S))


def test_closing_while_requests_wait(tiny: Tiny) -> None:
    async def work(url: str) -> None:
        session = AsyncSession(tiny.bundle.folder, server=url, start=FAST, cut=of_kind(tiny, "split"))
        tasks = [asyncio.create_task(session.run(INPUTS)) for _ in range(20)]
        await asyncio.sleep(0.02)
        await session.close()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, dict) or "closed" in str(result)
        with pytest.raises(RuntimeFailure, match="closed"):
            await session.run(INPUTS)
        await session.close()

    with servers.serve(servers.black_hole) as server:
        asyncio.run(asyncio.wait_for(work(server.url), servers.LONGEST_S))
