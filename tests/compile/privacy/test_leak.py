"""The leak figure is known where the answer is."""

import numpy as np
import pytest

from splitc.common.values import Array
from splitc.compile.privacy.leak import MIN_SAMPLES, products, share_explained

WIDE, COUNT = 24, 120


def samples(count: int, width: int, seed: int = 0) -> Array:
    values: Array = np.random.default_rng(seed).standard_normal((count, width))
    return values


def figure(private: Array, *crossing: Array) -> float | None:
    found = [products(list(item)) for item in (private, *crossing)]
    one, *others = (item for item in found if item is not None)
    return share_explained(others, one)


def test_an_invertible_map_gives_all_away() -> None:
    private = samples(COUNT, WIDE)
    assert figure(private, private @ samples(WIDE, WIDE, 1) + 5.0) == pytest.approx(1.0, abs=0.01)


def test_independent_noise_gives_nothing_away() -> None:
    assert figure(samples(COUNT, WIDE), samples(COUNT, WIDE, 1)) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("kept", [6, 12, 18])
def test_a_projection_gives_its_dimensions_away(kept: int) -> None:
    private = samples(2 * COUNT, WIDE)
    share = figure(private, private @ samples(WIDE, kept, 1))
    assert share == pytest.approx(kept / WIDE, abs=0.06)


def test_more_features_than_samples() -> None:
    """The private tensor varies in few dimensions, and every one of many features shows these."""
    private = samples(40, 3) @ samples(3, 1000, 1)
    assert figure(private, private[:, :500] @ samples(500, 5000, 2)) == pytest.approx(1.0, abs=0.01)


def test_a_large_tensor_does_not_hide_a_small_one() -> None:
    private = samples(COUNT, 4)
    share = figure(private, 1e4 * samples(COUNT, 30, 1), private.astype(np.float32))
    assert share is not None
    assert share > 0.9


def test_scale_and_offset_of_the_private_tensor_do_not_matter() -> None:
    private = samples(COUNT, WIDE)
    sent = private @ samples(WIDE, 12, 1)
    assert figure(1e-6 * private + 1.0, sent) == figure(private, sent)


def test_ordinary_ridge_regression_agrees() -> None:
    """The same folds, with the strength chosen by leaving out one sample after the other in turn."""
    private, sent = samples(30, 5), samples(30, 7, 1)
    private = private + 0.7 * sent[:, :5]
    error = spread = 0.0
    for fold in range(10):
        held = np.arange(30) % 10 == fold
        x, y, x_held, y_held = sent[~held], private[~held], sent[held], private[held]
        scale = np.sqrt(np.sum((x - x.mean(0)) ** 2) / len(x))
        trials = []
        for strength in 10.0 ** np.arange(-7.0, 5.0):
            wrong = sum(
                float(
                    np.sum(
                        (
                            ridge(np.delete(x, at, 0), np.delete(y, at, 0), x[at : at + 1], scale, strength)
                            - y[at]
                        )
                        ** 2
                    )
                )
                for at in range(len(x))
            )
            trials.append((wrong, strength))
        error += float(np.sum((ridge(x, y, x_held, scale, min(trials)[1]) - y_held) ** 2))
        spread += float(np.sum((y_held - y.mean(0)) ** 2))
    assert figure(private, sent) == pytest.approx(1 - error / spread, abs=2e-3)


def ridge(x: Array, y: Array, asked: Array, scale: float, strength: float) -> Array:
    centred = (x - x.mean(0)) / scale
    weights = np.linalg.solve(
        centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (y - y.mean(0))
    )
    predicted: Array = (asked - x.mean(0)) / scale @ weights + y.mean(0)
    return predicted


def test_few_samples_tell_nothing() -> None:
    private = samples(MIN_SAMPLES - 1, 2)
    assert figure(private, private) is None


def test_a_private_value_that_never_changes_tells_nothing() -> None:
    assert figure(np.ones((20, 4)), samples(20, 4)) is None


def test_what_never_changes_gives_nothing_away() -> None:
    assert figure(samples(20, 4), np.ones((20, 4))) == 0.0
    assert figure(samples(20, 4)) == 0.0


def test_samples_of_different_sizes_cannot_be_compared() -> None:
    assert products([np.ones(3), np.ones(4)]) is None
    assert products([np.array(["a"], object)] * 2) is None
