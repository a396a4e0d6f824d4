"""The class that an app uses: run a model on the device, in the cloud or on both, whichever is best at the moment."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import random
from types import TracebackType
from typing import Literal, Self

from splitc.bundle.decide import Conditions, Decision, aim, decide, latency_s, middle_of
from splitc.bundle.folder import Bundle, check_custom_ops, read_bundle
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.bundle.price import personal
from splitc.common.custom_ops import find_custom_ops
from splitc.common.errors import BundleError, RuntimeFailure
from splitc.common.ort import use_custom_ops, used_custom_ops
from splitc.common.values import Value
from splitc.runtime.client import Client
from splitc.runtime.cloud import Cloud
from splitc.runtime.device_parts import DeviceParts
from splitc.runtime.estimate.breaker import Breaker
from splitc.runtime.estimate.estimator import Estimator, ObservedExchange
from splitc.runtime.estimate.patience import also_sent
from splitc.runtime.estimate.probing import link_matters
from splitc.runtime.estimate.server_state import ServerState
from splitc.runtime.http.transport import DEFAULT_MAX_REPLY_BYTES, HttpTransport, Transport
from splitc.runtime.pair import Done, HeadFailed, Pair
from splitc.runtime.tensor_checks import checked_inputs
from splitc.runtime.unpack import unpacked

# An answer may be this many times as large as the manifest says: a number in JSON takes about 20 bytes, and for
# symbolic dimensions the manifest gives the sizes of one example only.
_LARGER = 16
_SMALL_BYTES = 1 << 20  # always allowed, for what surrounds the tensors
# While the best cut is being opened, one that is open already is used if it takes at most this many times as long.
_GOOD_ENOUGH = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one request.

    Attributes:
        outputs: all outputs of the model, by name.
        decision: the chosen cut, its predicted latency, and the reason for the choice.
        finished: the machine that computed the outputs.
        latency_s: seconds that the request took.
        device_s: seconds that the device's part of the chosen cut took; None if it has none or did not run it.
        exchange: sizes and times of the exchange with the server; None if the device computed everything.
        fallback: why another machine or cut than the chosen one computed the outputs; None if none did.
    """

    outputs: dict[str, Value]
    decision: Decision
    finished: Literal["cloud", "device"]
    latency_s: float
    device_s: float | None
    exchange: ObservedExchange | None
    fallback: str | None

    @property
    def cut(self) -> str:
        """The id of the chosen cut."""
        return self.decision.cut.id


class Session:
    """Runs the model of a bundle. Several threads may share a session, and forked processes may continue to use it.

    Args:
        bundle: folder of the bundle, or a .zip file of it.
        server: URL of the server that runs the tails; None: the device runs the whole model.
        token: the bearer token that the server asks for.
        ca_file: PEM file of the certificate authorities to trust instead of the system's.
        threads: number of threads of a head; None: as in the manifest, at most the number of usable cores.
        start: conditions to assume before anything is measured; None: the middle of the bundle's box.
        transport: used instead of HTTP to *server*.
        sla_s: target latency in seconds, to be met with the least work in the cloud; a request may set its own.
        deadline_s: seconds after which a result is useless; a request may set its own.
        cut: id of a cut to use for every request, instead of choosing one.
        cache_folder: where a .zip file is unpacked; None: in the user's cache folder.
        custom_ops: libraries of custom operators that the model needs, loaded into this process for all of its
            sessions: paths, or "onnxruntime-extensions".

    Raises:
        InputError, ModelError: a library of *custom_ops* cannot be found or loaded.
        BundleError: the bundle cannot be read, has no cut *cut*, or cannot run without a server.
        TransportError: *server*, *token* or *ca_file* is not valid.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        server: str | None = None,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        start: Conditions | None = None,
        transport: Transport | None = None,
        sla_s: float | None = None,
        deadline_s: float | None = None,
        cut: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        custom_ops: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        use_custom_ops(find_custom_ops(str(os.fspath(item)) for item in custom_ops))
        found = _read(Path(bundle), Path(cache_folder) if cache_folder is not None else None)
        check_custom_ops(found, used_custom_ops(), "custom_ops=")
        self.manifest: Manifest = found.manifest
        self._sla_s, self._deadline_s = sla_s, deadline_s
        self._cut = _named(found, cut) if cut is not None else None
        all_head = next((item for item in self.manifest.cuts if item.kind == "all-head"), None)
        if server is not None and transport is None:
            transport = HttpTransport(
                server, token=token, ca_file=ca_file, max_reply_bytes=_max_reply_bytes(self.manifest)
            )
        if transport is None and all_head is None:
            raise BundleError(f"{bundle}: no cut of this bundle runs without a server; give the URL of one")
        self._transport = transport
        self._closed = False
        estimator = Estimator(start if start is not None else middle_of(self.manifest.box))
        client = Client(found, transport) if transport is not None else None
        self._pair = Pair(
            DeviceParts(found, threads=threads),
            Cloud(client, ServerState(estimator, Breaker(), time.monotonic())),
            all_head,
            self.manifest.model.outputs,
            hedges=cut is None,
        )
        self._preload()

    def conditions(self) -> Conditions:
        """Return the current estimates of the link, the server and this device."""
        return self._here().cloud.conditions()

    def run(
        self, inputs: Mapping[str, Value], *, sla_s: float | None = None, deadline_s: float | None = None
    ) -> dict[str, Value]:
        """Run the model on *inputs* and return its outputs by name; see `request`."""
        return self.request(inputs, sla_s=sla_s, deadline_s=deadline_s).outputs

    def request(
        self, inputs: Mapping[str, Value], *, sla_s: float | None = None, deadline_s: float | None = None
    ) -> Outcome:
        """Run the model on *inputs* and tell how.

        Whatever the server does, the device finishes in time; if it alone takes longer than *deadline_s*, it
        begins when that has passed at the latest. If the device's part of the chosen cut fails, another cut is used,
        and the failing one is not chosen again.

        Raises:
            InputError: an input is missing, unknown, or of a wrong type or shape.
            DeadlineExceeded, TransportError, ProtocolError, ServerRefused: the cloud did not do its part,
                and the bundle holds no all-head cut with which the device could.
            ModelError: ONNX Runtime cannot run the model on these inputs, or no cut works on this device.
            BundleError: files were changed after the session was opened, and no cut works without them.
        """
        began_s = time.monotonic()
        if self._closed:
            raise RuntimeFailure("the session is closed; open another one")
        given = checked_inputs(self.manifest.model.inputs, inputs)
        allowed_s = self._deadline_s if deadline_s is None else deadline_s
        pair = self._here()
        decision = self._decide(pair, self._sla_s if sla_s is None else sla_s)
        is_alone = self._cut is None and decision.cut.cloud is None
        pair.cloud.look(idle=is_alone and link_matters(self.manifest, decision.conditions))
        ran, done = self._run(pair, decision, given, None if allowed_s is None else began_s + allowed_s)
        return Outcome(
            outputs={entry.name: done.values[entry.name] for entry in self.manifest.model.outputs},
            decision=decision,
            finished="device" if done.exchange is None or ran.is_cloud_first else "cloud",
            latency_s=time.monotonic() - began_s,
            device_s=done.device_s,
            exchange=done.exchange,
            fallback=done.fallback,
        )

    def close(self) -> None:
        """Close all connections and end all background work. Closing again does nothing."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()
        pair = self._here()
        pair.cloud.close()
        pair.parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _here(self) -> Pair:
        """Return the pair of this process, a new one after a fork."""
        if self._pair.process != os.getpid():
            self._pair = self._pair.inherit()
        return self._pair

    def _run(
        self, pair: Pair, decision: Decision, inputs: dict[str, Value], until_s: float | None
    ) -> tuple[CutEntry, Done]:
        """Run the chosen cut, or another one if its part on the device fails; return the cut as well.

        Inputs may be the cause of a failed run. So a cut is excluded for that only if another one can run them,
        and two failed runs are enough to tell.

        Raises:
            RuntimeFailure, ModelError, BundleError: see `request`.
        """
        failures: list[HeadFailed] = []
        known = pair.excluded.get(decision.cut.id)
        for attempt in self._attempts(pair, decision):
            try:
                done = pair.run(attempt, inputs, until_s)
            except HeadFailed as failure:
                failures.append(failure)
                if sum(item.cut.id not in pair.excluded for item in failures) > 1:
                    break
            except RuntimeFailure:
                if not failures:
                    raise
            else:
                if attempt.cut is decision.cut and not failures:
                    return attempt.cut, done
                pair.excluded.update({failure.cut.id: str(failure) for failure in failures})
                reasons = [known, *map(str, failures), done.fallback]
                failures.clear()  # errors refer to this frame, and the cycle would keep tensors
                fallback = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
                return attempt.cut, replace(done, device_s=None, fallback=fallback)
        try:
            raise failures[0].error
        finally:
            failures.clear()  # errors refer to this frame, and the cycle would keep tensors

    def _attempts(self, pair: Pair, decision: Decision) -> Iterator[Decision]:
        """Yield the chosen cut, then those that can replace it, the simplest first."""
        is_excluded = decision.cut.id in pair.excluded
        if not is_excluded:
            yield decision
        others = [cut for cut in self.manifest.cuts if cut is not decision.cut]
        if self._transport is None:
            others = [cut for cut in others if cut.cloud is None]
        whole = [cut for cut in others if cut.kind != "split"]
        for cut in whole or others:
            if cut.id not in pair.excluded:
                conditions = self._conditions(pair)
                yield Decision(
                    cut, latency_s(cut, conditions), conditions, f"{decision.cut.id} fails on the device"
                )
        if is_excluded:
            yield decision

    def _decide(self, pair: Pair, sla_s: float | None) -> Decision:
        """Choose the best cut, or one that is good enough while the files of the best one are being opened."""
        conditions = self._conditions(pair)
        if self._cut is not None:
            return Decision(self._cut, latency_s(self._cut, conditions), conditions, "asked for")
        cuts = tuple(cut for cut in self.manifest.cuts if cut.id not in pair.excluded) or self.manifest.cuts
        unknown = pair.cloud.unknown()
        cuts = tuple(cut for cut in cuts if cut.id not in unknown) or cuts
        best = aim(cuts, conditions, sla_s)
        if not pair.cloud.is_steady():
            best = also_sent(cuts, best, sla_s)
        chosen = self._ready(pair, cuts, best, sla_s)
        if not pair.excluded:
            return chosen
        without = ", ".join(pair.excluded)
        return replace(chosen, reason=f"{chosen.reason}; without {without}, which failed on the device")

    @staticmethod
    def _ready(pair: Pair, cuts: tuple[CutEntry, ...], best: Decision, sla_s: float | None) -> Decision:
        """The *best* decision; another one that is good enough while the files of the best are being opened."""
        if pair.parts.is_ready(best.cut):
            return best
        pair.parts.preload(best.cut)
        ready = tuple(cut for cut in cuts if pair.parts.is_ready(cut))
        if not ready:
            return best
        second = aim(ready, best.conditions, sla_s)
        if second.latency_s > _GOOD_ENOUGH * best.latency_s:
            return best
        return replace(second, reason=f"{second.reason} while {best.cut.id} is opened")

    def _conditions(self, pair: Pair) -> Conditions:
        """Return the conditions to decide by: without a link while the server is avoided and an all-head cut exists."""
        found = pair.cloud.conditions()
        if found.price:
            found = replace(found, price=personal(found.price, random()))  # noqa: S311 - no secret
        if pair.all_head is None or pair.cloud.is_usable():
            return found
        return replace(found, uplink_bps=0.0)

    def _preload(self) -> None:
        """Open the cut that the first request will probably use, then the all-head cut as the fallback."""
        parts, all_head = self._pair.parts, self._pair.all_head
        likely = (
            self._cut if self._cut is not None else decide(self.manifest, self._conditions(self._pair)).cut
        )
        parts.preload(*(cut for cut in (likely, all_head) if cut is not None))


def _read(path: Path, cache_folder: Path | None) -> Bundle:
    found = unpacked(path, cache_folder) if path.is_file() else read_bundle(path)
    if found.manifest.side == "cloud":
        raise BundleError(f"{path}: was packed for the cloud; give the bundle that was packed for the device")
    return found


def _named(bundle: Bundle, name: str) -> CutEntry:
    cuts = bundle.manifest.cuts
    for cut in cuts:
        if cut.id == name:
            return cut
    raise BundleError(
        f"{bundle.folder}: there is no cut '{name}'; choose one of {', '.join(cut.id for cut in cuts)}"
    )


def _max_reply_bytes(manifest: Manifest) -> int:
    """Return the largest size of an answer that the device accepts."""
    known = all(isinstance(dim, int) for entry in manifest.model.outputs for dim in entry.shape)
    sized = all(entry.bytes is not None for entry in manifest.model.outputs)
    least = _SMALL_BYTES if known and sized else DEFAULT_MAX_REPLY_BYTES
    return max(least, _LARGER * max(cut.downlink_bytes for cut in manifest.cuts))
