"""The shipped coefficients are what the fit computes, and the fit is as good as the documentation says."""

import csv
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from benchmarks import fit_targets
from benchmarks.fit.machines import Machines, Unclear, with_memory
from benchmarks.fit.tables import read
from splitc.common.records import encode
from splitc.common.resources import shipped
from splitc.profile.targets.coefficients import load_coefficients

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"{DATA} is absent: the public tables are not copied"
)


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    (tmp_path / "devices.csv").write_text(
        "device,soc,field,value,unit,source,confidence\nA phone,Helio G85,memory_bandwidth,14.9,GB/s,x,y\n"
    )
    return Machines(tmp_path)


@pytest.mark.parametrize(
    ("heading", "clusters"),
    [
        (
            "Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)",
            [("Cortex-A76", 2.4, 4), ("Cortex-A55", 1.8, 4)],
        ),
        (
            "OrangePi5, (Quad Core A76 2.4GHz + Quad Core A55 1.8GHz)",
            [("Cortex-A76", 2.4, 4), ("Cortex-A55", 1.8, 4)],
        ),
        (
            "Dimensity 9300 (Cortex-X4 3.25 GHz + 2.85 GHz x 3 + Cortex-A720 2.0 GHz x 4 + Mali-G720 MC12)",
            [("Cortex-X4", 3.25, 1), ("Cortex-X4", 2.85, 3), ("Cortex-A720", 2.0, 4)],
        ),
        (
            "Qualcomm SDM845 Snapdragon 845 (Kyro385 2.8GHz x 4 + Kyro385 1.7GHz x 4 + Adreno 630)",
            [("Cortex-A75", 2.8, 4), ("Cortex-A55", 1.7, 4)],
        ),
        ("Some board (ARM Cortex-A53 @ 1400MHz * 4)", [("Cortex-A53", 1.4, 4)]),
        ("A server (Neoverse-N1 3.0GHz x 16)", [("Neoverse N1", 3.0, 16)]),
        ("NVIDIA Jetson Orin Nano (Cortex-A78AE 1.5GHz x 6 + Ampere@0.6 GHz)", [("Cortex-A78", 1.5, 6)]),
    ],
)
def test_headings_tell_the_clusters(
    heading: str, clusters: list[tuple[str, float, int]], machines: Machines
) -> None:
    found = [
        (core.name, round(core.hertz / 1e9, 3), count) for core, count in machines.board(heading).clusters
    ]
    assert found == clusters


@pytest.mark.parametrize(
    ("heading", "why"),
    [("VisionFive2 (SiFive-U74 1.5GHz x 4)", "no cores"), ("Ingenic T40XP Core X2 1.4Ghz", "MIPS")],
)
def test_what_cannot_be_described_is_left_out(heading: str, why: str, machines: Machines) -> None:
    with pytest.raises(Unclear, match=why):
        machines.board(heading)


def test_threads_run_on_the_cores_they_were_pinned_to(machines: Machines) -> None:
    """ncnn's powersave: 2 the upper half of the clocks, 1 the lower."""
    board = machines.board("RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)")
    assert {core.name for core in board.cores(4, 2)} == {"Cortex-A76"}
    assert {core.name for core in board.cores(2, 1)} == {"Cortex-A55"}
    assert len(board.cores(64, 2)) == 4


def test_memory_comes_from_tables_or_from_the_family(machines: Machines) -> None:
    headings = (
        "RK3588 (Cortex-A76 2.4GHz x 4)",
        "Helio G85 (Cortex-A75 2.0GHz x 2)",
        "New (Cortex-A78 2.0GHz x 2)",
    )
    boards = {heading: machines.board(heading) for heading in headings}
    assert [board.memory for board in boards.values()] == [34.1e9, 14.9e9, None]
    assert with_memory(boards)[headings[2]].memory == pytest.approx((34.1e9 + 14.9e9) / 2)


def numbers(value: object, at: str = "") -> dict[str, float]:
    """Every number inside *value*, by its place."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {
            place: number for key, item in items for place, number in numbers(item, f"{at}.{key}").items()
        }
    return {at: value} if isinstance(value, int | float) else {}


def accuracy(table: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean error and coverage in percent, by threads and what is known."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {(row[0], row[1]): (float(row[3].split()[0]), float(row[5].split()[0])) for row in rows}


def but_for_digits(text: str) -> list[str]:
    return [re.sub(r"[\d.e+]+", "", line) for line in text.splitlines()]


@needs_data
@pytest.mark.slow
def test_the_fit_gives_what_is_shipped_and_documented(tmp_path: Path) -> None:
    """One long test, because the fit takes a minute: other linear algebra only changes the last digits."""
    (tmp_path / "targets").mkdir()
    sections = fit_targets.fit_all(DATA, tmp_path)
    for name in ("onnxruntime-arm64", "onnxruntime-x86_64", "onnxruntime-cuda"):
        text = (tmp_path / "targets" / "coefficients" / f"{name}.toml").read_text()
        found, kept = numbers(tomllib.loads(text)), numbers(encode(load_coefficients(name)))
        assert found == {place: pytest.approx(kept[place], rel=0.02, abs=0.02) for place in found}
    documented = (ROOT / "docs" / "prediction.md").read_text()
    for name, table in sections.items():
        shown = documented.split(f"<!-- {name} -->\n")[1].split(f"<!-- end {name} -->")[0]
        assert but_for_digits(shown) == but_for_digits(table), name
    good_enough(accuracy(sections["accuracy arm64"]))


def good_enough(found: dict[tuple[str, str], tuple[float, float]]) -> None:
    """Mean error in percent with one and with four threads; nine of ten runs in their intervals."""
    limits = {"descriptor alone": (20.0, 25.0), "and 1 run": (15.0, 20.0), "and 3 runs": (13.0, 17.0)}
    for known, most in limits.items():
        for threads, limit in zip(("1", "4"), most, strict=True):
            error, covered = found[threads, known]
            assert error <= limit, (known, threads)
            assert 85 <= covered <= 95, (known, threads)


@needs_data
def test_machines_that_were_not_in_the_fit_can_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raspberry Pis taken out of the tables, and predicted from what is left."""
    with (DATA / "device_latency.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("devices.csv", "ncnn_layer_costs.csv"):
        shutil.copyfile(DATA / name, folder / name)
    for path, wanted in ((folder / "device_latency.csv", False), (tmp_path / "other.csv", True)):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row for row in rows if row["device"].startswith("Raspberry") == wanted)
    fit_targets.check(
        tmp_path / "other.csv",
        read(folder, "device_latency.csv"),
        Machines(folder),
        folder,
    )
    said = capsys.readouterr().out
    assert "Raspberry Pi 5 Broadcom BCM2712" in said
    errors = [float(error) for error in re.findall(r"Arm, \d thread.*mean error ([\d.]+) %", said)]
    assert len(errors) == 2
    assert all(error < 35 for error in errors)


def test_every_coefficients_file_says_who_wrote_it() -> None:
    for path in (shipped("targets") / "coefficients").glob("*.toml"):
        assert path.read_text().startswith("# Written by benchmarks/fit_targets.py; do not edit.")
