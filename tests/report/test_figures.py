import re

import numpy as np
import pytest

from mm1.report.figures import curve_figure, score_figure, smooth
from mm1.report.read_run import Floor, Score


def result(shots: int, score: float, *floors: Floor) -> Score:
    return Score("task", shots, "accuracy", score, (score - 0.1, score + 0.1), 10, 0, floors, {}, {}, (), ())


@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_smoothing_keeps_a_constant(length):
    np.testing.assert_allclose(smooth(np.full(length, 2.5)), 2.5)


def test_smoothing_keeps_a_slope_and_takes_the_noise():
    slope = np.linspace(5, 1, 400)
    np.testing.assert_allclose(smooth(slope)[30:-30], slope[30:-30], atol=1e-9)
    noisy = slope + np.random.default_rng(0).normal(0, 0.5, 400)
    assert np.std(smooth(noisy) - slope) < 0.25 * np.std(noisy - slope)


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_loss_figures_take_the_colours_of_the_page(count):
    svg = curve_figure(np.arange(1.0, count + 1), np.linspace(7, 1, count), 6000, "loss")
    assert svg.startswith('<svg role="img"')
    assert "var(--line)" in svg
    assert ("var(--series)" in svg) == (count > 0)
    assert not re.search("#fe000", svg)
    assert ">step<" in svg
    assert len(svg) < 80_000


def test_ids_are_unique_among_figures_of_a_page():
    scores = [result(0, 0.2, Floor("majority", 0.3)), result(4, 0.8, Floor("majority", 0.3))]
    page = "".join(score_figure(scores, ["majority"], percent=True) for _ in range(3))
    ids = re.findall(r' id="([^"]*)"', page)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)


def test_a_floor_looks_the_same_whichever_task_has_it():
    both = [result(0, 0.2, Floor("majority", 0.3), Floor("swapped pictures", 0.1))]
    one = [result(0, 0.2, Floor("swapped pictures", 0.1))]
    names = ["majority", "swapped pictures"]
    assert "var(--floor-1)" in score_figure(both, names, percent=True)
    assert "var(--floor-2)" in score_figure(both, names, percent=True)
    assert "var(--floor-1)" not in score_figure(one, names, percent=True)
    assert "var(--floor-2)" in score_figure(one, names, percent=True)
