"""The apps that the tests of the whole run."""

import pytest

from splitc.compile.limits import LimitOptions
from tests.system.serving import App, make_app, pictures


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A small model with all kinds of cuts."""
    return make_app(tmp_path_factory.mktemp("app"), pictures())


@pytest.fixture(scope="session")
def namesake(tmp_path_factory: pytest.TempPathFactory) -> App:
    """Another model of the same name and form, with other weights."""
    return make_app(tmp_path_factory.mktemp("namesake"), pictures(name="b"))


@pytest.fixture(scope="session")
def headless(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A model that is too large for the device."""
    limits = LimitOptions(max_device_weight_bytes=2000)
    return make_app(tmp_path_factory.mktemp("headless"), pictures(), limits=limits)


@pytest.fixture(scope="session")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A model that takes tens of milliseconds."""
    return make_app(tmp_path_factory.mktemp("heavy"), pictures(convolutions=8, width=48))
