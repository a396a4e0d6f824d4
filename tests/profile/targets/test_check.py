"""The check of a new description tells everything that is wrong with it, at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.common.resources import shipped
from splitc.profile.targets.check import check_description
from splitc.profile.targets.description import Network, Target, load_target

BOARD = """
name = "board"
kind = "device"
description = "a board"
runtime = "onnxruntime"
provider = "CPUExecutionProvider"
threads = 4

[descriptor]
coefficients = "onnxruntime-arm64"
memory_bytes_per_s = { value = 34.1e9, confidence = "derived", source = "LPDDR4X-4266 x 64 bit" }

[[descriptor.clusters]]
core = "Cortex-A76"
cores = 4
clock_hz = { value = 2.4e9, confidence = "vendor", source = "data sheet" }
peak_macs_per_s = { value = 19.2e9, confidence = "derived", source = "4 fp32 lanes x 2 pipes x clock" }
"""

LINK = """
name = "link"
description = "a radio link"
uplink_bps = { typical = 1e6, source = "measured here", confidence = "measured" }
downlink_bps = { typical = 2e6, source = "measured here", confidence = "measured" }
rtt_s = { typical = 0.01, source = "measured here", confidence = "measured" }
"""


@pytest.fixture
def board() -> str:
    return BOARD


def write(folder: Path, text: str, name: str = "board") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_machine(tmp_path: Path, board: str) -> None:
    checked = check_description(write(tmp_path, board))
    assert (checked.mistakes, checked.warnings) == ((), ())
    assert isinstance(checked.described, Target)


def test_a_good_network(tmp_path: Path) -> None:
    checked = check_description(write(tmp_path, LINK, "link"))
    assert (checked.mistakes, checked.warnings) == ((), ())
    assert isinstance(checked.described, Network)


def test_the_example_of_the_documentation_is_good(tmp_path: Path) -> None:
    """targets/README.md shows a description that passes."""
    text = (shipped("targets") / "README.md").read_text(encoding="utf-8")
    checked = check_description(write(tmp_path, text.partition("```toml\n")[2].partition("```")[0]))
    assert (checked.mistakes, checked.warnings) == ((), ())
    assert isinstance(checked.described, Target)


def test_every_mistake_is_told_at_once(tmp_path: Path, board: str) -> None:
    text = (
        board.replace('kind = "device"', 'kind = "phone"')
        .replace("description", "descriptoin")
        .replace("threads = 4", "threads = 9")
        .replace("onnxruntime-arm64", "onnxruntime-arm46")
        .replace('"LPDDR4X-4266 x 64 bit"', '" "')
        .replace("34.1e9", "-1")
        .replace("cores = 4", 'cores = "four"')
        .replace('"vendor"', '"seller"')
        .replace("value = 19.2e9, ", "")
    )
    checked = check_description(write(tmp_path, text))
    assert checked.described is None
    assert sorted(mistake.removeprefix("board.toml: ").split(",")[0] for mistake in checked.mistakes) == [
        "descriptor.clusters[0].clock_hz.confidence: expected one of 'measured'",
        "descriptor.clusters[0].cores: expected an integer",
        "descriptor.clusters[0].peak_macs_per_s: key 'value' is missing",
        "descriptor.coefficients: unknown coefficients 'onnxruntime-arm46'",
        "descriptor.memory_bytes_per_s: source must say where the number comes from",
        "descriptor.memory_bytes_per_s: value must be above zero",
        "kind: expected one of 'device'",
        "unknown key 'descriptoin'",
    ]
    assert "did you mean 'onnxruntime-arm64'?" in next(item for item in checked.mistakes if "arm46" in item)


def test_more_threads_than_cores(tmp_path: Path, board: str) -> None:
    checked = check_description(write(tmp_path, board.replace("threads = 4", "threads = 5")))
    assert checked.mistakes == ("board.toml: threads: 5 threads are more than the 4 cores of all clusters",)


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        pytest.param(
            '"board"',
            '"plank"',
            "name: 'plank' differs from the file name 'board', by which splitc finds it; make them equal",
            id="name",
        ),
        pytest.param(
            "19.2e9",
            "38.4e9",
            "descriptor.clusters[0]: peak_macs_per_s is 3.84e+10, but 4 fp32 lanes x 2 pipes x clock is 1.92e+10",
            id="flops",
        ),
        pytest.param(
            "value = 2.4e9",
            "value = 2.4",
            "descriptor.clusters[0].clock_hz: value is 2.4, which is implausible; give hertz, such as 2.85e9",
            id="gigahertz",
        ),
        pytest.param(
            "value = 34.1e9",
            "value = 34.1",
            "descriptor.memory_bytes_per_s: value is 34.1, which is implausible; give bytes per second, such as 51.2e9",
            id="gigabytes",
        ),
        pytest.param(
            'confidence = "vendor", source = "data sheet"',
            'confidence = "recalled", source = "somewhere"',
            "descriptor.clusters[0].clock_hz: the source of a recalled number must name its origin: "
            'source = "recalled from ..."',
            id="recalled",
        ),
        pytest.param(
            "Cortex-A76",
            "Cortex A76",
            "descriptor.clusters[0]: core 'Cortex A76' is not in these coefficients, did you mean 'Cortex-A76'? "
            "predictions for it are far less certain",
            id="core",
        ),
        pytest.param(
            "threads = 4\n",
            "",
            "key 'threads' is missing, so times cannot be predicted; add it",
            id="threads",
        ),
    ],
)
def test_what_was_probably_not_meant_is_a_warning(
    tmp_path: Path, board: str, old: str, new: str, warning: str
) -> None:
    checked = check_description(write(tmp_path, board.replace(old, new, 1)))
    assert checked.mistakes == ()
    assert checked.described is not None
    assert f"board.toml: {warning}" in checked.warnings


def test_a_machine_without_a_descriptor_is_told_what_it_needs(tmp_path: Path) -> None:
    checked = check_description(write(tmp_path, BOARD.partition("[descriptor]")[0]))
    assert checked.mistakes == ()
    assert checked.warnings == (
        "board.toml: there is no [descriptor], so times cannot be predicted and builds need a recorded profile",
    )


def test_milliseconds_in_a_network(tmp_path: Path) -> None:
    checked = check_description(write(tmp_path, LINK.replace("0.01", "35"), "link"))
    assert checked.warnings == (
        "link.toml: rtt_s: typical is 35, which is implausible; give seconds, such as 0.03",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("name: board", "board.toml: not a TOML file: ", id="yaml"),
        pytest.param(
            f"a = {'[' * 3000}{']' * 3000}",
            "board.toml: not a TOML file: tables are nested too deeply",
            id="deep",
        ),
        pytest.param(None, "cannot read the target description ", id="missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_mistake(tmp_path: Path, text: str | None, message: str) -> None:
    path = write(tmp_path, text) if text is not None else tmp_path / "none.toml"
    checked = check_description(path)
    assert (len(checked.mistakes), checked.warnings, checked.described) == (1, (), None)
    assert checked.mistakes[0].startswith(message)


KEYS = (
    "name kind threads descriptor clusters coefficients cores clock_hz peak_macs_per_s memory_bytes_per_s "
    "value source confidence rtt_s typical"
).split()

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(("", " ", "x", "recalled", "4 fp32 lanes x 2 pipes x clock"))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(table=st.dictionaries(st.sampled_from(["name", "kind", "threads", "descriptor", "rtt_s"]), values))
def test_no_file_is_too_strange_to_check(
    table: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a TOML file holds, the check ends with sentences; what it lets pass also loads."""
    path = tmp_path_factory.mktemp("strange") / "strange.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in table.items()), encoding="utf-8")
    checked = check_description(path)
    assert (checked.described is None) == bool(checked.mistakes)
    if isinstance(checked.described, Target):
        assert load_target(path) == checked.described


def toml(value: object) -> str:
    """*value* as TOML; what it cannot hold becomes text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return f'"{value}"'
