"""The requests that a device sends to a server: to run the cloud's part of a cut, and to measure the link."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, TensorEntry
from splitc.bundle.pairing import pairing
from splitc.bundle.price import HIGHEST_PRICE, PRICE
from splitc.common.errors import ServerRefused
from splitc.common.values import Value
from splitc.protocol import messages
from splitc.runtime.estimate.estimator import ObservedExchange
from splitc.runtime.estimate.probing import BARE_BYTES, DOWN_BYTES, UP_BYTES
from splitc.runtime.http.transport import Reply, Transport
from splitc.runtime.tensor_checks import check_outputs, symbol_sizes

_OK, _NOT_FOUND, _BAD_METHOD = 200, 404, 405
_SHOWN_CHARACTERS = 200
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs that a server returned, and the measurements of the exchange."""

    outputs: dict[str, Value]
    exchange: ObservedExchange


class Client:
    """Sends requests for the cuts of *bundle* to the server behind *transport*."""

    def __init__(self, bundle: Bundle, transport: Transport) -> None:
        model = bundle.manifest.model.name
        self._paths = {
            cut.id: f"/v2/models/{quote(f'{model}.{cut.id}', safe='')}/infer" for cut in bundle.manifest.cuts
        }
        self._inputs = bundle.manifest.model.inputs
        self._pairings = {cut.id: pairing(bundle.manifest, cut) for cut in bundle.manifest.cuts}
        self._transport = transport

    def infer(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], *, deadline_s: float
    ) -> Answer:
        """Have the server run the cloud's part of *cut* on *values*, and return the outputs *wanted*.

        Args:
            deadline_s: when to give up, on the clock of `time.monotonic()`.

        Raises:
            ServerRefused: the server answered with an error.
            ProtocolError: the answer does not fit the manifest.
            TransportError: the server cannot be reached, or the connection broke.
            DeadlineExceeded: no answer came before *deadline_s*.
        """
        message = messages.encode_request(
            {entry.name: values[entry.name] for entry in cut.sent},
            [entry.name for entry in wanted],
            timeout_s=_rounded_up(deadline_s - time.monotonic()),
        )
        reply = self._transport.exchange(
            "POST",
            self._paths[cut.id],
            {**message.headers(), "Splitc-Pairing": self._pairings[cut.id]},
            [message.json, *message.buffers],
            deadline_s=deadline_s,
        )
        if reply.status != _OK:
            raise refusal(reply)
        outputs = messages.decode_response(
            reply.body, messages.json_size(reply.headers.get(messages.JSON_SIZE.lower()))
        )
        check_outputs(wanted, outputs, symbol_sizes((*self._inputs, *cut.sent), values))
        return Answer(outputs, _exchange(reply, message.nbytes, cut.cloud_s))

    def probe(self, *, deadline_s: float) -> Iterator[ObservedExchange]:
        """Measure the link: a small exchange for the round trip, then a larger one for the rates.

        Servers other than splitc's do not offer the second exchange; it is left out for them.

        Raises:
            ServerRefused, ProtocolError, TransportError, DeadlineExceeded: see `infer`.
        """
        reply = self._transport.exchange("GET", "/v2/health/live", {}, (), deadline_s=deadline_s)
        if reply.status != _OK:
            raise refusal(reply)
        yield _exchange(reply, BARE_BYTES, None)
        path, headers = (
            f"/splitc/probe?bytes={DOWN_BYTES}",
            {"Content-Type": "application/octet-stream"},
        )
        body = bytes(UP_BYTES)
        reply = self._transport.exchange("POST", path, headers, (body,), deadline_s=deadline_s)
        if reply.status == _OK:
            yield _exchange(reply, len(body), None)
        elif reply.status not in (_NOT_FOUND, _BAD_METHOD):  # servers other than splitc's have no such path
            raise refusal(reply)


def _rounded_up(seconds: float) -> float:
    """Round up to two significant digits, so that few different texts occur and their parsing can be cached."""
    if not 0 < seconds < math.inf:
        return seconds
    unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit


def refusal(reply: Reply) -> ServerRefused:
    """Make an error from *reply*, with the server's message if it sent one as JSON."""
    try:
        said = json.loads(bytes(reply.body))["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = None
    words = said if isinstance(said, str) else "without a reason"
    shown = "".join(letter if letter.isprintable() else "?" for letter in words[:_SHOWN_CHARACTERS])
    after_s = _number(reply.headers.get("retry-after", ""))
    return ServerRefused(
        f"the server answered {reply.status}: {shown}",
        status=reply.status,
        retry_after_s=after_s,
        price=_price(reply),
    )


def _exchange(reply: Reply, uplink_bytes: int, cloud_s: float | None) -> ObservedExchange:
    said_s = server_times(reply.headers.get("server-timing", ""))
    return ObservedExchange(
        uplink_bytes=uplink_bytes,
        downlink_bytes=len(reply.body),
        wait_s=reply.wait_s,
        download_s=reply.download_s,
        recv_s=said_s.get("recv"),
        queue_s=said_s.get("queue"),
        compute_s=said_s.get("compute"),
        cloud_s=cloud_s,
        price=_price(reply),
    )


def _price(reply: Reply) -> float | None:
    """The price that the server asks, or None if it asks none that can be."""
    price = _number(reply.headers.get(PRICE, ""))
    return price if price is not None and price <= HIGHEST_PRICE else None


def server_times(header: str) -> dict[str, float]:
    """Read a Server-Timing header (W3C): seconds by name. Malformed entries are left out."""
    found: dict[str, float] = {}
    for metric in header.split(","):
        name, _, parameters = metric.partition(";")
        for parameter in parameters.split(";"):
            key, _, text = parameter.partition("=")
            value = _number(text) if key.strip() == "dur" else None
            if value is not None:
                found[name.strip()] = value / 1000
    return found


def _number(text: str) -> float | None:
    """Return the finite number >= 0 in *text*, or None if it is anything else."""
    match = _NUMBER.fullmatch(text.strip().strip('"'))
    value = float(match[0]) if match else math.inf
    return value if math.isfinite(value) and value >= 0 else None
