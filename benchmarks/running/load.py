"""Many clients of one tail at once, each with a connection that it keeps."""

import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.running.programs import obey
from splitc.bundle.folder import read_bundle
from splitc.bundle.stacking import made_up
from splitc.protocol import messages
from splitc.runtime.http.transport import HttpTransport

_PATIENCE_S = 30.0
_OK = 200


class _Client:
    """Sends the same request over and over, as soon as it is answered."""

    def __init__(self, server: str, path: str, message: messages.Message) -> None:
        self._transport = HttpTransport(server)
        self._path = path
        self._message = message
        self.taken_s: list[float] = []
        self.refused = 0

    def run(self, until_s: float) -> None:
        headers, body = self._message.headers(), [self._message.json, *self._message.buffers]
        while (before_s := time.monotonic()) < until_s:
            reply = self._transport.exchange(
                "POST", self._path, headers, body, deadline_s=before_s + _PATIENCE_S
            )
            if reply.status == _OK:
                self.taken_s.append(time.monotonic() - before_s)
            else:
                self.refused += 1


_clients: list[_Client] = []


def connect(server: str, bundle: str, cut: str, clients: int) -> None:
    """Forget other clients; make some of the tail of *cut*."""
    manifest = read_bundle(Path(bundle)).manifest
    entry = next(item for item in manifest.cuts if item.id == cut)
    assert entry.tail is not None, "all-head has no tail"
    have = {item.name for item in manifest.model.outputs}
    made = {item.name for item in entry.boundary}
    message = messages.encode_request(made_up(entry, manifest.model.dims), sorted(have - made))
    path = f"/v2/models/{manifest.model.name}.{cut}/infer"
    _clients[:] = [_Client(server, path, message) for _ in range(clients)]


def load(seconds: float) -> dict[str, Any]:
    """Let all of them send for so long; how many answers a second there were, and how long one took."""
    for client in _clients:
        client.taken_s.clear()
        client.refused = 0
    began_s = time.monotonic()
    threads = [threading.Thread(target=client.run, args=(began_s + seconds,)) for client in _clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken_s = [taken_s for client in _clients for taken_s in client.taken_s]
    return {
        "per_s": len(taken_s) / (time.monotonic() - began_s),
        "median_s": median(taken_s),
        "refused": sum(client.refused for client in _clients),
    }


if __name__ == "__main__":
    obey({"connect": connect, "load": load})
