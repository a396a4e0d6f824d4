"""The device of `splitc demo`: a program that runs a bundle request by request, as an app would.

Prints one JSON line when it is ready, and one for each request.
"""

import json
import sys
import time
from pathlib import Path

from splitc.common.values import Input, random_feeds
from splitc.runtime.session import Outcome, Session


def main() -> None:
    """Run the bundle ARGV[1] against the server ARGV[2] for ARGV[3] seconds."""
    bundle, server, seconds = sys.argv[1:]
    with Session(Path(bundle), server=server, threads=1) as session:
        model = session.manifest.model
        inputs = [Input(item.name, item.dtype, item.shape) for item in model.inputs]
        feeds = random_feeds(inputs, model.dims, 0)
        session.run(feeds)
        _print({"ready": True})
        end_s = time.monotonic() + float(seconds)
        while time.monotonic() < end_s:
            _print(_facts(session.request(feeds)))


def _facts(outcome: Outcome) -> dict[str, object]:
    conditions = outcome.decision.conditions
    return {
        "cut": outcome.decision.cut.id,
        "kind": outcome.decision.cut.kind,
        "predicted_s": outcome.decision.latency_s,
        "latency_s": outcome.latency_s,
        "finished": outcome.finished,
        "fallback": outcome.fallback,
        "uplink_bps": conditions.uplink_bps,
        "rtt_s": conditions.rtt_s,
        "device_slowdown": conditions.device_slowdown,
    }


def _print(value: object) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - this is the program's output


if __name__ == "__main__":
    main()
