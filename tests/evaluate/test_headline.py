"""Headline figures: several seeds to one file and one table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.evaluate.ceiling import perfect_score
from mm1.evaluate.headline import headline, headline_table, table_in_page

ROOT = Path(__file__).parents[2]


def write_run(folder, right, *, shots=0, metric="accuracy", task="t"):
    """Write a result from right and wrong answers (draws, items)."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = [[{"prediction": "a red circle" if ok else "no"} for ok in draw] for draw in right]
    predictions = [
        {"id": str(n), **draws[0][n], "answers": ["a red circle"], "other_draws": [draw[n] for draw in draws[1:]]}
        for n in range(len(draws[0]))
    ]
    content = {
        "task": task,
        "shots": shots,
        "metric": metric,
        "items": len(predictions),
        "floors": {"majority": {"score": 0.397}},
        "protocol": {"model_hash": str(folder), "prompt": "p"},
        "predictions": predictions,
    }
    (folder / f"{task}.{shots}-shot.json").write_text(json.dumps(content))


def three_runs(folder, spread=0.05, draws=3):
    random = np.random.default_rng(0)
    runs = [folder / f"seed-{n}" for n in range(3)]
    for run in runs:
        rate = 0.6 + spread * random.standard_normal()
        write_run(run, random.random((1, 200)) < rate)
        write_run(run, random.random((draws, 200)) < rate, shots=4)
    return runs


def test_three_seeds_become_a_file_and_a_table(tmp_path):
    runs = three_runs(tmp_path)
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- headline: results/demo.json -->\nold\n<!-- end of headline -->\nafter\n")
    file = tmp_path / "results" / "demo.json"
    result = CliRunner().invoke(app, ["headline", *map(str, runs), "--to", str(file), "--page", str(page)])
    assert result.exit_code == 0, result.exception
    content = json.loads(file.read_text())
    none, four = content["rows"]
    assert none["mean"] == pytest.approx(np.mean(none["by_seed"]), abs=0.01)
    assert none["errors"]["draws"] == 0 < four["errors"]["draws"]
    assert four["errors"]["seeds"] == pytest.approx(np.std(four["by_seed"], ddof=1) / 3**0.5, abs=0.01)
    # With two degrees of freedom for the seeds the interval is wider than the errors' sum in squares.
    assert four["half_interval"] > 1.96 * np.hypot(four["errors"]["seeds"], four["errors"]["items"])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert table_in_page(page, file) == headline_table(content)
    low, high = min(four["by_seed"]), max(four["by_seed"])
    assert f"| {four['mean']:.1f} ± {four['half_interval']:.1f} ({low:.1f} to {high:.1f}) |" in text


def test_what_can_not_be_a_headline_is_refused(tmp_path):
    runs = three_runs(tmp_path, draws=1)
    with pytest.raises(UserError, match="2 runs are too few"):
        headline(runs[:2])
    with pytest.raises(UserError, match="the shots were drawn once: score every run with --draws 3"):
        headline(runs)
    with pytest.raises(UserError, match="are the same model"):
        headline([runs[0], runs[1], runs[0]])
    (runs[2] / "t.4-shot.json").unlink()
    with pytest.raises(UserError, match="were not both scored on t at 4 shots"):
        headline(runs)
    page = tmp_path / "page.md"
    page.write_text("no marks")
    for run in runs[:2]:
        (run / "t.4-shot.json").unlink()
    done = CliRunner().invoke(app, ["headline", *map(str, runs), "--to", str(tmp_path / "x.json"), "--page", str(page)])
    assert "add the lines `<!-- headline: x.json -->`" in str(done.exception)
    assert not (tmp_path / "x.json").exists()


def test_a_perfect_model_gets_less_than_the_metrics_maximum():
    captions = [
        ["a red circle"],
        ["a blue square on the left of a dog"],
        ["two cats", "a pair of cats on a green field"],
    ]
    perfect = perfect_score("cider", captions)
    assert perfect is not None
    assert 5 < perfect < 10
    assert perfect_score("accuracy", captions) is None


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_tables_in_pages_are_those_of_the_committed_figures():
    """Every page with marks has the table of its file, and every file of figures is in a page."""
    shown = set()
    for page in PAGES:
        for name in re.findall(r"<!-- headline: (\S+) -->\n", page.read_text()):
            file = (page.parent / name).resolve()
            assert table_in_page(page, file) == headline_table(json.loads(file.read_text())), f"{page}: {name}"
            shown.add(file)
    figures = {f.resolve() for f in (ROOT / "docs" / "results").glob("*.json") if "rows" in json.loads(f.read_text())}
    assert figures == shown
