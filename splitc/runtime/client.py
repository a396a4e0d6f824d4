"""What a device asks of a server: to run its part of a cut, or to show how fast the link is."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, TensorEntry
from splitc.bundle.price import PRICE
from splitc.common.errors import ServerRefused
from splitc.common.values import Value
from splitc.protocol import messages
from splitc.runtime.estimate.estimator import ObservedExchange
from splitc.runtime.estimate.probing import BARE_BYTES, DOWN_BYTES, UP_BYTES
from splitc.runtime.http.transport import Reply, Transport
from splitc.runtime.tensor_checks import check_outputs

_OK, _NOT_FOUND, _BAD_METHOD = 200, 404, 405
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server made of a request, and how that went."""

    outputs: dict[str, Value]
    exchange: ObservedExchange


class Client:
    """Asks the server behind *transport* about *bundle*."""

    def __init__(self, bundle: Bundle, transport: Transport) -> None:
        model = bundle.manifest.model.name
        self._paths = {
            cut.id: f"/v2/models/{quote(f'{model}.{cut.id}', safe='')}/infer" for cut in bundle.manifest.cuts
        }
        self._digest = bundle.digest
        self._transport = transport

    def infer(
        self, cut: CutEntry, values: Mapping[str, Value], wanted: Sequence[TensorEntry], *, deadline_s: float
    ) -> Answer:
        """Run the cloud's part of *cut* on *values*; return the outputs *wanted* before `time.monotonic()` is *deadline_s*.

        Raises:
            ServerRefused: the answer is an error.
            ProtocolError: the answer is not what the manifest promises.
            TransportError, DeadlineExceeded: there is none.
        """
        message = messages.encode_request(
            {entry.name: values[entry.name] for entry in cut.sent},
            [entry.name for entry in wanted],
            timeout_s=_rounded_up(deadline_s - time.monotonic()),
        )
        reply = self._transport.exchange(
            "POST",
            self._paths[cut.id],
            {**message.headers(), "Splitc-Bundle": self._digest},
            [message.json, *message.buffers],
            deadline_s=deadline_s,
        )
        if reply.status != _OK:
            raise refusal(reply)
        outputs = messages.decode_response(
            reply.body, messages.json_size(reply.headers.get(messages.JSON_SIZE.lower()))
        )
        check_outputs(wanted, outputs)
        return Answer(outputs, _exchange(reply, message.nbytes, cut.cloud_s))

    def probe(self, *, deadline_s: float) -> Iterator[ObservedExchange]:
        """Send little, for the round trip, then more, for the rates, where the server takes part.

        Raises:
            ServerRefused, ProtocolError, TransportError, DeadlineExceeded: as of `infer`.
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
        elif reply.status not in (_NOT_FOUND, _BAD_METHOD):  # other servers do not know it
            raise refusal(reply)


def _rounded_up(seconds: float) -> float:
    """To two digits: so precisely nobody needs to know, and what was said before need not be worked out again."""
    if not 0 < seconds < math.inf:
        return seconds
    unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit


def refusal(reply: Reply) -> ServerRefused:
    """The error that *reply* is, in the server's words if they are JSON."""
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
    return _number(reply.headers.get(PRICE, ""))


def server_times(header: str) -> dict[str, float]:
    """Seconds by name from a Server-Timing header (W3C); what makes no sense in it is left out."""
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
    """A finite number from zero on, or None: nothing else is believed."""
    try:
        value = float(text.strip().strip('"'))
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
