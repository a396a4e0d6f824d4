"""Fleets and scenarios made up for tests: small, and with times that are easy to reckon with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry
from splitc.simulate.fleet import CloudEntry, DeviceClass, Fleet
from splitc.simulate.links import load_links
from splitc.simulate.policies import Policy, policy
from splitc.simulate.scenario import Scenario, described_curves, match, usual_cases
from tests import manifests

CLASS = DeviceClass("there", 20, 0.5, {"wifi": 0.5, "lte": 0.5}, sla_s=0.2)
FLEET = Fleet(horizon_s=60, cloud=CloudEntry(machines=1), classes=(CLASS,), knowledge="true")
ONLY_CLOUD = (
    manifests.cut("c0", head_s=0.02, tail_s=0.01, up=1000, down=40, weights=400),
    manifests.cut("c1", tail_s=0.02, up=100_000, down=40),
)


def scenario(fleet: Fleet = FLEET, cuts: Sequence[CutEntry] = manifests.CUTS) -> Scenario:
    """Every class runs the same made-up model."""
    whole = manifests.manifest(cuts)
    devices = sorted({item.target for item in fleet.classes})
    bundles = []
    for name in devices:
        head = replace(whole.targets.device, name=name)
        own = replace(whole, targets=replace(whole.targets, device=head))
        bundles.append(Bundle(Path(name), own))
    used = match(fleet, bundles)
    curves = described_curves(fleet.cloud, bundles)
    return Scenario(fleet, tuple(item.manifest for item in used), load_links(fleet), curves)


def changed(
    *, cloud: dict[str, Any] | None = None, classes: dict[str, Any] | None = None, **fleet: Any
) -> Fleet:
    """`FLEET` with other values."""
    return replace(
        FLEET,
        cloud=replace(FLEET.cloud, **(cloud or {})),
        classes=(replace(CLASS, **(classes or {})),),
        **fleet,
    )


def named(name: str, of: Scenario) -> Policy:
    """A policy by its name."""
    return policy(name, usual_cases(of))
