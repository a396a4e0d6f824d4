"""The data folders are found in a checkout and in a wheel."""

from pathlib import Path

import pytest

from splitc.common import resources as module
from splitc.common.errors import SplitcError
from splitc.common.resources import shipped


def test_a_shipped_folder_is_found() -> None:
    """The targets lie where `shipped` says, wherever the package is installed."""
    assert (shipped("targets") / "local.toml").is_file()


def test_the_wheels_copy_comes_first(tmp_path: Path) -> None:
    """An installed package never reads a folder of that name in site-packages."""
    for parent in ("package", "beside"):
        (tmp_path / parent / "targets").mkdir(parents=True)
    found = module._first_folder("targets", (tmp_path / "package", tmp_path / "beside"))
    assert found == tmp_path / "package" / "targets"


def test_the_checkouts_folder_is_second(tmp_path: Path) -> None:
    """Without a wheel's copy, the folder beside the package is taken."""
    (tmp_path / "beside" / "targets").mkdir(parents=True)
    found = module._first_folder("targets", (tmp_path / "package", tmp_path / "beside"))
    assert found == tmp_path / "beside" / "targets"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A broken installation says which folder is missing and what to do."""
    with pytest.raises(SplitcError, match=r"'profilers' of splitc is missing .* reinstall"):
        module._first_folder("profilers", (tmp_path,))
