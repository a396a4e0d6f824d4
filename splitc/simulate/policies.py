"""How devices choose: pure functions of manifest, conditions and target latency, all through `splitc.bundle.decide`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from splitc.bundle.decide import Conditions, Decision, aim, choose, decide, latency_s
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.common.errors import NoFeasibleCut
from splitc.common.records import did_you_mean

Choose = Callable[[Manifest, Conditions, float | None], Decision]
"""(what there is to choose from, what is believed, the latency to meet) -> the choice."""

_FIXED, _AIMING = "fixed", "least-cloud"


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule that all devices follow.

    Attributes:
        is_free: whether the device's estimates can change its choice; if not, probes are useless.
    """

    name: str
    choose: Choose
    is_free: bool = True


def least_cloud(manifest: Manifest, conditions: Conditions, sla_s: float | None) -> Decision:
    """Choose the least cloud work that meets a share of the target; if no cut does, the price decides.

    What `splitc.Session` does, after Xu and Zhang, arXiv 2402.04880.
    """
    return aim(manifest.cuts, conditions, sla_s)


def latency(manifest: Manifest, conditions: Conditions, sla_s: float | None) -> Decision:  # noqa: ARG001 - all alike
    """Choose the lowest latency, without regard to other devices (Kang et al., Neurosurgeon, ASPLOS 2017)."""
    return decide(manifest, replace(conditions, price=0.0))


def price(manifest: Manifest, conditions: Conditions, sla_s: float | None) -> Decision:  # noqa: ARG001 - all alike
    """Choose the lowest latency + price x cloud time."""
    return decide(manifest, conditions)


def aiming(share: float) -> Choose:
    """The same as `least_cloud`, for another share of the target."""

    def chosen(manifest: Manifest, conditions: Conditions, sla_s: float | None) -> Decision:
        if sla_s is not None:
            found = choose(manifest.cuts, conditions, share * sla_s)
            if found.latency_s <= share * sla_s:
                return found
        return choose(manifest.cuts, conditions, sla_s)

    return chosen


_NAMED: Mapping[str, Choose] = {"least-cloud": least_cloud, "latency": latency, "price": price}
_ALONE = {"all-cloud": "all-tail", "all-device": "all-head"}
POLICIES = (*_NAMED, *_ALONE, _FIXED)
"""Names of all policies; fixed may be followed by a cut, least-cloud by a share: fixed:c1, least-cloud:0.9."""


@dataclass(frozen=True, slots=True)
class Case:
    """The typical conditions where a manifest is used, and the number of jobs that they represent."""

    manifest: Manifest
    conditions: Conditions
    jobs: float


def policy(name: str, cases: Sequence[Case]) -> Policy:
    """The policy called *name*, for all manifests of *cases*.

    `fixed` without a cut takes the one with the least total latency over the cases, for each manifest.

    Raises:
        NoFeasibleCut: there is no such policy, or a bundle lacks the cut that it needs.
    """
    if name in _NAMED:
        return Policy(name, _NAMED[name])
    kind, colon, detail = name.partition(":")
    if colon and kind == _AIMING:
        return Policy(name, aiming(_share(detail, name)))
    manifests = {key_of(case.manifest): case.manifest for case in cases}
    cut = detail if colon and kind == _FIXED else None
    if name in _ALONE:
        chosen = {key: _of_kind(manifest, _ALONE[name], name) for key, manifest in manifests.items()}
    elif cut is not None:
        chosen = {key: _called(manifest, cut, name) for key, manifest in manifests.items()}
    elif name == _FIXED:
        chosen = {key: _best([case for case in cases if key_of(case.manifest) == key]) for key in manifests}
    else:
        hint = did_you_mean(name, POLICIES) or ";"
        raise NoFeasibleCut(f"no policy is called '{name}'{hint} choose one of {', '.join(POLICIES)}")
    return Policy(
        name, lambda manifest, conditions, _: _always(chosen[key_of(manifest)], conditions), is_free=False
    )


def key_of(manifest: Manifest) -> tuple[str, str]:
    """The identity of a manifest: the model and its device."""
    return (manifest.model.sha256, manifest.targets.device.name)


def _share(text: str, name: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise NoFeasibleCut(
            f"the policy '{name}' needs a share of the target above zero, as in {_AIMING}:0.9, not '{text}'"
        )
    return share


def _always(cut: CutEntry, conditions: Conditions) -> Decision:
    return Decision(cut, latency_s(cut, conditions), conditions, "always")


def _of_kind(manifest: Manifest, kind: str, name: str) -> CutEntry:
    for cut in manifest.cuts:
        if cut.kind == kind:
            return cut
    raise NoFeasibleCut(
        f"the policy '{name}' needs an {kind} cut, which the bundle of {manifest.model.name} for "
        f"{manifest.targets.device.name} lacks; leave the policy out"
    )


def _called(manifest: Manifest, wanted: str, name: str) -> CutEntry:
    for cut in manifest.cuts:
        if cut.id == wanted:
            return cut
    known = ", ".join(cut.id for cut in manifest.cuts)
    raise NoFeasibleCut(
        f"the policy '{name}' needs a cut that the bundle of {manifest.model.name} for "
        f"{manifest.targets.device.name} lacks; it has {known}"
    )


def _best(cases: Sequence[Case]) -> CutEntry:
    return min(
        cases[0].manifest.cuts,
        key=lambda cut: math.fsum(case.jobs * latency_s(cut, case.conditions) for case in cases),
    )
