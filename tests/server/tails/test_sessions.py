"""Files are open while there is room, and closed in the order in which they were last used."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.server.tails.part import Run
from splitc.server.tails.sessions import Sessions, TooLarge
from tests import models
from tests.models import WIDTH, dense, dense_weights, floats
from tests.server.weighing import Weights

X = {"x": np.ones((1, WIDTH), np.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files: a, b, c, d."""
    found = tmp_path_factory.mktemp("files")
    for name in "abcd":
        built = models.model(
            dense("x", name), [floats("x", 1, WIDTH)], [floats(name, 1, WIDTH)], dense_weights(name)
        )
        onnx.save_model(built, found / name)
    return found


def added(folder: Path, limit: int | None, **sizes: int) -> tuple[dict[str, Run], Weights, list[str]]:
    weights, said = Weights(), list[str]()
    weights.by_file = sizes
    sessions = Sessions(limit, said.append, weights.taken)
    runs = {name: sessions.add(name, partial(weights.open, folder / name), X) for name in sizes}
    return runs, weights, said


def use(runs: dict[str, Run], names: str) -> None:
    for name in names:
        assert runs[name](X, [name])[name].shape == (1, WIDTH)


def test_all_stay_open_without_a_limit(folder: Path) -> None:
    runs, weights, said = added(folder, None, a=1000, b=1000, c=1000)
    use(runs, "abcabc")
    assert weights.opened == ["a", "b", "c"]
    assert not said


def test_what_fits_stays_open_and_others_take_turns(folder: Path) -> None:
    runs, weights, said = added(folder, 30, a=10, b=10, c=10, d=10)
    assert said == ["d is opened when it is asked for: with it 40 B would be taken, and 30 B are allowed"]
    assert weights.taken() == 30
    before = len(weights.opened)
    use(runs, "abc")
    assert len(weights.opened) == before
    use(runs, "d")  # in the place of a
    use(runs, "bcd")
    assert weights.opened[before:] == ["d"]
    use(runs, "a")  # in the place of b
    assert weights.opened[before:] == ["d", "a"]
    use(runs, "cdab")
    assert weights.opened[before:] == ["d", "a", "b"]
    assert weights.taken() == 30


def test_the_least_wanted_goes_first_before_any_was_used(folder: Path) -> None:
    runs, weights, _ = added(folder, 30, a=10, b=10, c=10, d=10)
    use(runs, "dab")
    assert weights.opened == [*"abcd", "d"]


def test_a_large_one_takes_the_place_of_several(folder: Path) -> None:
    runs, weights, _ = added(folder, 30, a=10, b=10, c=10, d=25)
    use(runs, "abcd")
    assert weights.taken() == 25
    use(runs, "a")
    assert weights.taken() == 10


def test_one_that_takes_more_than_the_limit_is_refused(folder: Path) -> None:
    weights = Weights()
    weights.by_file = {"a": 20, "b": 31}
    sessions = Sessions(30, pytest.fail, weights.taken)
    sessions.add("a", partial(weights.open, folder / "a"), X)
    with pytest.raises(TooLarge, match="b takes 31 B, and 30 B are allowed") as caught:
        sessions.add("b", partial(weights.open, folder / "b"), X)
    assert caught.value.needs_bytes == 31


def test_one_that_has_grown_since_has_others_closed(folder: Path) -> None:
    """As where it shared its weights with one that is closed now."""
    runs, weights, _ = added(folder, 30, a=10, b=15, c=10)
    weights.by_file["c"] = 20
    use(runs, "abc")
    assert weights.taken() == 20


def test_many_threads_may_use_them(folder: Path) -> None:
    runs, weights, _ = added(folder, 20, a=10, b=10, c=10, d=10)
    failed: list[BaseException] = []

    def go(names: str) -> None:
        try:
            use(runs, names * 4)
        except BaseException as error:  # noqa: BLE001 - any is a failure of the test
            failed.append(error)

    threads = [threading.Thread(target=go, args=(names,)) for names in ("abcd", "dcba", "acbd", "bdac")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert weights.taken() <= 20


def test_what_cannot_be_warmed_up_is_opened_all_the_same(folder: Path) -> None:
    weights = Weights()
    sessions = Sessions(None, pytest.fail, weights.taken)
    for warm_up in (None, {"x": np.ones((7, 7), np.float32)}):
        run = sessions.add("a", partial(weights.open, folder / "a"), warm_up)
        use({"a": run}, "a")
