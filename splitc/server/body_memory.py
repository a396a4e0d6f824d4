"""How much memory the bodies of requests may take together. What has arrived counts, not what a head announces."""

import time
from collections.abc import Callable

# When memory is short, bodies that have been arriving for longer than this are given up, the oldest first. So clients
# that send slowly, or stop, cannot keep others out.
_GRACE_S = 5.0


class NoRoom(Exception):  # noqa: N818 - an answer
    """The bodies of all requests would take too much memory."""


class BodyMemory:
    """Adds up what the bodies of requests take, for one event loop.

    Args:
        limit_bytes: of all bodies.
        clock: monotonic seconds.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._arriving: dict[HeldBody, None] = {}  # the oldest is first
        self.held_bytes = 0

    def hold(self, announced_bytes: int) -> "HeldBody":
        """Begin with a body, which must be released in the end.

        Args:
            announced_bytes: 0 if unknown.

        Raises:
            NoRoom: there is no room for it now.
        """
        if not self._has_room(announced_bytes):
            raise NoRoom
        body = HeldBody(self, self._clock())
        self._arriving[body] = None
        return body

    def add(self, body: "HeldBody", count: int) -> None:
        """Count *count* bytes more of *body*; see `HeldBody.grow`."""
        self.held_bytes += count
        if not self._has_room(0, besides=body):
            raise NoRoom

    def forget(self, body: "HeldBody", size_bytes: int) -> None:
        """Count *body* no longer as arriving, and *size_bytes* of it no longer as held."""
        self._arriving.pop(body, None)
        self.held_bytes -= size_bytes

    def _has_room(self, more_bytes: int, besides: "HeldBody | None" = None) -> bool:
        """Whether *more_bytes* fit, after slow bodies other than *besides* were given up if they must be."""
        if self.held_bytes + more_bytes <= self._limit_bytes:
            return True
        late_s = self._clock() - _GRACE_S
        for body in [body for body in self._arriving if body.began_s <= late_s and body is not besides]:
            body.give_up()
            if self.held_bytes + more_bytes <= self._limit_bytes:
                return True
        return False


class HeldBody:
    """The memory that one body takes.

    Attributes:
        is_given_up: whether others took its place.
        on_give_up: called when that happens, while the body arrives.
    """

    def __init__(self, memory: BodyMemory, began_s: float) -> None:
        self._memory = memory
        self._size_bytes = 0
        self.began_s = began_s
        self.is_given_up = False
        self.on_give_up: Callable[[], None] | None = None

    def grow(self, count: int) -> None:
        """Record that *count* bytes of it have arrived.

        Raises:
            NoRoom: there is no room for them, or others took its place.
        """
        if self.is_given_up:
            raise NoRoom
        self._size_bytes += count
        self._memory.add(self, count)

    def arrived(self) -> None:
        """Record that all of it has arrived, so that it is kept until it is released."""
        self.on_give_up = None
        self._memory.forget(self, 0)

    def release(self) -> None:
        """Record that it takes no memory any more."""
        size_bytes, self._size_bytes = self._size_bytes, 0
        self._memory.forget(self, size_bytes)

    def give_up(self) -> None:
        """Let others take its place."""
        self.is_given_up = True
        self.release()
        if self.on_give_up is not None:
            self.on_give_up()
