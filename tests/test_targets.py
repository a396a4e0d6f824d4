"""Shipped descriptions load and say where their numbers come from; mistakes give one sentence."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitc.errors import TargetError
from splitc.shipped import shipped
from splitc.targets import load_network, load_target, network_names, target_names

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


def write(folder: Path, text: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(text, encoding="utf-8")
    return path


def tables(value: object) -> Iterator[dict[str, object]]:
    """Yield every table inside *value*, itself included."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tables(item)


@pytest.mark.parametrize("name", target_names())
def test_every_shipped_target_loads(name: str) -> None:
    """A target's name is its file's name."""
    assert load_target(name).name == name


@pytest.mark.parametrize("name", network_names())
def test_every_shipped_network_loads(name: str) -> None:
    """A network's name is its file's name."""
    assert load_network(name).name == name


def test_the_expected_ones_are_shipped() -> None:
    """What the documentation promises is there."""
    assert target_names() == ("local", "pixel7")
    assert network_names() == ("3g", "5g", "lte", "wifi")


@pytest.mark.parametrize("path", sorted(shipped("targets").rglob("*.toml")), ids=lambda path: path.stem)
def test_every_number_has_a_source(path: Path) -> None:
    """Numbers stand beside a source and a confidence; only counts of cores and threads need none."""
    for table in tables(tomllib.loads(path.read_text(encoding="utf-8"))):
        numbers = {key for key, value in table.items() if isinstance(value, int | float)}
        if numbers - {"cores", "threads"}:
            assert str(table["source"]).strip()
            assert table["confidence"]


def test_this_machine_needs_no_descriptor() -> None:
    """The machine at hand is measured."""
    local = load_target("local")
    assert (local.machine, local.descriptor, local.threads, local.kind) == ("this", None, None, "cloud")


def test_a_phone_says_what_its_prediction_leaves_out() -> None:
    """A prediction for a device comes with its interval and a caveat."""
    descriptor = load_target("pixel7").descriptor
    assert descriptor is not None
    assert descriptor.interval.low < 1 < descriptor.interval.high < descriptor.interval_unknown.high
    assert "slower" in descriptor.caveat


def test_a_path_is_loaded_as_a_file(tmp_path: Path) -> None:
    """A description of one's own needs no installation."""
    network = load_network(write(tmp_path, NETWORK))
    assert (network.name, network.uplink_bps.typical, network.downlink_bps.high) == ("lab", 1e6, 3e6)
    assert network.uplink_j_per_byte is None


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
            "lab.toml: uplink_bps.confidence: expected one of 'measured', 'vendor', 'derived', 'fitted', "
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("threads = 0", "threads must be above zero, found 0", id="threads"),
        pytest.param('machine = "that"', "machine: expected one of 'this', found 'that'", id="machine"),
        pytest.param('kind = "phone"', "kind: expected one of 'device', 'cloud', found 'phone'", id="kind"),
        pytest.param("[active_w]\nvalue = 0", "active_w: key 'source' is missing", id="power"),
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
        pytest.param(
            "low = 0.49", "low = 3", r"interval: low \(3\.0\) must not be above high", id="interval"
        ),
        pytest.param("cores = 2", "cores = 0", r"clusters\[0\]: cores must be above zero", id="cores"),
        pytest.param(
            "value = 0.036", "value = 0", r"efficiency\.depthwise: value must be above zero", id="zero"
        ),
    ],
)
def test_a_wrong_descriptor_gives_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A number that makes no sense does not load."""
    text = (shipped("targets") / "pixel7.toml").read_text(encoding="utf-8")
    with pytest.raises(TargetError, match=rf"^lab\.toml: descriptor\.{message}"):
        load_target(write(tmp_path, text.replace(old, new, 1)))


def test_a_descriptor_without_clusters_does_not_load(tmp_path: Path) -> None:
    """Without cores there is no peak to predict from."""
    text = (
        (shipped("targets") / "pixel7.toml").read_text(encoding="utf-8").split("[[descriptor.clusters]]")[0]
    )
    text = text.replace("[descriptor]", "[descriptor]\nclusters = []", 1)
    with pytest.raises(TargetError, match="descriptor: key 'clusters' must list at least one cluster"):
        load_target(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "pixel6", "no target is called 'pixel6', did you mean 'pixel7'? run `splitc targets`", id="near"
        ),
        pytest.param("toaster", "no target is called 'toaster'; run `splitc targets`", id="far"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, message: str) -> None:
    """A typo costs one look, not a search."""
    with pytest.raises(TargetError) as caught:
        load_target(name)
    assert str(caught.value).startswith(message)


def test_a_network_is_not_a_target() -> None:
    """Names of networks do not load as machines."""
    with pytest.raises(TargetError, match="no target is called 'wifi'"):
        load_target("wifi")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    """A syntax error carries its line."""
    with pytest.raises(TargetError, match=r"^lab\.toml: not a TOML file: .*line 1"):
        load_target(write(tmp_path, "name: lab"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist says so."""
    with pytest.raises(TargetError, match=r"cannot read the target description .*lab\.toml: No such file"):
        load_target(tmp_path / "lab.toml")
