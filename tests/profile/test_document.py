"""A profile document is read strictly, written whole, and tells how steady its runs were."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitc.common.errors import ProfileError
from splitc.common.records import encode
from splitc.profile.document import measurement_sha256, parse_profile, read_profile, write_profile
from tests import profiles

PLAIN: dict[str, Any] = encode(profiles.full())  # type: ignore[assignment]


def test_written_and_read(tmp_path: Path) -> None:
    profile = profiles.full()
    write_profile(profile, tmp_path / "new" / "p.json")
    assert read_profile(tmp_path / "new" / "p.json") == profile
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ((), {"splitc_profile": 2}, "splitc_profile: expected version 1, found 2"),
        ((), {"source": "guessed"}, "source: expected one of 'measured', 'imported'"),
        ((), {"measurements": []}, "measurements: expected at least one item"),
        ((), {"surprise": 1}, "unknown key 'surprise'"),
        (("measurements", 0), {"whole_s": []}, r"measurements\[0\]\.whole_s: expected at least one item"),
        (
            ("measurements", 0),
            {"whole_s": [0.0]},
            r"measurements\[0\]\.whole_s\[0\]: expected a number above 0",
        ),
        (
            ("measurements", 0),
            {"whole_s": [float("nan")]},
            r"whole_s\[0\]: expected a finite number, found nan",
        ),
        (
            ("measurements", 0),
            {"profiled_whole_s": [-1.0]},
            r"profiled_whole_s\[0\]: expected a number above 0",
        ),
        (("measurements", 0), {"fixed_s": [-1.0]}, r"fixed_s\[0\]: expected a number of at least 0"),
        (("measurements", 0), {"threads": 0}, "threads: expected an integer of at least 1"),
        (("measurements", 0), {"warmup": -1}, "warmup: expected an integer of at least 0"),
        (("measurements", 0), {"dims": {"seq": -1}}, r"dims\.seq: expected an integer of at least 0"),
        (("measurements", 0), {"whole_s": ["fast"]}, "expected a number"),
        (
            ("measurements", 0, "nodes", 0),
            {"seconds": []},
            r"nodes\[0\]\.seconds: expected at least one item",
        ),
        (
            ("measurements", 0, "nodes", 0),
            {"seconds": [1.0, -1e-9]},
            r"nodes\[0\]\.seconds\[1\]: expected a number of at least 0",
        ),
        (("measurements", 0, "nodes", 0), {"seconds": [float("inf")]}, "expected a finite number"),
        (("measurements", 0, "nodes", 0), {"events": 0}, "events: expected an integer of at least 1"),
        (("units", 0), {"seconds": [0.5]}, "one entry in seconds for each measurement"),
        (
            ("units", 0),
            {"seconds": [0.5, -0.5]},
            r"units\[0\]\.seconds\[1\]: expected a number of at least 0",
        ),
        (("units", 0, "work", 0), {"macs": -1}, r"work\[0\]\.macs: expected an integer of at least 0"),
    ],
    ids=lambda value: str(value)[:32],
)
def test_malformed(place: tuple[Any, ...], change: dict[str, Any], message: str) -> None:
    value = json.loads(json.dumps(PLAIN))
    inner = value
    for key in place:
        inner = inner[key]
    inner.update(change)
    with pytest.raises(ProfileError, match=rf"^here: .*{message}") as raised:
        parse_profile(json.dumps(value).encode(), "here")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[" * 100_000, b"null", b"\xff\xfe", b"[]"],
    ids=["empty", "open", "deep", "null", "bytes", "list"],
)
def test_no_profile_at_all(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(data)
    with pytest.raises(ProfileError, match=r"p\.json: ") as raised:
        read_profile(tmp_path / "p.json")
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.json: cannot be read \(No such file"):
        read_profile(tmp_path / "none.json")


def test_spread_is_relative_to_the_median() -> None:
    assert profiles.measurement(whole_s=(1.0,)).spread() is None
    assert profiles.measurement(whole_s=(2.0, 2.0)).spread() == (1.0, 1.0)
    runs = tuple(float(value) for value in range(80, 121))
    assert profiles.measurement(whole_s=runs).spread() == pytest.approx((0.82, 1.18))


def test_drift_compares_the_ends() -> None:
    assert profiles.measurement(whole_s=(1.0,) * 5).drift() is None
    assert profiles.measurement(whole_s=(1.0, 1.0, 5.0, 5.0, 1.2, 1.2)).drift() == pytest.approx(1.2)
    steady = profiles.measurement(whole_s=(1.0, 3.0) * 18).drift()
    assert steady == pytest.approx(1.0)


def test_a_measurement_is_told_from_another_by_its_own_content() -> None:
    """What else lies in the document, and what `splitc profile` added, does not change what times were made from."""
    full = profiles.full()
    first, second = full.measurements
    alone = replace(full, measurements=(first,), units=None)
    assert measurement_sha256(full, first) == measurement_sha256(alone, first)
    assert measurement_sha256(full, first) != measurement_sha256(full, second)
    assert measurement_sha256(full, first) != measurement_sha256(replace(full, model="other"), first)
