"""Files are written whole, or not at all."""

from pathlib import Path

import pytest

from splitc.common.files import write_files


def test_writes_all_files_and_missing_folders(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "new" / "b"
    write_files({first: b"1", second: b"2"})
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "new", "b"}


def test_a_failed_write_replaces_no_file(tmp_path: Path) -> None:
    first, blocked = tmp_path / "a", tmp_path / "file" / "b"
    first.write_bytes(b"old")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_files({first: b"new", blocked: b""})
    assert first.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "file"}
