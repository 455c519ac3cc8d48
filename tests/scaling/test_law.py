"""The law: the paper's rates from the paper's law, and the paper's law from the paper's rates."""

from __future__ import annotations

import json
import math
import random

import pytest
from scipy import stats

from mm1.errors import UserError
from mm1.scaling.fit import fit_file
from mm1.scaling.law import PAPER_LAW
from mm1.scaling.plot import write_plot
from mm1.scaling.subject import law_size

PAPER = [(1.2e9, 8.6e-5), (2.9e9, 5.9e-5), (6.4e9, 4.2e-5), (30e9, 2.2e-5)]
"""The paper's table of predicted rates, to two digits."""
SIZES = [9e6, 85e6, 302e6, 1.2e9]
"""Of the paper's sweeps."""


def sweep(optimum=PAPER_LAW, sizes=SIZES, sign=1.0, seeds=1, noise=0.0, steps=3, shift=0.0):
    """Rows of a sweep whose values are parabolas around a law's rates."""
    draw = random.Random(0)
    return [
        {
            "size": size,
            "learning_rate": optimum(size) * 2.0 ** (k + shift),
            "score" if sign > 0 else "loss": sign * (50 - 3 * (math.log(2) * (k + shift)) ** 2 + draw.gauss(0, noise)),
            "seed": seed,
        }
        for size in sizes
        for k in range(-steps, steps + 1)
        for seed in range(seeds)
    ]


def write(folder, rows, name="points.jsonl"):
    path = folder / name
    if name.endswith(".csv"):
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("size", "rate"), PAPER)
def test_the_law_gives_the_papers_rates(size, rate):
    assert PAPER_LAW(size) == pytest.approx(rate, rel=0.01)


def test_the_papers_rates_give_the_papers_law(tmp_path):
    fit = fit_file(write(tmp_path, [{"size": size, "learning_rate": rate} for size, rate in PAPER]))
    # Rates of two digits are off by up to 2.3 %: 1.1 % half a digit at 2.2e-5, over a range of ln(25).
    assert fit.law.slope == pytest.approx(PAPER_LAW.slope, abs=0.01)
    assert fit.law.intercept == pytest.approx(PAPER_LAW.intercept, abs=0.25)
    for size, rate in PAPER:
        assert f"{fit.law(size):.1e}" == f"{rate:.1e}"
    low, high = fit.band(2.9e9)
    assert low < PAPER_LAW(2.9e9) < high
    assert not any(left.outlier for left in fit.left_out)


@pytest.mark.parametrize("sign", [1, -1], ids=["score", "loss"])
@pytest.mark.parametrize("name", ["points.csv", "points.json", "points.jsonl"])
def test_a_sweep_of_parabolas_gives_its_law(tmp_path, name, sign):
    fit = fit_file(write(tmp_path, sweep(sign=sign, shift=0.3), name))
    assert fit.measure == ("score" if sign > 0 else "loss")
    assert fit.law.slope == pytest.approx(PAPER_LAW.slope, rel=1e-9)
    assert fit.law.intercept == pytest.approx(PAPER_LAW.intercept, rel=1e-7)
    for optimum, size in zip(fit.optima, SIZES, strict=True):
        assert optimum.learning_rate == pytest.approx(PAPER_LAW(size), rel=1e-9)
        assert optimum.value == pytest.approx(sign * 50)
    assert all(left.ratio == pytest.approx(1) and not left.outlier for left in fit.left_out)


def test_the_vertex_is_as_uncertain_as_it_scatters(tmp_path):
    """Over many noisy sweeps the standard error is the spread of the vertices."""
    errors, gaps = [], []
    size = 85e6
    for seed in range(200):
        draw = random.Random(seed)
        rows = [row | {"score": row["score"] + draw.gauss(0, 0.3)} for row in sweep(sizes=[size], seeds=3, steps=2)]
        fit = fit_file(write(tmp_path, rows + sweep(sizes=[2e9, 4e9])))
        error = fit.optima[0].error
        assert error is not None
        errors.append(error)
        gaps.append(math.log(fit.optima[0].learning_rate / PAPER_LAW(size)))
    spread = math.sqrt(sum(gap**2 for gap in gaps) / len(gaps))
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.15)


def test_a_size_off_the_law_is_an_outlier_and_is_told_from_the_others(tmp_path):
    sizes = [9e6, 30e6, 85e6, 302e6, 600e6, 1.2e9]
    rows = [{"size": n, "learning_rate": PAPER_LAW(n) * (1.01 if i % 2 else 0.99)} for i, n in enumerate(sizes)]
    rows[2]["learning_rate"] *= 2
    fit = fit_file(write(tmp_path, rows))
    assert [left.outlier for left in fit.left_out] == [False, False, True, False, False, False]
    assert fit.left_out[2].predicted == pytest.approx(PAPER_LAW(85e6), rel=0.03)
    assert fit.left_out[2].ratio == pytest.approx(0.5, rel=0.05)


def test_the_band_holds_the_true_line_as_often_as_it_says(tmp_path):
    held = 0
    for seed in range(300):
        draw = random.Random(seed)
        rows = [{"size": n, "learning_rate": PAPER_LAW(n) * math.exp(draw.gauss(0, 0.1))} for n in SIZES]
        low, high = fit_file(write(tmp_path, rows)).band(3e9)
        held += low < PAPER_LAW(3e9) < high
    assert 0.92 < held / 300 < 0.98


@pytest.mark.parametrize(("count", "quantile"), [(3, 12.706), (4, 4.303), (5, 3.182)])
def test_the_slope_is_as_sure_as_the_tables_of_students_t_say(tmp_path, count, quantile):
    draw = random.Random(0)
    sizes = [1e7 * 4**n for n in range(count)]
    rows = [{"size": n, "learning_rate": PAPER_LAW(n) * math.exp(draw.gauss(0, 0.1))} for n in sizes]
    line = stats.linregress([math.log(n) for n in sizes], [math.log(row["learning_rate"]) for row in rows])
    assert fit_file(write(tmp_path, rows)).slope_error == pytest.approx(quantile * line.stderr, rel=5e-4)


@pytest.mark.parametrize("low", [True, False])
def test_an_optimum_at_the_edge_is_refused_or_named(tmp_path, low):
    cut = [row for row in sweep() if row["size"] != 85e6 or (row["learning_rate"] >= PAPER_LAW(85e6) * 0.99) == low]
    path = write(tmp_path, cut)
    side = "lowest" if low else "highest"
    with pytest.raises(UserError, match=rf"size 8.5e\+07: the best learning rate .* is the {side} of the sweep"):
        fit_file(path)
    fit = fit_file(path, leave_out=True)
    assert [optimum.size for optimum in fit.optima] == [9e6, 302e6, 1.2e9]
    assert side in fit.refused[0]
    write_plot(fit, tmp_path / "law.svg")
    assert "8.5e+07, no optimum" in (tmp_path / "law.svg").read_text()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "the file has no points"),
        (sweep(sizes=SIZES[:2]), "needs 3 sizes with an optimum, and the file has 2"),
        (sweep(steps=1)[:2] + sweep()[7:], "a parabola needs three learning rates, and the sweep has 2"),
        ([*sweep(), {"size": 1e9, "learning_rate": 1e-4, "loss": 2}], "both scores and losses"),
        ([{"size": 1e9, "learning_rate": 1e-4}, {"size": 1e9, "learning_rate": 2e-4}], "no score or loss to choose by"),
        ([*sweep(), {"size": 1e9, "learning_rate": 1e-4}], "point 29: it has no score"),
        ([*sweep(), {"size": 1e9, "score": 1}], "point 29: it has no learning_rate"),
        ([*sweep(), {"size": 0, "learning_rate": 1e-4, "score": 1}], "size 0 must be above 0"),
        ([*sweep(), {"size": 1e9, "learning_rate": 1e-4, "score": "nan"}], "is not a number"),
        ([{"size": 1e9, "lr": 1e-4}], "'lr' is unknown"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        fit_file(write(tmp_path, rows))


def test_points_that_do_not_bend_are_refused(tmp_path):
    jagged = sweep(sizes=[9e6], steps=2)
    for row, score in zip(jagged, [9, 0, 10, 0, 9], strict=True):
        row["score"] = score
    with pytest.raises(UserError, match="has no optimum between them"):
        fit_file(write(tmp_path, jagged + sweep(sizes=[85e6, 1e9])))


@pytest.mark.parametrize(("sparse", "dense"), [("mm1-3b-moe", "mm1-3b"), ("mm1-7b-moe", "mm1-7b")])
def test_a_sparse_model_takes_its_backbones_rate(sparse, dense):
    assert law_size(sparse) == law_size(dense)
