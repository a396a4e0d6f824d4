"""What `splitc run` prints."""

import math
from dataclasses import dataclass
from typing import Literal

from splitc.bundle.decide import Conditions
from splitc.runtime.session import Outcome


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """One request.

    Attributes:
        cut: the id of the chosen cut.
        reason: why it was chosen, in words.
        predicted_s: the latency that was predicted; null where there was no link.
        finished: where the outputs were made.
        fallback: why the device did the work of the cloud, in words; null if it did not have to.
        conditions: what the scheduler knew when it decided.
    """

    cut: str
    reason: str
    predicted_s: float | None
    latency_s: float
    finished: Literal["cloud", "device"]
    fallback: str | None
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All requests, in turn.

    Attributes:
        conditions: what is known of the link, the server and the device after the last request.
    """

    requests: tuple[RequestFacts, ...]
    conditions: Conditions


def request_facts(outcome: Outcome) -> RequestFacts:
    """Everything that `splitc run` tells of a request."""
    decision = outcome.decision
    return RequestFacts(
        cut=decision.cut.id,
        reason=decision.reason,
        predicted_s=decision.latency_s if math.isfinite(decision.latency_s) else None,
        latency_s=outcome.latency_s,
        finished=outcome.finished,
        fallback=outcome.fallback,
        conditions=decision.conditions,
    )
