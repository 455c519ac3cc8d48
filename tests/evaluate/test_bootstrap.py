import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.evaluate.bootstrap import bootstrap_interval
from mm1.evaluate.metrics import METRICS

ACCURACY = METRICS["accuracy"]


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_interval_is_ordered_and_within_the_values(values):
    low, high = bootstrap_interval(ACCURACY, np.array(values)[:, None])
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).random(4000)
    low, high = bootstrap_interval(ACCURACY, values[:, None], resamples=4000)
    spread = 1.96 * values.std() / np.sqrt(len(values))
    assert (values.mean() - low, high - values.mean()) == pytest.approx((spread, spread), rel=0.06)


def test_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        sample = (generator.random(150) < 0.3).astype(float)[:, None]
        low, high = bootstrap_interval(ACCURACY, sample, seed=trial, resamples=400)
        hits += low <= 0.3 <= high
    assert 180 <= hits <= 199


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random((100, 1))
    assert bootstrap_interval(ACCURACY, values, seed=3) == bootstrap_interval(ACCURACY, values, seed=3)
    assert bootstrap_interval(ACCURACY, values, seed=3) != bootstrap_interval(ACCURACY, values, seed=4)
