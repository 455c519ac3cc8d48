"""`mm1 scale` as a user runs it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError

from .test_law import PAPER, sweep, write


def run(*arguments):
    result = CliRunner().invoke(app, ["scale", *map(str, arguments)], env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_predict_by_size_and_by_model():
    text = run("predict", "--params", "2.9e9", "mm1-3b-moe")
    assert "2.90 G" in text
    assert "2.89 G" in text
    assert "5.92e-05" in text
    assert "5.93e-05" in text


def test_predict_by_ones_own_law(tmp_path):
    points = write(tmp_path, [{"size": size, "learning_rate": rate} for size, rate in PAPER])
    text = run("predict", "--params", "6.4e9", "--points", points)
    assert "95 % band" in text
    assert "4.2" in text


def test_predict_for_nothing_is_an_error():
    with pytest.raises(UserError, match="--params 2.9e9"):
        run("predict")


def test_fit_and_plot(tmp_path):
    points = write(tmp_path, sweep())
    text = run("fit", points)
    assert "-0.4214 ln(N) -0.5535" in text
    run("plot", points, "--to", tmp_path / "law.svg")
    assert ElementTree.parse(tmp_path / "law.svg").getroot().tag.endswith("svg")
    assert not list(tmp_path.glob("*.partial"))


def test_budget_says_how_to_train():
    text = run(
        "budget", "mm1-tiny", "--gpus", 2, "--price", 3, "--set", "train.batch_size=4", "--set", "train.steps=3000"
    )
    assert "to train so: --set train.micro_batch_size=" in text
    for wanted in ("vision tower", "peak per GPU", "communication per step", "GPU hours", "at 3 per GPU hour"):
        assert wanted in text


@pytest.mark.parametrize("options", [["--mfu", "0.4", "--tokens-per-second", "9"], ["--mfu", "2"]])
def test_a_budget_from_contradictions_is_an_error(options):
    with pytest.raises(UserError):
        run("budget", "mm1-tiny", *options)


def test_points_of_a_real_sweep_may_come_from_metrics(tmp_path):
    """Numbers as JSON writes them, seeds included."""
    path = tmp_path / "points.json"
    path.write_text(json.dumps(sweep(seeds=2)))
    assert "4 sizes" in run("fit", path)
