"""The memory of all bodies: what has arrived counts, and slow senders do not keep others out."""

import asyncio
import contextlib

import pytest

from splitc.server.body_memory import BodyMemory, HeldBody, NoRoom
from splitc.server.exchange import Refusal
from splitc.server.options import ServerOptions
from tests.server.serving import head, infer_once, make_part, ones, receive_all, running, until
from tests.server.test_exchange import Served, length


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_what_has_arrived_counts_until_it_is_released() -> None:
    memory = BodyMemory(10)
    one, other = memory.hold(10), memory.hold(10)
    one.grow(4)
    other.grow(6)
    with pytest.raises(NoRoom):
        one.grow(1)
    one.arrived()
    one.release()
    assert memory.held_bytes == 6
    other.grow(4)
    with pytest.raises(NoRoom):
        memory.hold(1)
    other.release()
    other.release()
    assert memory.held_bytes == 0
    with pytest.raises(NoRoom):
        memory.hold(11)


def test_the_oldest_that_still_arrive_make_room() -> None:
    clock = Clock()
    memory = BodyMemory(10, clock)
    told: list[HeldBody] = []
    bodies = []
    for size in (3, 3, 3):
        bodies.append(memory.hold(size))
        bodies[-1].on_give_up = lambda body=bodies[-1]: told.append(body)
        bodies[-1].grow(size)
    whole, slow, slower = bodies
    whole.arrived()
    with pytest.raises(NoRoom):
        memory.hold(2)  # nobody is slow yet
    clock.now_s += 5
    new = memory.hold(4)
    assert told == [slow]
    assert slow.is_given_up
    with pytest.raises(NoRoom):
        slow.grow(1)
    new.grow(4)
    slower.release()
    assert memory.held_bytes == 7
    whole.release()
    new.release()
    assert memory.held_bytes == 0


def test_bodies_that_are_only_announced_take_no_place() -> None:
    options = ServerOptions(max_held_bytes=1000)
    with running(make_part(), options=options) as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(server.dial())
            sock.sendall(head("POST", "/v2/models/made.c1/infer", "Content-Length: 900") + b"x")
        until(lambda: server.app.in_flight == 20, "all have come")
        assert infer_once(server, "made.c1", ones()).status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_there_is_memory_for(chunked: bool) -> None:
    options = ServerOptions(max_held_bytes=1000)
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 900"
    piece = b"258\r\n" + 600 * b"x" + b"\r\n" if chunked else 600 * b"x"
    with running(make_part(), options=options) as server, server.dial() as one, server.dial() as other:
        one.sendall(head("POST", "/v2/models/made.c1/infer", framing) + piece)
        until(lambda: server.app._inference._memory.held_bytes == 600, "it has come")
        other.sendall(head("POST", "/v2/models/made.c1/infer", framing))
        until(lambda: server.app.in_flight == (2 if chunked else 1), "the other has come, or was refused")
        with contextlib.suppress(OSError):
            other.sendall(piece)
        answer = receive_all(other) if chunked else other.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 503 ")
        one.close()
        until(lambda: server.app._inference._memory.held_bytes == 0, "nothing is held")


@pytest.mark.parametrize("headers", [[], length(8)], ids=["unknown", "declared"])
def test_a_body_is_given_up_while_it_is_waited_for(headers: list[tuple[bytes, bytes]]) -> None:
    memory = BodyMemory(10)

    async def receive() -> None:
        held = memory.hold(8)
        exchange = Served(
            {"type": "http.request", "body": b"ab", "more_body": True}, headers=headers
        ).exchange
        asyncio.get_running_loop().call_later(0.01, held.give_up)
        await exchange.body(limit_bytes=8, within_s=60, held=held)

    with pytest.raises(Refusal, match="too many requests are being received") as caught:
        asyncio.run(receive())
    assert (caught.value.status, caught.value.closes) == (503, True)
    assert memory.held_bytes == 0


def test_a_body_is_given_up_in_its_final_place() -> None:
    with running(make_part()) as server, server.dial() as sock:
        memory = server.app._inference._memory
        sock.sendall(head("POST", "/v2/models/made.c1/infer", "Content-Length: 900") + b"x")
        until(lambda: memory.held_bytes == 1, "it has come")
        (held,) = memory._arriving
        until(lambda: held.on_give_up is not None, "it is waited for")
        loop = server.server.servers[0].get_loop()
        loop.call_soon_threadsafe(held.give_up)
        assert receive_all(sock).startswith(b"HTTP/1.1 503 ")
