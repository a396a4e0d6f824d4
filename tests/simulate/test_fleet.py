"""A fleet that makes no sense is refused with one sentence that says where."""

from pathlib import Path

import pytest

from splitc.bundle.folder import Bundle
from splitc.common.errors import BundleError, NoFeasibleCut, TargetError
from splitc.simulate.fleet import read_fleet
from splitc.simulate.policies import policy
from splitc.simulate.scenario import match, usual_cases
from splitc.simulate.workload import expected_jobs
from tests import manifests
from tests.simulate.scenarios import CLASS, FLEET, ONLY_CLOUD, changed, named, scenario

CLOUD = "[cloud]\nmachines = 2\n"
ONE = '[[classes]]\nname = "phone"\ncount = 3\nrate_per_s = 1\nnetworks = { lte = 1 }\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_fleet_is_read_with_its_defaults(tmp_path: Path) -> None:
    fleet = read_fleet(write(tmp_path, f"horizon_s = 10\n{CLOUD}{ONE}"))
    assert (fleet.knowledge, fleet.seed, fleet.cloud.max_queue) == ("estimated", 0, 64)
    assert fleet.classes[0].target == "phone"
    assert fleet.classes[0].slowdown.typical == 1.0


def test_files_beside_the_fleet_are_found(tmp_path: Path) -> None:
    trace = 'traces = { bus = { uplink = "a.up", downlink = "a.down", rtt_s = { typical = 0.1 } } }\n'
    networks = ONE.replace("lte", 'bus = 1, "own.toml"')
    fleet = read_fleet(write(tmp_path, f"horizon_s = 10\n{trace}{CLOUD}{networks}"))
    assert fleet.traces["bus"].uplink == str(tmp_path / "a.up")
    assert list(fleet.classes[0].networks) == ["bus", str(tmp_path / "own.toml")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{CLOUD}{ONE}", "key 'horizon_s' is missing"),
        (f"horizon_s = 0\n{CLOUD}{ONE}", "horizon_s must be above zero, found 0"),
        (f"horizon_s = 9\nclasses = []\n{CLOUD}", "there must be at least one class"),
        (f"horizon_s = 9\n{CLOUD}{ONE}{ONE}", "two classes are called 'phone'"),
        (f"horizon_s = 9\n{CLOUD}{ONE}cuont = 1\n", "unknown key 'cuont', did you mean 'count'?"),
        (f"horizon_s = 9\n{CLOUD}{ONE}jitter = -1\n", "classes[0]: jitter must not be below zero"),
        (f"horizon_s = 9\n{CLOUD}{ONE}sla_s = 0\n", "sla_s must be above zero"),
        (
            f"horizon_s = 9\n{CLOUD}{ONE}slowdown = {{ typical = 1, low = 2 }}\n",
            "classes[0].slowdown: low, typ",
        ),
        (
            f"horizon_s = 9\n{CLOUD}{ONE.replace('lte = 1', 'lte = 0')}",
            "shares of networks must be above zero",
        ),
        (f"horizon_s = 9\n{CLOUD}{ONE.replace('lte = 1', '')}", "networks must name at least one"),
        (f"horizon_s = 9\n{CLOUD}max_batch = 8\n{ONE}", "cloud: max_batch above 1 needs batch"),
        (f"horizon_s = 9\n{CLOUD}batch = [[4, 5.0]]\n{ONE}", "batch must rise in sizes and times"),
        (f"horizon_s = 9\n{CLOUD}utilisation = 1.0\n{ONE}", "utilisation must be above 0 and below 1"),
        (
            f"horizon_s = 9\n{CLOUD}down = [{{ from_s = 1, to_s = 2, machines = 3 }}]\n{ONE}",
            "3 machines are, but there",
        ),
        (
            f"horizon_s = 9\n{CLOUD}down = [{{ from_s = 1, to_s = 3 }}, {{ from_s = 2, to_s = 4 }}]\n{ONE}",
            "the times in down must not overlap",
        ),
        (
            f"horizon_s = 9\nphases = [{{ from_s = 2, to_s = 1, factor = 1 }}]\n{CLOUD}{ONE}",
            "must lie before",
        ),
        (f'horizon_s = 9\nknowledge = "some"\n{CLOUD}{ONE}', "expected one of 'estimated', 'true'"),
    ],
    ids=lambda value: "" if value.startswith(("horizon", "[")) else value[:30],
)
def test_what_is_wrong_is_said(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"^fleet\.toml: ") as caught:
        read_fleet(write(tmp_path, text))
    assert words in str(caught.value)


def test_a_missing_file_and_network_are_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot read the fleet description"):
        read_fleet(tmp_path / "none.toml")
    with pytest.raises(TargetError, match="unknown network '6g'"):
        scenario(changed(classes={"networks": {"6g": 1.0}}))


def test_each_class_finds_its_bundle() -> None:
    of = scenario()
    assert of.manifests[0].targets.device.name == "there"
    with pytest.raises(BundleError, match="needs a bundle for 'there'"):
        match(FLEET, [])


def test_several_models_need_a_choice(tmp_path: Path) -> None:
    bundles = [Bundle(tmp_path / name, manifests.manifest()) for name in "ab"]
    with pytest.raises(BundleError, match="set the key 'model' of the class 'there'"):
        match(FLEET, bundles)
    assert match(changed(classes={"model": "tiny"}), bundles[:1]) == (bundles[0],)
    with pytest.raises(BundleError, match="needs a bundle of huge for 'there'"):
        match(changed(classes={"model": "huge"}), bundles)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("all-device", "needs an all-head cut, which the bundle of tiny for there lacks"),
        ("fixed:c9", "needs a cut that the bundle of tiny for there lacks; it has c0, c1"),
        ("least-cloud:much", "needs a share of the target above zero, as in least-cloud:0.9, not 'much'"),
        ("least-cloud:-1", "needs a share of the target above zero"),
        ("least-clod", "no policy is called 'least-clod', did you mean 'least-cloud'?"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(name: str, words: str) -> None:
    with pytest.raises(NoFeasibleCut) as caught:
        policy(name, usual_cases(scenario(cuts=ONLY_CLOUD)))
    assert words in str(caught.value)


def test_fixed_takes_what_is_best_where_most_are() -> None:
    of = scenario(changed(classes={"networks": {"3g": 1.0}}))
    cases = usual_cases(of)
    assert named("fixed", of).choose(of.manifests[0], cases[0].conditions, None).cut.id == "c0"
    of = scenario(changed(classes={"networks": {"ethernet": 1.0}}))
    cases = usual_cases(of)
    assert named("fixed", of).choose(of.manifests[0], cases[0].conditions, None).cut.id != "c0"
    assert CLASS.target == "there"


@pytest.mark.parametrize(("name", "jobs"), [("fleet", 100_000), ("fleet-diffusion", 17_280)])
def test_the_examples_of_the_documentation_are_fleets(name: str, jobs: int) -> None:
    fleet = read_fleet(Path(__file__).parents[2] / "docs" / f"{name}.toml")
    assert expected_jobs(fleet) == pytest.approx(jobs)
