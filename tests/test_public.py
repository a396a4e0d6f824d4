"""The public names: those that `__all__` lists, no more, each of them importable and documented."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from inspect import isclass, isfunction

import pytest

import splitc

PUBLIC = {
    "splitc": """
        AsyncSession Bundle BundleError Conditions CutEntry DeadlineExceeded Decision InputError Manifest
        ModelError NoFeasibleCut Outcome ProtocolError RuntimeFailure ServerRefused Session SplitcError
        TransportError __version__ decide read_bundle
        """.split(),
    "splitc.server": ["ServerOptions", "application", "open_parts"],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_these_names_are_exported(package: str) -> None:
    assert import_module(package).__all__ == PUBLIC[package]


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package, names in PUBLIC.items() for name in names if name != "__version__"],
)
def test_each_can_be_imported_and_is_documented(package: str, name: str) -> None:
    found = getattr(import_module(package), name)
    assert isclass(found) or isfunction(found)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}("), "that is what a dataclass without a docstring gets"


@pytest.mark.parametrize("package", PUBLIC)
def test_another_name_is_refused(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Sesion'"):
        _ = import_module(package).Sesion


def test_the_version_is_that_of_the_package() -> None:
    assert splitc.__version__ == version("splitc")


def test_importing_splitc_looks_up_no_version_and_loads_no_runtime() -> None:
    code = "import sys, splitc; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"importlib.metadata", "numpy", "onnxruntime", "splitc.runtime.session"}
