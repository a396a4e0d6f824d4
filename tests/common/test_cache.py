"""The cache returns what was kept, and is never in the way."""

from pathlib import Path

import pytest

from splitc.common.cache import Cache, default_cache_folder

KEY = ("a", 1, {"batch": 2, "size": 3})


def test_returns_what_was_put(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "cache")
    assert cache.get("kind", KEY) is None
    cache.put("kind", KEY, {"x": [1, 2]})
    assert cache.get("kind", KEY) == {"x": [1, 2]}
    assert cache.get("kind", ("a", 1, {"size": 3, "batch": 2})) == {
        "x": [1, 2]
    }  # the order of names is no matter
    assert cache.get("kind", ("a", 2, {})) is None
    assert cache.get("other", KEY) is None
    assert [path.suffix for path in (tmp_path / "new" / "cache" / "kind").iterdir()] == [".json"]


def test_keeps_nothing_without_a_folder() -> None:
    cache = Cache(None)
    cache.put("kind", KEY, 1)
    assert cache.get("kind", KEY) is None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "open", "latin", "deep"]
)
def test_a_damaged_file_counts_as_absent(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    cache.put("kind", KEY, 1)
    (path,) = (tmp_path / "kind").iterdir()
    path.write_bytes(damage)
    assert cache.get("kind", KEY) is None
    cache.put("kind", KEY, 2)
    assert cache.get("kind", KEY) == 2


def test_a_place_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    cache.put("kind", KEY, 1)
    assert cache.get("kind", KEY) is None


def test_a_failed_put_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Cache(tmp_path).put("kind", KEY, object())
    assert not list(tmp_path.rglob("*"))


def test_the_default_lies_in_the_users_cache(home: Path) -> None:
    assert default_cache_folder() == home / "cache" / "splitc"
