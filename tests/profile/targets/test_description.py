"""Shipped descriptions load and say where their numbers come from; mistakes give one sentence."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitc.common.errors import TargetError
from splitc.common.resources import shipped
from splitc.profile.targets.check import check_description
from splitc.profile.targets.description import (
    Cluster,
    Descriptor,
    Network,
    coefficients_paths,
    load_network,
    load_target,
    network_names,
    own_folder,
    target_names,
    target_paths,
)
from splitc.profile.targets.quantity import Quantity

ROOT = Path(__file__).resolve().parents[3]
TRACES = ROOT.parent / "shared" / "traces"
PHONES = {"pixel6", "pixel7", "pixel8", "pixel9", "galaxy-s21", "galaxy-s22", "galaxy-s23", "galaxy-s24"}
PHONES |= {"iphone13", "iphone15", "snapdragon-695", "helio-g85"}
BOARDS = {"raspberrypi4", "raspberrypi5", "rk3588", "jetson-orin-nano", "laptop-i7-11800h"}
CLOUD = {"local", "aws-c5-4xlarge", "azure-d64s-v6", "azure-d64as-v7", "azure-d64ps-v6"}
GPUS = {"t4", "l4", "a10g", "a100", "h100", "h200"}
NETWORKS = {"wifi", "ethernet", "5g", "lte", "3g"}

FORMULA = re.compile(r"^(\d+) fp32 lanes x (?:(\d+) pipes? x )?clock")
FILES = sorted(shipped("targets").glob("*.toml")) + sorted(shipped("targets").glob("networks/*.toml"))

NETWORK = """
name = "lab"
description = "a cable"
[uplink_bps]
typical = 1e6
source = "measured here"
confidence = "measured"
[downlink_bps]
typical = 2e6
low = 1e6
high = 3e6
source = "measured here"
confidence = "measured"
[rtt_s]
typical = 0.01
source = "measured here"
confidence = "measured"
"""


@pytest.fixture(autouse=True)
def _no_own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests may have targets of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(folder: Path, text: str, name: str = "lab") -> Path:
    path = folder / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def pixel7() -> str:
    return (shipped("targets") / "pixel7.toml").read_text(encoding="utf-8")


def tables(value: object) -> Iterator[dict[str, object]]:
    """Yield every table inside *value*, itself included."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tables(item)


def descriptors() -> list[tuple[str, Descriptor]]:
    found = [(path.stem, load_target(path).descriptor) for path in FILES if path.parent.name == "targets"]
    return [(name, descriptor) for name, descriptor in found if descriptor is not None]


def clusters() -> Iterator[tuple[str, Cluster]]:
    for name, descriptor in descriptors():
        for cluster in descriptor.clusters:
            yield f"{name}-{cluster.core}", cluster


def test_the_expected_ones_are_shipped() -> None:
    """What the documentation promises is there."""
    assert set(target_names()) == PHONES | BOARDS | CLOUD | GPUS
    assert set(network_names()) == NETWORKS
    assert list(target_names()) == sorted(target_names())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_description_passes_the_check_for_new_ones(path: Path) -> None:
    """It loads, it is called as its file, its coefficients exist, its numbers are plausible and agree.

    Only of Apple's cores too little is published to say how near a runtime comes to their peak.
    """
    checked = check_description(path)
    warnings = [
        line
        for line in checked.warnings
        if not re.search("core 'Apple .* is not in these coefficients", line)
    ]
    assert (checked.mistakes, warnings) == ((), [])
    assert isinstance(checked.described, Network) is (path.parent.name == "networks")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_has_a_source(path: Path) -> None:
    """Numbers stand beside a source and a confidence; only counts of cores and threads need none."""
    for table in tables(tomllib.loads(path.read_text(encoding="utf-8"))):
        numbers = {key for key, value in table.items() if isinstance(value, int | float)}
        if numbers - {"cores", "threads"}:
            assert len(str(table["source"]).strip()) > 8
            assert table["confidence"]
        if table.get("confidence") == "recalled":
            assert "recalled from " in str(table["source"])


@pytest.mark.parametrize(("name", "cluster"), [pytest.param(*item, id=item[0]) for item in clusters()])
def test_a_peak_is_lanes_times_pipes_times_clock(name: str, cluster: Cluster) -> None:
    """Every shipped peak says its formula, and keeps it."""
    formula = FORMULA.match(cluster.peak_macs_per_s.source)
    assert formula is not None, name
    assert cluster.clock_hz is not None, name
    derived = int(formula[1]) * int(formula[2] or 1) * cluster.clock_hz.value
    assert cluster.peak_macs_per_s.value == pytest.approx(derived, rel=1e-3)


@pytest.mark.parametrize(("name", "descriptor"), [pytest.param(*item, id=item[0]) for item in descriptors()])
def test_memory_and_arithmetic_are_of_one_machine(name: str, descriptor: Descriptor) -> None:
    """A unit that slipped by a thousand would show here: macs and bytes per second are of like size."""
    target = load_target(name)
    macs = sum(cluster.cores * cluster.peak_macs_per_s.value for cluster in descriptor.clusters)
    assert 1 < macs / descriptor.memory_bytes_per_s.value < 60
    assert 1e10 < descriptor.memory_bytes_per_s.value < 1e13
    assert descriptor.memory_bytes is None or 2e9 <= descriptor.memory_bytes.value < 1e12
    assert target.threads is not None
    assert target.threads <= sum(cluster.cores for cluster in descriptor.clusters)
    assert (target.provider == "CUDAExecutionProvider") is (name in GPUS)
    assert target.kind == ("device" if name in PHONES | BOARDS else "cloud")


def test_this_machine_needs_no_descriptor() -> None:
    """The machine at hand is measured."""
    local = load_target("local")
    assert (local.machine, local.descriptor, local.threads, local.kind) == ("this", None, None, "cloud")


@pytest.mark.parametrize("name", sorted(PHONES))
def test_a_phone_says_what_its_prediction_leaves_out(name: str) -> None:
    """Phones are slower in an app than in a benchmark, so a prediction for one has a caveat."""
    descriptor = load_target(name).descriptor
    assert descriptor is not None
    assert "slower" in str(descriptor.caveat)


def test_a_path_is_loaded_as_a_file(tmp_path: Path) -> None:
    """A description of one's own needs no installation."""
    network = load_network(write(tmp_path, NETWORK))
    assert (network.name, network.uplink_bps.typical, network.downlink_bps.high) == ("lab", 1e6, 3e6)
    assert network.uplink_j_per_byte is None


def test_ones_own_folder_is_searched_first() -> None:
    """A file in the user's folder is found by name, and takes the place of a shipped one."""
    own = write(own_folder(), pixel7().replace("Google Pixel 7", "my phone"), "pixel7")
    other = write(own_folder(), pixel7().replace('"pixel7"', '"other"'), "other")
    link = write(own_folder() / "networks", NETWORK)
    fitted = write(own_folder() / "coefficients", "", "mine")
    assert target_paths()["pixel7"] == own
    assert target_paths()["other"] == other
    assert load_target("pixel7").description.startswith("my phone")
    assert load_target("other").name == "other"
    assert load_network("lab").uplink_bps.typical == 1e6
    assert coefficients_paths()["mine"] == fitted
    assert "lab" not in target_names()
    link.unlink()
    assert "lab" not in network_names()


def test_where_no_range_is_known_the_typical_value_stands() -> None:
    """A spread without percentiles is a point."""
    uplink = load_network("wifi").uplink_bps
    assert uplink.low is None
    assert uplink.lowest == uplink.typical == uplink.highest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("rtt_s", "rrt_s", "lab.toml: unknown key 'rrt_s', did you mean 'rtt_s'?", id="misspelt"),
        pytest.param(
            "typical = 1e6",
            'typical = "1e6"',
            "lab.toml: uplink_bps.typical: expected a number, found '1e6'",
            id="type",
        ),
        pytest.param(
            "typical = 1e6",
            "typical = -1e6",
            "lab.toml: uplink_bps: typical must be above zero, found -1e+06",
            id="negative",
        ),
        pytest.param(
            "typical = 1e6",
            "typical = nan",
            "lab.toml: uplink_bps.typical: expected a finite number, found nan",
            id="nan",
        ),
        pytest.param("typical = 1e6", "", "lab.toml: uplink_bps: key 'typical' is missing", id="missing"),
        pytest.param(
            "low = 1e6",
            "low = 2.5e6",
            "lab.toml: downlink_bps: low, typical and high must be in ascending order",
            id="order",
        ),
        pytest.param(
            '"measured here"',
            '" "',
            "lab.toml: uplink_bps: source must say where the number comes from",
            id="source",
        ),
        pytest.param(
            '"measured"',
            '"guess"',
            "lab.toml: uplink_bps.confidence: expected one of 'measured', 'vendor', 'published', 'derived', 'fitted', "
            "'recalled', found 'guess'",
            id="confidence",
        ),
    ],
)
def test_a_mistake_gives_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The message is the file, the key, and what is wrong with it."""
    with pytest.raises(TargetError) as caught:
        load_network(write(tmp_path, NETWORK.replace(old, new, 1)))
    assert str(caught.value) == message


def test_several_mistakes_give_one_sentence_and_where_the_others_are(tmp_path: Path) -> None:
    """A build ends with one line; the check tells the rest."""
    path = write(tmp_path, NETWORK.replace("typical", "typicl"))
    with pytest.raises(TargetError) as caught:
        load_network(path)
    assert str(caught.value) == (
        "lab.toml: uplink_bps: unknown key 'typicl', did you mean 'typical'? "
        f"(and 2 more; see `splitc targets check {path}`)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("threads = 0", "threads must be above zero, found 0", id="threads"),
        pytest.param('machine = "that"', "machine: expected one of 'this', found 'that'", id="machine"),
        pytest.param('kind = "phone"', "kind: expected one of 'device', 'cloud', found 'phone'", id="kind"),
        pytest.param(
            "[active_w]\nvalue = 0\nconfidence = 'measured'", "active_w: key 'source' is missing", id="power"
        ),
    ],
)
def test_a_wrong_target_gives_one_sentence(tmp_path: Path, change: str, message: str) -> None:
    """The same holds for machines."""
    text = 'name = "lab"\nkind = "device"\ndescription = "a board"\nruntime = "onnxruntime"\nprovider = "x"\n'
    if change.startswith("kind"):
        text = text.replace('kind = "device"\n', "")
    with pytest.raises(TargetError) as caught:
        load_target(write(tmp_path, text + change))
    assert str(caught.value) == f"lab.toml: {message}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("cores = 2", "cores = 0", r"clusters\[0\]: cores must be above zero", id="cores"),
        pytest.param(
            "value = 51.2e9", "value = 0", r"memory_bytes_per_s: value must be above zero", id="zero"
        ),
    ],
)
def test_a_wrong_descriptor_gives_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A number that makes no sense does not load."""
    with pytest.raises(TargetError, match=rf"^lab\.toml: descriptor\.{message}"):
        load_target(write(tmp_path, pixel7().replace(old, new, 1)))


def test_a_descriptor_without_clusters_does_not_load(tmp_path: Path) -> None:
    """Without cores there is no peak to predict from."""
    text = pixel7().split("[[descriptor.clusters]]")[0].replace("[descriptor]", "[descriptor]\nclusters = []")
    with pytest.raises(TargetError, match="descriptor: key 'clusters' must list at least one cluster"):
        load_target(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "pixle7",
            "unknown target 'pixle7', did you mean 'pixel7'? list them with `splitc targets`",
            id="near",
        ),
        pytest.param("toaster", "unknown target 'toaster'; list them with `splitc targets`", id="far"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, message: str) -> None:
    """A typo costs one look, not a search."""
    with pytest.raises(TargetError) as caught:
        load_target(name)
    assert str(caught.value).startswith(message)


def test_a_network_is_not_a_target() -> None:
    """Names of networks do not load as machines."""
    with pytest.raises(TargetError, match="unknown target 'wifi'"):
        load_target("wifi")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    """A syntax error carries its line."""
    with pytest.raises(TargetError, match=r"^lab\.toml: not a TOML file: .*line 1"):
        load_target(write(tmp_path, "name: lab"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist says so."""
    with pytest.raises(TargetError, match=r"cannot read the target description .*lab\.toml: No such file"):
        load_target(tmp_path / "lab.toml")


def test_all_that_is_wrong_with_a_number_is_said() -> None:
    """One record may have several complaints."""
    with pytest.raises(ValueError, match="above zero") as caught:
        Quantity(-1, " ", "measured")
    assert caught.value.args == (
        "value must be above zero, found -1",
        "source must say where the number comes from",
    )


@pytest.mark.skipif(not TRACES.is_dir(), reason="the recorded links are not part of the project")
def test_percentiles_of_recorded_links_can_be_recomputed() -> None:
    """The program prints the very numbers that the descriptions quote."""
    program = ROOT / "benchmarks" / "network_percentiles.py"
    done = subprocess.run([sys.executable, program, TRACES], capture_output=True, text=True, check=True)
    table = {
        line.split()[0]: [float(word) for word in line.split()[2:]] for line in done.stdout.splitlines()[2:]
    }
    for name, direction, trace in (
        ("3g", "uplink_bps", "TMobile-UMTS-driving.up"),
        ("3g", "downlink_bps", "TMobile-UMTS-driving.down"),
    ):
        spread = getattr(load_network(name), direction)
        assert [spread.low, spread.typical, spread.high] == pytest.approx(table[trace], rel=5e-3)
    uplink, downlink = load_network("lte").uplink_bps, load_network("lte").downlink_bps
    assert [uplink.low, uplink.high] == pytest.approx(table["Verizon-LTE-short.up"][::2], rel=5e-3)
    assert downlink.low == pytest.approx(table["Verizon-LTE-short.down"][0], rel=5e-3)
