"""What several test files share: nothing outside the temporary folders is read or written."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import pytest

from splitc.bundle.folder import Bundle, read_bundle
from tests import running


@pytest.fixture(scope="session", autouse=True)
def _hears_interrupts() -> None:
    """A shell's background job ignores Ctrl-C, and so would tests that interrupt themselves."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of our own: no test may see or touch the user's cache or targets."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder


@dataclass(frozen=True)
class Tiny:
    """tiny_cnn, compiled by a process for a slow device and this machine, and what the process said."""

    model: Path
    device: Path
    bundle: Bundle
    done: running.Done


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    model, device = running.save_tiny("tiny_cnn", folder), running.slow_device(folder)
    done = running.splitc(
        "compile", model, "--device", device, "--cache-dir", home / "tiny", "-o", "out/tiny", cwd=folder
    )
    assert done.code == 0, done.err
    return Tiny(model, device, read_bundle(folder / "out" / "tiny"), done)
