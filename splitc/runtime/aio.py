"""`Session` for asyncio."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

from splitc.bundle.decide import Conditions
from splitc.bundle.manifest import Manifest
from splitc.common.errors import RuntimeFailure
from splitc.common.values import Value
from splitc.runtime.session import Outcome, Session

# Threads for concurrent requests. More would only wait for ONNX Runtime or the server instead of for a thread.
_REQUESTS_AT_ONCE = 8


class AsyncSession:
    """A `Session` for asyncio: the same arguments, but requests are awaited.

    Cancelling a request stops the wait for it. The request itself runs to its end in its thread, and later requests
    are not affected.
    """

    def __init__(self, bundle: str | os.PathLike[str], **options: Any) -> None:
        self._session = Session(bundle, **options)
        self._closed = False
        self._threads = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="splitc-async")

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle."""
        return self._session.manifest

    def conditions(self) -> Conditions:
        """Return the current estimates of the link, the server and this device."""
        return self._session.conditions()

    async def run(
        self, inputs: Mapping[str, Value], *, sla_s: float | None = None, deadline_s: float | None = None
    ) -> dict[str, Value]:
        """Run the model; see `Session.run`."""
        return (await self.request(inputs, sla_s=sla_s, deadline_s=deadline_s)).outputs

    async def request(
        self, inputs: Mapping[str, Value], *, sla_s: float | None = None, deadline_s: float | None = None
    ) -> Outcome:
        """Run the model and return the details; see `Session.request`."""
        if self._closed:
            raise RuntimeFailure("the session is closed; open another one")
        call = partial(self._session.request, inputs, sla_s=sla_s, deadline_s=deadline_s)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def close(self) -> None:
        """Close the session after the device has finished the requests that it runs; see `Session.close`."""
        self._closed = True
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _close(self) -> None:
        self._session.close()
        self._threads.shutdown()
