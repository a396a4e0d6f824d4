"""`splitc simulate` on a small fleet, with a bundle that was really compiled."""

from pathlib import Path
from typing import Any

import pytest

from splitc.cli.main import group
from splitc.simulate.policies import POLICIES
from splitc.testbed.traces import synthetic_trace
from tests.cli.printed import printed
from tests.cli.test_main import assert_sentence, call
from tests.conftest import Tiny

FLEET = """
horizon_s = 20
seed = 3

[cloud]
machines = 1
usd_per_hour = 0.5

[[classes]]
name = "slow"
count = 10
rate_per_s = 0.5
sla_s = 0.2
networks = { wifi = 0.5, ethernet = 0.5 }

[[classes]]
name = "slower"
device = "slow"
count = 10
rate_per_s = 0.5
slowdown = { typical = 4, high = 8 }
networks = { lte = 1 }
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET, encoding="utf-8")
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[Any]:
    group.main(["simulate", *map(str, arguments), "--json"], standalone_mode=False)
    policies: list[Any] = printed("simulate", capsys.readouterr().out)["policies"]
    return policies


def test_compares_all_policies_in_tables_and_a_report(
    tiny: Tiny, fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "fleet.html"
    arguments = [
        "simulate",
        str(tiny.bundle.folder),
        "--fleet",
        str(fleet),
        "--compare",
        "--report",
        str(report),
    ]
    group.main(arguments, standalone_mode=False)
    out = capsys.readouterr().out
    assert all(name in out for name in POLICIES)
    assert f"wrote {report}" in out
    assert "least-cloud: the 95th percentiles of its classes differ by up to " in out
    assert report.read_text(encoding="utf-8").count("<svg") >= 2


def test_json_is_the_same_each_time_and_adds_up(
    tiny: Tiny, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (tiny.bundle.folder, "--fleet", fleet, "--policy", "price", "--policy", "fixed:c0")
    first, second = told(capsys, *arguments), told(capsys, *arguments)
    assert first == second
    assert [item["policy"] for item in first] == ["price", "fixed:c0"]
    for item in first:
        whole = item["all"]
        assert whole["device"] + whole["split"] + whole["cloud"] + whole["refused"] == pytest.approx(1)
        assert whole["jobs"] == sum(part["jobs"] for part in item["classes"])
        assert item["bounds"]["busy_s"] <= item["busy_s"] + 1e-9
        assert item["usd"] == pytest.approx(0.5 * item["busy_s"] / 3600)


def test_a_target_latency_applies_to_every_class(
    tiny: Tiny, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = told(capsys, tiny.bundle.folder, "--fleet", fleet)
    assert [part["met"] is None for part in found["classes"]] == [False, True]
    (found,) = told(capsys, tiny.bundle.folder, "--fleet", fleet, "--sla", "100s")
    assert [part["met"] for part in found["classes"]] == [1.0, 1.0]


def test_first_jobs_a_trace_and_a_plan(
    tiny: Tiny, fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = told(capsys, tiny.bundle.folder, "--fleet", fleet, "--jobs", "7")
    assert found["all"]["jobs"] == 7
    trace = synthetic_trace(1e4, 2e4, 4e4, 60, seed=1)  # too slow to send anything
    path = tmp_path / "slow.up"
    path.write_text("".join(f"{time_ms}\n" for time_ms in trace.opportunities_ms), encoding="ascii")
    (found,) = told(capsys, tiny.bundle.folder, "--fleet", fleet, "--policy", "latency", "--trace", path)
    assert found["all"]["device"] > 0.95
    (found,) = told(capsys, tiny.bundle.folder, "--fleet", fleet, "--fluid")
    assert found["bounds"] is None
    assert found["all"]["jobs"] == pytest.approx(200)


def test_batches_are_measured_here(
    tiny: Tiny, fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FLEET.replace("machines = 1", 'machines = 1\nmax_batch = 4\nbatch = "measured"')
    fleet.write_text(text, encoding="utf-8")
    arguments = (
        tiny.bundle.folder,
        "--fleet",
        fleet,
        "--policy",
        "all-cloud",
        "--cache-dir",
        tmp_path / "cache",
    )
    (found,) = told(capsys, *arguments)
    assert found["busy_s"] > 0
    assert any((tmp_path / "cache").rglob("prepared.json"))


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (("count = 10", "count = 0"), [], "classes[0]: count must be above zero"),
        (('name = "slow"', 'name = "fast"'), [], "the class 'fast' needs a bundle for 'fast'"),
        (("", ""), ["--policy", "cheapest"], "no policy is called 'cheapest'"),
        (("horizon_s = 20", "horizon_s = 2e7"), [], "limit them with --jobs, or approximate with --fluid"),
        (("rate_per_s = 0.5", "rate_per_s = 1e-9"), [], "the fleet has no jobs within its horizon"),
        (("", ""), ["--trace", "none.up"], "none.up: the trace cannot be read"),
    ],
    ids=["count", "bundle", "policy", "jobs", "idle", "trace"],
)
def test_impossible_input_gives_one_sentence(
    change: tuple[str, str],
    arguments: list[str],
    words: str,
    tiny: Tiny,
    fleet: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fleet.write_text(FLEET.replace(*change) if change[0] else FLEET, encoding="utf-8")
    done = call(capsys, "simulate", tiny.bundle.folder, "--fleet", fleet, *arguments)
    assert_sentence(done, 1, words)


def test_a_plan_has_no_first_jobs(tiny: Tiny, fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = call(capsys, "simulate", tiny.bundle.folder, "--fleet", fleet, "--fluid", "--jobs", "3")
    assert_sentence(done, 2, "--jobs cannot be used with --fluid")
